#include "image/unpack/status.h"

#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <thread>

#include "image/limits.h"
#include "image/protocol.h"
#include "os/file.h"

namespace caisson::image::unpack {

namespace {
void write_line(const nlohmann::json& line) {
    // Names from archives may be any bytes.
    auto text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    // Nobody left to hear it: the work ends with the process that asked for it.
    if (!os::write_all(kStatusFd, text)) ::_exit(1);
}
}  // namespace

Result<nlohmann::json> read_request() {
    std::string text;
    while (!text.ends_with('\n')) {
        char buffer[4096];
        ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return base::failure_errno("cannot read the request");
        if (got == 0) return base::failure(Errc::kInternal, "the request to caisson-unpack is cut short");
        text.append(buffer, static_cast<std::size_t>(got));
        if (text.size() > kMaxJsonBytes) return base::failure(Errc::kInternal, "the request to caisson-unpack is too long");
    }
    auto request = nlohmann::json::parse(text, nullptr, false);
    if (!request.is_object()) return base::failure(Errc::kInternal, "the request to caisson-unpack is not JSON");
    std::thread([] {
        char nothing;
        while (::read(STDIN_FILENO, &nothing, 1) < 0 && errno == EINTR) {
        }
        ::_exit(1);
    }).detach();
    return request;
}

void report_progress(const std::string& step, std::uint64_t done, std::uint64_t total) {
    write_line({{"progress", {{"step", step}, {"done", done}, {"total", total}}}});
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

}  // namespace caisson::image::unpack
