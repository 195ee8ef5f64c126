#include "os/host.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>

namespace caisson::os {
namespace {

TEST(Host, TheBootIdIsOneWordAndStays) {
    auto id = boot_id().value();
    EXPECT_EQ(id.size(), 36U);
    EXPECT_EQ(id.find_first_of(" \n"), std::string::npos);
    EXPECT_EQ(boot_id().value(), id);
}

TEST(Host, TheProgramsDirectoryHoldsTheProgram) {
    auto directory = program_directory();
    ASSERT_TRUE(directory.starts_with("/"));
    EXPECT_EQ(::access((directory + "/os_test").c_str(), X_OK), 0) << directory;
}

TEST(Host, UnixMsIsTheSystemClock) {
    auto now = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch());
    EXPECT_NEAR(static_cast<double>(unix_ms()), static_cast<double>(now.count()), 60000);
}

}  // namespace
}  // namespace caisson::os
