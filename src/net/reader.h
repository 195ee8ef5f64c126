// Numbers in network order from bytes that somebody else made.
#pragma once

#include "base/bytes.h"

namespace caisson::net {

// Takes from the front. Once something was asked for that is not there, it is failed for good and gives zeros and
// nothing, so that a parser may look once, at the end.
class Reader {
  public:
    explicit Reader(base::ByteView bytes) : rest_(bytes) {}
    base::ByteView take(std::size_t count) {
        if (failed_ || count > rest_.size()) {
            failed_ = true;
            return {};
        }
        const auto taken = rest_.first(count);
        rest_ = rest_.subspan(count);
        return taken;
    }
    // `width` in bytes, at most 4.
    std::uint32_t number(std::size_t width) {
        std::uint32_t value = 0;
        for (const auto byte : take(width)) value = value << 8 | byte;
        return value;
    }
    // A length of so many bytes, and then so much.
    base::ByteView counted(std::size_t width) { return take(number(width)); }
    base::ByteView rest() const { return rest_; }
    bool empty() const { return rest_.empty(); }
    bool failed() const { return failed_; }
    // It was all there, and nothing is left.
    bool is_done() const { return !failed_ && rest_.empty(); }

  private:
    base::ByteView rest_;
    bool failed_ = false;
};

}  // namespace caisson::net
