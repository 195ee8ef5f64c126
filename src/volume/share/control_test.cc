#include "volume/share/control.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <thread>

namespace caisson::volume::share {
namespace {

TEST(ShareControl, OrdersAreReadAsTheyWereWritten) {
    Order mount;
    mount.number = 4294967295u;
    mount.read_only = true;
    mount.limit_bytes = 10 << 20;
    mount.owner = 1000;
    mount.group = 100;
    EXPECT_EQ(encode(mount), "mount 4294967295 ro 10485760 1000 100");
    auto again = parse_order(encode(mount));
    ASSERT_TRUE(again);
    EXPECT_EQ(encode(*again), encode(mount));
    EXPECT_EQ(parse_order("unmount 7")->number, 7u);
    EXPECT_EQ(parse_order("end")->kind, Order::Kind::kEnd);
    for (const char* bad : {"", "mount", "mount 1", "mount 1 ro 0", "mount 1 xx 0 0 0", "mount -1 ro 0 0 0", "mount 4294967296 ro 0 0 0", "mount 1 ro -1 0 0",
                            "mount 1 ro 9223372036854775808 0 0", "mount 1 ro 0 -1 0", "mount 1 ro 0 0 4294967296", "unmount", "unmount x",
                            "unmount 1 2", "end 1", "open 1 ro 0 0 0", "mount 1 ro 0 0 0 0"})
        EXPECT_FALSE(parse_order(bad)) << bad;
}

TEST(ShareControl, DescriptorsTravelAndAnswersComeBack) {
    auto pair = os::make_socketpair(SOCK_SEQPACKET).value();
    std::thread server([&] {
        auto order = take_order(pair.second.get());
        ASSERT_TRUE(order && *order);
        struct stat here {}, there {};
        ASSERT_EQ((*order)->descriptors.size(), 1u);
        ASSERT_EQ(::fstat((*order)->descriptors[0].get(), &there), 0);
        ASSERT_EQ(::stat("/", &here), 0);
        EXPECT_EQ(here.st_ino, there.st_ino);
        answer_order(pair.second.get(), {});
        ASSERT_TRUE(take_order(pair.second.get()));
        answer_order(pair.second.get(), base::failure(Errc::kNotFound, "no such mount"));
        pair.second.reset();
    });
    Order order;
    order.descriptors.emplace_back(::open("/", O_PATH | O_CLOEXEC));
    EXPECT_TRUE(give_order(pair.first.get(), order));
    auto refused = give_order(pair.first.get(), order);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().to_string().find("no such mount"), std::string::npos);
    server.join();
    EXPECT_FALSE(give_order(pair.first.get(), order)) << "it is gone";
}

TEST(ShareControl, AServerThatDoesNotAnswerIsNotWaitedForForEver) {
    auto pair = os::make_socketpair(SOCK_SEQPACKET).value();
    const struct timeval patience {0, 20000};
    for (int wait : {SO_RCVTIMEO, SO_SNDTIMEO}) ASSERT_EQ(::setsockopt(pair.first.get(), SOL_SOCKET, wait, &patience, sizeof patience), 0);
    Order order;
    order.kind = Order::Kind::kUnmount;
    EXPECT_EQ(give_order(pair.first.get(), order).error().code, Errc::kTimeout);
}

}  // namespace
}  // namespace caisson::volume::share
