#include "os/random.h"

#include <sys/random.h>

#include <cerrno>

namespace caisson::os {

Result<> fill_random(std::span<std::uint8_t> out) {
    while (!out.empty()) {
        ssize_t got = ::getrandom(out.data(), out.size(), 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return base::failure_errno("cannot draw random bytes");
        out = out.subspan(static_cast<std::size_t>(got));
    }
    return {};
}

}  // namespace caisson::os
