// Notices that do not flood: whoever wrote the archive decides how many there are.
#pragma once

#include <string>
#include <utility>

#include "tar/entry.h"

namespace caisson::tar {

class Notices {
  public:
    static constexpr int kMost = 20;
    // `what` they are about, if there are more: "... and 3 more `what`".
    explicit Notices(const Notice& notice, std::string what = "notices") : notice_(notice), what_(std::move(what)) {}
    void operator()(const std::string& text) {
        if (++count_ <= kMost) notice_(text);
    }
    void finish() {
        if (count_ > kMost) notice_("... and " + std::to_string(count_ - kMost) + " more " + what_);
        count_ = 0;
    }

  private:
    const Notice& notice_;
    std::string what_;
    int count_ = 0;
};

}  // namespace caisson::tar
