#include "box/detach_keys.h"

#include "base/text.h"
#include "caisson/runtime.h"

namespace caisson::box {

bool DetachKeys::feed(base::ByteView typed, base::Bytes& out) {
    for (std::uint8_t byte : typed) {
        if (keys_.empty()) {
            out.push_back(byte);
            continue;
        }
        if (byte != static_cast<std::uint8_t>(keys_[matched_])) {
            // Not the sequence after all; its first key may begin it anew.
            out.insert(out.end(), keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(matched_));
            matched_ = 0;
            if (byte != static_cast<std::uint8_t>(keys_[0])) {
                out.push_back(byte);
                continue;
            }
        }
        if (++matched_ == keys_.size()) return true;
    }
    return false;
}

}  // namespace caisson::box

namespace caisson {

Result<std::string> parse_detach_keys(std::string_view text) {
    std::string keys;
    if (text.empty()) return keys;
    for (const auto& part : base::split(text, ',')) {
        std::string_view key = part;
        constexpr std::string_view kControl = "ctrl-";
        if (key.size() == 1 && key[0] > ' ' && key[0] < 0x7f) {
            keys += key[0];
        } else if (key.size() == kControl.size() + 1 && base::starts_with(key, kControl) &&
                   ((key.back() >= 'a' && key.back() <= 'z') || (key.back() >= '@' && key.back() <= '_'))) {
            keys += static_cast<char>(key.back() & 0x1f);
        } else {
            return base::failure(Errc::kUsage, "'" + base::printable(key, 32) + "' is not a key to detach with",
                                 "write for example ctrl-p,ctrl-q or ctrl-] or a,b");
        }
    }
    return keys;
}

}  // namespace caisson
