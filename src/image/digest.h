// SHA-256 and the "sha256:<64 hex digits>" names that OCI gives to content.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace caisson::image {

// Streaming SHA-256 (FIPS 180-4) on nettle, which starts without any initialisation. Not thread-safe.
class Sha256 {
  public:
    Sha256();
    void update(base::ByteView data);
    void update(std::string_view data) { update(base::as_bytes(data)); }
    // The digest of everything so far; starts over.
    std::array<std::uint8_t, 32> finish();
    std::string finish_hex() { return base::to_hex(finish()); }

  private:
    alignas(8) std::byte state_[128];
};

// "sha256:" + hex.
std::string digest_of(std::string_view data);
// The 64 hex digits of "sha256:<hex>"; kCorrupt for anything else, other algorithms included.
Result<std::string> digest_hex(std::string_view digest);
bool is_hex(std::string_view text);

}  // namespace caisson::image
