// Finds the keys that leave a box in what its user types. Pure.
#pragma once

#include <string>
#include <utility>

#include "base/bytes.h"

namespace caisson::box {

class DetachKeys {
  public:
    // Empty: nothing is ever found.
    explicit DetachKeys(std::string keys) : keys_(std::move(keys)) {}
    // Appends to `out` what is to be passed on; bytes that may begin the sequence are held back until the next ones show
    // it. true once the whole sequence has come: what lies behind it is dropped.
    bool feed(base::ByteView typed, base::Bytes& out);
    // At most so many more bytes than were fed are passed on at once.
    std::size_t held_back_at_most() const { return keys_.empty() ? 0 : keys_.size() - 1; }

  private:
    std::string keys_;
    std::size_t matched_ = 0;
};

}  // namespace caisson::box
