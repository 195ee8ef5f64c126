#include "os/host.h"

#include <unistd.h>

#include <chrono>

#include "base/text.h"
#include "os/file.h"

namespace caisson::os {

Result<std::string> boot_id() {
    return std::string(base::trim(CAISSON_TRY(read_file("/proc/sys/kernel/random/boot_id", 128))));
}

std::string program_directory() {
    char path[4096];
    ssize_t length = ::readlink("/proc/self/exe", path, sizeof path);
    if (length <= 0) return {};
    std::string text(path, static_cast<std::size_t>(length));
    return text.substr(0, text.rfind('/'));
}

std::int64_t unix_ms() {
    using namespace std::chrono;
    return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

std::int64_t unix_ns() {
    using namespace std::chrono;
    return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
}

}  // namespace caisson::os
