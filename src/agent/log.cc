#include "agent/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "agent/paths.h"
#include "base/text.h"

namespace caisson::agent {

void log_failure(std::string_view text) {
    std::string line = "caisson-agent: " + base::printable(text, 800) + "\n";
    // <3> is "error": it reaches the console although the kernel was told to be quiet.
    int fd = ::open(kKernelLog, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0) line.insert(0, "<3>");
    ssize_t ignored = ::write(fd >= 0 ? fd : 2, line.data(), line.size());
    static_cast<void>(ignored);
    if (fd >= 0) ::close(fd);
}

}  // namespace caisson::agent
