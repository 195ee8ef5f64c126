#include "image/host.h"

#include <ctime>

namespace caisson::image {

std::string host_architecture() {
#if defined(__x86_64__)
    return "amd64";
#elif defined(__aarch64__)
    return "arm64";
#else
#error "this architecture has no OCI name here yet"
#endif
}

std::string format_time(std::chrono::system_clock::time_point when) {
    std::time_t seconds = std::chrono::system_clock::to_time_t(when);
    struct tm parts {};
    ::gmtime_r(&seconds, &parts);
    char text[32];
    std::size_t size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return std::string(text, size);
}

}  // namespace caisson::image
