#include "base/result.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace caisson::base {

const ErrcInfo& errc_info(Errc code) {
    static constexpr ErrcInfo kUsage{"usage", 2, 400, -1};
    static constexpr ErrcInfo kNotFound{"not_found", 125, 404, -2};
    static constexpr ErrcInfo kAlreadyExists{"already_exists", 125, 409, -3};
    static constexpr ErrcInfo kInUse{"in_use", 125, 409, -4};
    static constexpr ErrcInfo kPermission{"permission", 125, 403, -5};
    static constexpr ErrcInfo kUnsupported{"unsupported", 125, 501, -6};
    static constexpr ErrcInfo kHostMissing{"host_missing", 125, 503, -7};
    static constexpr ErrcInfo kNoSpace{"no_space", 125, 507, -8};
    static constexpr ErrcInfo kLimit{"limit", 125, 413, -9};
    static constexpr ErrcInfo kCorrupt{"corrupt", 125, 422, -10};
    static constexpr ErrcInfo kProtocol{"protocol", 125, 502, -11};
    static constexpr ErrcInfo kTimeout{"timeout", 125, 504, -12};
    static constexpr ErrcInfo kGuest{"guest", 125, 502, -13};
    static constexpr ErrcInfo kCancelled{"cancelled", 125, 499, -14};
    static constexpr ErrcInfo kIo{"io", 125, 500, -15};
    static constexpr ErrcInfo kNotExecutable{"not_executable", 126, 422, -16};
    static constexpr ErrcInfo kCommandNotFound{"command_not_found", 127, 422, -17};
    static constexpr ErrcInfo kInternal{"internal", 125, 500, -18};
    switch (code) {
        case Errc::kUsage: return kUsage;
        case Errc::kNotFound: return kNotFound;
        case Errc::kAlreadyExists: return kAlreadyExists;
        case Errc::kInUse: return kInUse;
        case Errc::kPermission: return kPermission;
        case Errc::kUnsupported: return kUnsupported;
        case Errc::kHostMissing: return kHostMissing;
        case Errc::kNoSpace: return kNoSpace;
        case Errc::kLimit: return kLimit;
        case Errc::kCorrupt: return kCorrupt;
        case Errc::kProtocol: return kProtocol;
        case Errc::kTimeout: return kTimeout;
        case Errc::kGuest: return kGuest;
        case Errc::kCancelled: return kCancelled;
        case Errc::kIo: return kIo;
        case Errc::kNotExecutable: return kNotExecutable;
        case Errc::kCommandNotFound: return kCommandNotFound;
        case Errc::kInternal: return kInternal;
    }
    return kInternal;
}

std::string Error::to_string() const {
    std::string text;
    for (auto it = context.rbegin(); it != context.rend(); ++it) {
        text += *it;
        text += ": ";
    }
    text += message;
    if (sys_errno != 0) {
        text += ": ";
        text += std::strerror(sys_errno);
    }
    return text;
}

Failure failure(Errc code, std::string message, std::string hint) {
    Error error;
    error.code = code;
    error.message = std::move(message);
    error.hint = std::move(hint);
    return failure(std::move(error));
}

Failure failure_errno(std::string message, int error_number) {
    Error error;
    error.message = std::move(message);
    error.sys_errno = error_number;
    switch (error_number) {
        case ENOSPC:
        case EDQUOT: error.code = Errc::kNoSpace; break;
        case EACCES:
        case EPERM: error.code = Errc::kPermission; break;
        case ENOENT: error.code = Errc::kNotFound; break;
        default: error.code = Errc::kIo; break;
    }
    return failure(std::move(error));
}

Failure failure_errno(std::string message) { return failure_errno(std::move(message), errno); }

namespace internal {
void check_failed(const char* expression, const char* file, int line) {
    std::fprintf(stderr, "caisson: internal error: %s does not hold at %s:%d\n", expression, file, line);
    std::abort();
}
}  // namespace internal

}  // namespace caisson::base
