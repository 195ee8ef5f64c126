#include "image/status.h"

#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <thread>

#include "image/limits.h"
#include "image/protocol.h"
#include "os/file.h"

namespace caisson::image {

namespace {
void write_line(const nlohmann::json& line) {
    // Names from archives may be any bytes.
    auto text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    // Nobody left to hear it: the work ends with the process that asked for it.
    if (!os::write_all(kStatusFd, text)) ::_exit(1);
}
}  // namespace

Result<nlohmann::json> read_request(Secret* secrets) {
    constexpr std::size_t kMaxSecretBytes = 1 << 20;
    std::string text;
    std::size_t wanted = std::string::npos;  // bytes of secrets, once the line is complete
    std::size_t line_end = 0;
    nlohmann::json request;
    while (wanted == std::string::npos || text.size() < line_end + wanted) {
        char buffer[4096];
        ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return base::failure_errno("cannot read the request");
        if (got == 0) return base::failure(Errc::kInternal, "the request is cut short");
        // Nothing may be left behind in memory that the string gave up by growing.
        if (secrets != nullptr) text.reserve(kMaxJsonBytes + kMaxSecretBytes);
        text.append(buffer, static_cast<std::size_t>(got));
        ::explicit_bzero(buffer, sizeof buffer);
        if (wanted == std::string::npos) {
            auto newline = text.find('\n');
            if (newline == std::string::npos && text.size() > kMaxJsonBytes)
                return base::failure(Errc::kInternal, "the request is too long");
            if (newline == std::string::npos) continue;
            line_end = newline + 1;
            request = nlohmann::json::parse(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(newline), nullptr, false);
            if (!request.is_object()) return base::failure(Errc::kInternal, "the request is not JSON");
            wanted = secrets == nullptr ? 0 : request.value("secret_bytes", std::size_t{0});
            if (wanted > kMaxSecretBytes) return base::failure(Errc::kInternal, "the request is too long");
        }
    }
    if (secrets != nullptr) *secrets = Secret(std::string_view(text).substr(line_end, wanted));
    wipe(text);
    std::thread([] {
        char nothing;
        while (::read(STDIN_FILENO, &nothing, 1) < 0 && errno == EINTR) {
        }
        ::_exit(1);
    }).detach();
    return request;
}

void report_progress(const nlohmann::json& progress) { write_line({{"progress", progress}}); }

void report_progress(const std::string& step, std::uint64_t done, std::uint64_t total) {
    report_progress({{"step", step}, {"done", done}, {"total", total}});
}

int report_result(const nlohmann::json& result) {
    write_line({{"result", result}});
    return 0;
}

int report_error(const base::Error& error) {
    base::Error plain = error;
    plain.sys_errno = 0;  // the reader adds the system's words itself
    write_line({{"error",
                 {{"code", base::errc_info(error.code).name},
                  {"message", plain.to_string().substr(0, 8192)},
                  {"hint", error.hint},
                  {"errno", error.sys_errno}}}});
    return 1;
}

}  // namespace caisson::image
