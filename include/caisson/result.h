// Result<T>: how every function of caisson that can fail says so.
//
// An Error carries a machine-readable kind (Errc), one sentence for the user, the errno behind it if there was one,
// an optional hint ("what to do next") and the chain of contexts added on the way up. The kind alone decides exit
// code, HTTP status and C ABI code (see errc_info()).
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

#include "caisson/export.h"

namespace caisson::base {

enum class Errc : int {
    kUsage,             // the request itself is malformed
    kNotFound,          // an object named by the caller does not exist
    kAlreadyExists,     // a name is taken
    kInUse,             // the object is being used by somebody else
    kPermission,        // the kernel or the file system refused
    kUnsupported,       // caisson cannot do this (yet)
    kHostMissing,       // the host lacks something; the hint says what to install or switch on
    kNoSpace,           // ENOSPC somewhere in the chain
    kLimit,             // a named limit was exceeded
    kCorrupt,           // stored or received data is damaged or hostile
    kProtocol,          // the peer broke the wire protocol
    kTimeout,           // a deadline passed
    kGuest,             // the guest did not start, answer or survive
    kCancelled,         // the caller gave up
    kIo,                // any other system error
    kNotExecutable,     // the command exists but cannot be executed (126)
    kCommandNotFound,   // the command does not exist (127)
    kInternal,          // our own bug
};

struct ErrcInfo {
    std::string_view name;  // stable snake_case, used in JSON
    int exit_code;
    int http_status;
    int c_abi;  // negative, stable
};

// The one table. Thread-safe, never fails.
CAISSON_API const ErrcInfo& errc_info(Errc code);

struct Error {
    Errc code = Errc::kInternal;
    std::string message;
    int sys_errno = 0;
    std::string hint;
    std::vector<std::string> context;  // innermost first

    Error with_context(std::string text) && {
        context.push_back(std::move(text));
        return std::move(*this);
    }
    Error with_hint(std::string text) && {
        hint = std::move(text);
        return std::move(*this);
    }
    // "outer: inner: message: strerror" without the hint; one line.
    CAISSON_API std::string to_string() const;
};

template <typename T = void>
using Result = tl::expected<T, Error>;

}  // namespace caisson::base

namespace caisson {
using base::Errc;
using base::Error;
using base::Result;
}  // namespace caisson
