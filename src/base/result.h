// The inner half of Result: making failures and passing them on. The types are public: caisson/result.h.
#pragma once

#include "caisson/result.h"

namespace caisson::base {

using Failure = tl::unexpected<Error>;

inline Failure failure(Error error) { return Failure(std::move(error)); }
Failure failure(Errc code, std::string message, std::string hint = {});
// From errno (or `error_number`); ENOSPC/EDQUOT become kNoSpace, EACCES/EPERM kPermission, ENOENT kNotFound, else kIo.
Failure failure_errno(std::string message, int error_number);
Failure failure_errno(std::string message);

namespace internal {
template <typename T>
T unwrap(Result<T>&& result) {
    return std::move(*result);
}
inline void unwrap(Result<void>&&) {}
[[noreturn]] void check_failed(const char* expression, const char* file, int line);
}  // namespace internal

}  // namespace caisson::base

// auto value = CAISSON_TRY(function_returning_result());
#define CAISSON_TRY(...) CAISSON_TRY_AS_(__COUNTER__, , __VA_ARGS__)

// The same, adding what was being done: CAISSON_TRY_CTX(mount(...), "mounting the root disk").
#define CAISSON_TRY_CTX(expression, text) CAISSON_TRY_AS_(__COUNTER__, .with_context(text), expression)

// Each expansion has a variable of its own, so that one may stand inside another's argument.
#define CAISSON_TRY_AS_(number, context, ...) CAISSON_TRY_NUMBERED_(number, context, __VA_ARGS__)
#define CAISSON_TRY_NUMBERED_(number, context, ...)                                            \
    __extension__({                                                                            \
        auto caisson_result_##number = (__VA_ARGS__);                                          \
        if (!caisson_result_##number) [[unlikely]]                                             \
            return ::caisson::base::failure(std::move(caisson_result_##number).error() context); \
        ::caisson::base::internal::unwrap(std::move(caisson_result_##number));                 \
    })

// For our own bugs only, always on. Never for anything a guest, a file, the network or the host can cause.
#define CAISSON_CHECK(condition)                                                               \
    ((condition) ? static_cast<void>(0)                                                        \
                 : ::caisson::base::internal::check_failed(#condition, __FILE__, __LINE__))
