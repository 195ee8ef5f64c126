#include "box/network_request.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/relay/limits.h"

namespace caisson::box {
namespace {

// As it is once all of it is there.
std::string whole(const std::string& text) { return std::string(1, '\1') + text; }

class NetworkRequestTest : public testing::Test {
  protected:
    os::TemporaryDirectory place_ = os::TemporaryDirectory::create("/var/tmp", "caisson-request-test-").value();
    std::string box_ = place_.path() + "/01ARZ3NDEKTSV4RRFFQ69G5FAV", file_ = box_ + ".network";
    wire::NetworkSpec spec_ = [] {
        wire::NetworkSpec spec;
        spec.set_policy("{}");
        return spec;
    }();
};

TEST_F(NetworkRequestTest, IsThereAsLongAsWhoeverLeftIt) {
    EXPECT_EQ(read_network_request(box_).error().code, Errc::kNotFound);
    {
        auto request = NetworkRequest::hold(box_);
        ASSERT_TRUE(request) << request.error().to_string();
        ASSERT_TRUE(request->write(spec_));
        auto moved = std::move(*request);
        auto read = read_network_request(box_);
        ASSERT_TRUE(read) << read.error().to_string();
        EXPECT_EQ(read->policy(), "{}");
        EXPECT_EQ(NetworkRequest::hold(box_).error().code, Errc::kInUse);
        EXPECT_FALSE(is_unsettled_request(file_)) << "somebody is at it";
        sweep_network_request(file_, false);
        EXPECT_TRUE(os::exists(file_));
        moved.settle();
    }
    EXPECT_FALSE(os::exists(file_));
}

TEST_F(NetworkRequestTest, WhatADeadProcessLeftIsReplacedOrRemoved) {
    ASSERT_TRUE(os::write_file_atomic(file_, std::string(1000, 'x')));
    {
        auto request = NetworkRequest::hold(box_);
        ASSERT_TRUE(request) << request.error().to_string();
        EXPECT_TRUE(request->unsettled());
        ASSERT_TRUE(request->write(spec_));
        EXPECT_EQ(read_network_request(box_).value().policy(), "{}");
    }
    EXPECT_TRUE(os::exists(file_)) << "nothing has been settled";
    {
        auto request = NetworkRequest::hold(box_);
        ASSERT_TRUE(request && request->unsettled());
        request->settle();
    }
    EXPECT_FALSE(os::exists(file_));
    {
        auto request = NetworkRequest::hold(box_);
        ASSERT_TRUE(request && !request->unsettled() && request->begin());
        EXPECT_EQ(read_network_request(box_).error().code, Errc::kCorrupt) << "it has begun, and that is all";
        ASSERT_TRUE(request->write(spec_));
        EXPECT_TRUE(read_network_request(box_));
    }
    EXPECT_EQ(read_network_request(box_).error().code, Errc::kCorrupt) << "what a dead process left was read";
    EXPECT_EQ(box_of_network_request("01ARZ3NDEKTSV4RRFFQ69G5FAV.network"), "01ARZ3NDEKTSV4RRFFQ69G5FAV");
    EXPECT_TRUE(is_unsettled_request(file_));
    sweep_network_request(file_, true);
    EXPECT_TRUE(os::exists(file_)) << "nobody would know that the change was cut short";
    ASSERT_TRUE(os::write_file_atomic(file_, ""));
    EXPECT_FALSE(is_unsettled_request(file_));
    sweep_network_request(file_, true);
    EXPECT_FALSE(os::exists(file_));
    ASSERT_TRUE(os::write_file_atomic(file_, "x"));
    EXPECT_TRUE(is_network_request("01ARZ3NDEKTSV4RRFFQ69G5FAV.network"));
    EXPECT_FALSE(is_network_request("01ARZ3NDEKTSV4RRFFQ69G5FAV"));
    sweep_network_request(file_, false);
    EXPECT_FALSE(os::exists(file_));
}

TEST_F(NetworkRequestTest, OnlyAFileOfItsOwnIsRead) {
    const auto elsewhere = place_.path() + "/elsewhere";
    ASSERT_TRUE(os::write_file_atomic(elsewhere, whole(spec_.SerializeAsString())));
    const auto lock = os::FileLock::try_acquire(elsewhere);
    ASSERT_TRUE(lock);
    ASSERT_EQ(::symlink(elsewhere.c_str(), file_.c_str()), 0);
    EXPECT_FALSE(read_network_request(box_).has_value()) << "a link was followed";
    ASSERT_EQ(::unlink(file_.c_str()), 0);
    ASSERT_EQ(::link(elsewhere.c_str(), file_.c_str()), 0);
    EXPECT_FALSE(read_network_request(box_).has_value()) << "a file with two names was read";
    ASSERT_EQ(::unlink(file_.c_str()), 0);
    ASSERT_EQ(::mkfifo(file_.c_str(), 0600), 0);
    EXPECT_FALSE(read_network_request(box_).has_value()) << "a pipe was read";
}

TEST_F(NetworkRequestTest, WhatIsNoneOrTooLargeIsRefused) {
    const auto lock = os::FileLock::try_acquire(file_);
    ASSERT_TRUE(lock);
    const auto refused = [&](const std::string& text) {
        EXPECT_EQ(::ftruncate(lock->fd().get(), 0), 0);
        EXPECT_EQ(::pwrite(lock->fd().get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
        const auto read = read_network_request(box_);
        return read ? Errc::kInternal : read.error().code;
    };
    EXPECT_EQ(refused(""), Errc::kCorrupt);
    EXPECT_EQ(refused(std::string(64, '\xff')), Errc::kCorrupt);
    EXPECT_EQ(refused(whole(std::string(64, '\xff'))), Errc::kCorrupt);
    EXPECT_EQ(refused(std::string(1, '\0') + spec_.SerializeAsString()), Errc::kCorrupt) << "it is not whole yet";
    spec_.set_policy(std::string(net::relay::kMostOrderBytes, ' '));
    EXPECT_EQ(refused(whole(spec_.SerializeAsString())), Errc::kLimit);
}

TEST(NetworkChanges, TellsWhatIsDifferentAndNothingElse) {
    wire::NetworkSpec before, now;
    before.set_policy("a");
    now = before;
    EXPECT_TRUE(network_changes(before, now).empty());
    now.set_policy("b");
    now.mutable_limits()->set_flows(3);
    const auto changes = network_changes(before, now);
    ASSERT_EQ(changes.size(), 2u);
    EXPECT_EQ(changes[0].first, "network_policy_changed");
    EXPECT_EQ(changes[0].second[0].second, audit::Value(std::string("b")));
    EXPECT_EQ(changes[0].second[1].second, audit::Value(std::string("a")));
    EXPECT_EQ(changes[1].first, "network_limits_changed");
    EXPECT_EQ(changes[1].second[0].second, audit::Value(std::string("flows=3")));
}

}  // namespace
}  // namespace caisson::box
