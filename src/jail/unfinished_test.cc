#include "jail/unfinished.h"

#include <gtest/gtest.h>

#include "jail/jail.h"
#include "os/process.h"

namespace caisson::jail {
namespace {

// Its outer process is killed when the inner one has the name of the place, and has not yet asked to die with it.
TEST(Unfinished, AJailIsEndedByThePathThatItHasToItself) {
    auto bwrap = find_bwrap();
    ASSERT_TRUE(bwrap.has_value());
    const std::string place = "/home/u/.caisson/templates/.new-7-" + std::to_string(::getpid());
    os::Command command;
    command.arguments = {*bwrap, "--unshare-user", "--dev-bind", "/", "/", "--setenv", "PLACE", place + "/mem", "/bin/sleep", "100"};
    auto process = os::spawn(command);
    ASSERT_TRUE(process.has_value());
    EXPECT_EQ(kill_unfinished_jails(place + "X/"), 0);
    EXPECT_FALSE(process->wait(std::chrono::milliseconds(50)).has_value());
    EXPECT_GE(kill_unfinished_jails(place + "/"), 1);
    auto ended = process->wait(std::chrono::milliseconds(5000));
    ASSERT_TRUE(ended.has_value());
    EXPECT_TRUE(ended->signalled);
}

}  // namespace
}  // namespace caisson::jail
