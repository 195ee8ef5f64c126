#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <set>

namespace caisson::base {
namespace {

Result<std::unique_ptr<int>> make(bool ok) {
    if (!ok) return failure(Errc::kNotFound, "no number");
    return std::make_unique<int>(7);
}

Result<int> twice(bool ok) {
    auto value = CAISSON_TRY_CTX(make(ok), "doubling");
    return *value * 2;
}

Result<> nothing(bool ok) {
    CAISSON_TRY(twice(ok));
    return {};
}

TEST(Result, TryPassesMoveOnlyValues) { EXPECT_EQ(twice(true).value(), 14); }

TEST(Result, TryAddsContextOnTheWayUp) {
    auto result = twice(false);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().to_string(), "doubling: no number");
    EXPECT_FALSE(nothing(false).has_value());
}

TEST(Result, ErrnoDecidesTheKind) {
    EXPECT_EQ(failure_errno("x", ENOSPC).value().code, Errc::kNoSpace);
    EXPECT_EQ(failure_errno("x", EDQUOT).value().code, Errc::kNoSpace);
    EXPECT_EQ(failure_errno("x", EPERM).value().code, Errc::kPermission);
    EXPECT_EQ(failure_errno("x", ENOENT).value().code, Errc::kNotFound);
    EXPECT_EQ(failure_errno("x", EIO).value().code, Errc::kIo);
    EXPECT_EQ(failure_errno("writing", EIO).value().to_string(), "writing: Input/output error");
}

TEST(Result, EveryKindHasItsOwnNameAndAbiCode) {
    std::set<std::string_view> names;
    std::set<int> codes;
    for (int i = 0; i <= static_cast<int>(Errc::kInternal); ++i) {
        const auto& info = errc_info(static_cast<Errc>(i));
        EXPECT_TRUE(names.insert(info.name).second) << info.name;
        EXPECT_TRUE(codes.insert(info.c_abi).second) << info.name;
        EXPECT_LT(info.c_abi, 0);
    }
    EXPECT_EQ(errc_info(Errc::kUsage).exit_code, 2);
    EXPECT_EQ(errc_info(Errc::kNotExecutable).exit_code, 126);
    EXPECT_EQ(errc_info(Errc::kCommandNotFound).exit_code, 127);
}

}  // namespace
}  // namespace caisson::base
