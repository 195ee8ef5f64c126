// SHA-256 (FIPS 180-4) by nettle: no initialisation at start-up, hardware instructions where the CPU has them.
#pragma once

#include <nettle/sha2.h>

#include <string>

#include "base/bytes.h"

namespace caisson::base {

class Sha256 {
  public:
    Sha256() { nettle_sha256_init(&state_); }
    void update(ByteView data) { nettle_sha256_update(&state_, data.size(), data.data()); }
    // 64 lower-case hex digits; the object starts afresh.
    std::string finish_hex() {
        std::uint8_t digest[SHA256_DIGEST_SIZE];
        nettle_sha256_digest(&state_, sizeof digest, digest);
        return to_hex(digest);
    }

  private:
    sha256_ctx state_;
};

inline std::string sha256_hex(ByteView data) {
    Sha256 hash;
    hash.update(data);
    return hash.finish_hex();
}

}  // namespace caisson::base
