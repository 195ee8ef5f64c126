// Text for standard output and standard error, until nobody reads it any more.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson::cli {

// Output in pieces as small as a byte becomes a few large writes, in the order of both streams. With `follow` nothing
// waits: each entry is written at once.
class Output {
  public:
    explicit Output(bool at_once) : at_once_(at_once) {}

    // False: nobody reads any more.
    Result<bool> write(int fd, std::string_view text) {
        if (fd != fd_ && !CAISSON_TRY(flush())) return false;
        fd_ = fd;
        text_ += text;
        if (!at_once_ && text_.size() < kEnough) return true;
        return flush();
    }
    Result<bool> flush() {
        std::string_view rest = text_;
        while (!rest.empty()) {
            const auto put = ::write(fd_, rest.data(), rest.size());
            if (put < 0 && errno == EINTR) continue;
            if (put < 0 && errno == EPIPE) return false;
            if (put < 0) return base::failure_errno("cannot write the output");
            rest.remove_prefix(static_cast<std::size_t>(put));
        }
        text_.clear();
        return true;
    }

  private:
    static constexpr std::size_t kEnough = 64 << 10;
    bool at_once_;
    int fd_ = STDOUT_FILENO;
    std::string text_;
};

}  // namespace caisson::cli
