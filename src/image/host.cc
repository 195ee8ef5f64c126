#include "image/host.h"

#include <ctime>

#include "base/text.h"

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

Result<> check_platform(const ImageConfig& config, const std::string& architecture) {
    bool right = (config.config.os.empty() || config.config.os == "linux") &&
                 (config.config.architecture.empty() || config.config.architecture == architecture);
    if (right) return {};
    return base::failure(Errc::kUnsupported, "the image is for " + base::printable(config.config.os, 50) + "/" +
                                                 base::printable(config.config.architecture, 50) + ", not for linux/" + architecture);
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
