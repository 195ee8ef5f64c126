#include "image/digest.h"

#include <nettle/sha2.h>

#include <new>

#include "base/text.h"

namespace caisson::image {

namespace {
sha256_ctx* context(std::byte* state) { return std::launder(reinterpret_cast<sha256_ctx*>(state)); }
}  // namespace

Sha256::Sha256() {
    static_assert(sizeof(sha256_ctx) <= sizeof(state_) && alignof(sha256_ctx) <= 8);
    sha256_init(new (state_) sha256_ctx);
}

void Sha256::update(base::ByteView data) { sha256_update(context(state_), data.size(), data.data()); }

std::array<std::uint8_t, 32> Sha256::finish() {
    std::array<std::uint8_t, 32> digest{};
    sha256_digest(context(state_), digest.size(), digest.data());
    return digest;
}

std::string digest_of(std::string_view data) {
    Sha256 hash;
    hash.update(data);
    return "sha256:" + hash.finish_hex();
}

bool is_hex(std::string_view text) {
    for (char c : text)
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
    return !text.empty();
}

Result<std::string> digest_hex(std::string_view digest) {
    constexpr std::string_view kPrefix = "sha256:";
    if (!digest.starts_with(kPrefix) || digest.size() != kPrefix.size() + 64 || !is_hex(digest.substr(kPrefix.size())))
        return base::failure(Errc::kCorrupt, "\"" + base::printable(digest, 100) +
                                                 "\" is not a digest that caisson knows (sha256:<64 hex digits>)");
    return std::string(digest.substr(kPrefix.size()));
}

}  // namespace caisson::image
