// Notices that do not flood: whoever wrote the archive decides how many there are.
#pragma once

#include <string>
#include <utility>

#include "tar/entry.h"

namespace caisson::tar {

class Notices {
  public:
    static constexpr int kMost = 20;
    explicit Notices(const Notice& notice) : notice_(notice) {}
    void operator()(const std::string& text) {
        if (++count_ <= kMost) notice_(text);
    }
    void finish() {
        if (count_ > kMost) notice_("... and " + std::to_string(count_ - kMost) + " more notices");
        count_ = 0;
    }

  private:
    const Notice& notice_;
    int count_ = 0;
};

}  // namespace caisson::tar
