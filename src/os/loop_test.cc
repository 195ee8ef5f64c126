#include "os/loop.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

namespace caisson::os {
namespace {

using std::chrono::milliseconds;

TEST(Loop, DeliversReadableAndMayUnwatchInsideTheCallback) {
    auto loop = Loop::create().value();
    auto pipe = make_pipe().value();
    int calls = 0;
    ASSERT_TRUE(loop.watch(pipe.first.get(), EPOLLIN, [&](std::uint32_t) {
                        ++calls;
                        loop.unwatch(pipe.first.get());
                        loop.stop();
                    }).has_value());
    ASSERT_EQ(::write(pipe.second.get(), "x", 1), 1);
    ASSERT_TRUE(loop.run().has_value());
    ASSERT_TRUE(loop.step(milliseconds(0)).has_value());
    EXPECT_EQ(calls, 1);
}

TEST(Loop, TimersRunInOrderAndCanBeCancelled) {
    auto loop = Loop::create().value();
    std::string order;
    loop.after(milliseconds(20), [&] {
        order += "b";
        loop.stop();
    });
    auto cancelled = loop.after(milliseconds(5), [&] { order += "x"; });
    loop.after(milliseconds(1), [&] {
        order += "a";
        loop.cancel(cancelled);
    });
    ASSERT_TRUE(loop.run().has_value());
    EXPECT_EQ(order, "ab");
}

TEST(Loop, AnEventOfAClosedDescriptorDoesNotReachItsSuccessor) {
    auto loop = Loop::create().value();
    auto first = make_pipe().value();
    auto second = make_pipe().value();
    int wrong = 0;
    int replaced = -1;
    auto swap = [&](Fd& mine, Fd& other) {
        return [&, own = &mine, victim = &other](std::uint32_t) {
            if (replaced >= 0) return;
            loop.unwatch(own->get());
            int number = victim->get();
            loop.unwatch(number);
            // The same number now is another, idle pipe.
            auto fresh = make_pipe().value();
            ::dup2(fresh.first.get(), number);
            replaced = number;
            static_cast<void>(fresh.second.release());
            static_cast<void>(loop.watch(number, EPOLLIN, [&](std::uint32_t) { ++wrong; }));
        };
    };
    ASSERT_TRUE(loop.watch(first.first.get(), EPOLLIN, swap(first.first, second.first)).has_value());
    ASSERT_TRUE(loop.watch(second.first.get(), EPOLLIN, swap(second.first, first.first)).has_value());
    ASSERT_EQ(::write(first.second.get(), "x", 1), 1);
    ASSERT_EQ(::write(second.second.get(), "x", 1), 1);
    ASSERT_TRUE(loop.step(milliseconds(100)).has_value());
    EXPECT_GE(replaced, 0);
    EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace caisson::os
