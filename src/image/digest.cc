#include "image/digest.h"

#include "base/sha256.h"
#include "base/text.h"

namespace caisson::image {

std::string digest_of(std::string_view data) {
    return "sha256:" + base::sha256_hex(base::as_bytes(data));
}


Result<std::string> digest_hex(std::string_view digest) {
    constexpr std::string_view kPrefix = "sha256:";
    if (!digest.starts_with(kPrefix) || digest.size() != kPrefix.size() + 64 || !is_hex(digest.substr(kPrefix.size())))
        return base::failure(Errc::kCorrupt, "\"" + base::printable(digest, 100) +
                                                 "\" is not a digest that caisson knows (sha256:<64 hex digits>)");
    return std::string(digest.substr(kPrefix.size()));
}

}  // namespace caisson::image
