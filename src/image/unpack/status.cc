#include "image/unpack/status.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

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
    auto text = CAISSON_TRY(os::read_fd(STDIN_FILENO, kMaxJsonBytes, "the request"));
    auto request = nlohmann::json::parse(text, nullptr, false);
    if (!request.is_object()) return base::failure(Errc::kInternal, "the request to caisson-unpack is not JSON");
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
