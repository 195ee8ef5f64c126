#include "agent/port.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "wire/control.h"

namespace caisson::agent {
namespace {

using base::Bytes;
using base::ByteView;

// A socket pair stands for the virtio port: it also signals an end of file when the host's end is closed.
class PortTest : public testing::Test {
  protected:
    void SetUp() override {
        auto pair = os::make_socketpair(SOCK_STREAM).value();
        ASSERT_TRUE(os::set_nonblocking(pair.first.get(), true).has_value());
        ASSERT_TRUE(os::set_nonblocking(pair.second.get(), true).has_value());
        host_ = std::move(pair.second);
        port_ = std::make_unique<Port>(std::move(pair.first), loop_,
                                       Port::Handlers{.session_began = [this] { ++began_; },
                                                      .frame = [this](const wire::FrameView& frame) -> Result<> {
                                                          if (refuse_) return base::failure(Errc::kProtocol, "no");
                                                          payloads_.emplace_back(base::as_text(frame.payload));
                                                          return {};
                                                      },
                                                      .session_ended = [this] { ++ended_; },
                                                      .session_broken = [this](const Error&) { ++broken_; },
                                                      .drained = [this] { ++drained_; }});
        ASSERT_TRUE(port_->start().has_value());
    }

    void host_sends(ByteView bytes) {
        ASSERT_EQ(::send(host_.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
        turn();
    }
    void turn() {
        ASSERT_TRUE(loop_.step(std::chrono::milliseconds(10)).has_value());
        port_->flush();
    }
    Bytes host_received() {
        Bytes bytes(1 << 20);
        ssize_t got = ::recv(host_.get(), bytes.data(), bytes.size(), 0);
        bytes.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
        return bytes;
    }
    static Bytes preamble(std::uint8_t first) {
        Bytes bytes;
        wire::append_preamble(bytes, wire::Marker{first});
        return bytes;
    }
    static Bytes data(std::string_view text) {
        Bytes bytes;
        wire::append_data(bytes, 4, base::as_bytes(text));
        return bytes;
    }

    os::Loop loop_ = os::Loop::create().value();
    os::Fd host_;
    std::unique_ptr<Port> port_;
    int began_ = 0;
    int ended_ = 0;
    int broken_ = 0;
    int drained_ = 0;
    std::vector<std::string> payloads_;
    bool refuse_ = false;
};

TEST_F(PortTest, AnswersThePreambleWithTheSameMarker) {
    host_sends(preamble(7));
    EXPECT_EQ(began_, 1);
    EXPECT_EQ(host_received(), preamble(7));
}

TEST_F(PortTest, TakesFramesThatComeWithThePreamble) {
    auto bytes = preamble(7);
    for (auto text : {"one", "two"}) {
        auto frame = data(text);
        bytes.insert(bytes.end(), frame.begin(), frame.end());
    }
    host_sends(bytes);
    EXPECT_EQ(payloads_, (std::vector<std::string>{"one", "two"}));
}

TEST_F(PortTest, IgnoresEverythingBeforeAPreamble) {
    host_sends(data("stale"));
    EXPECT_TRUE(payloads_.empty());
    EXPECT_TRUE(host_received().empty());
    auto bytes = preamble(1);
    auto frame = data("fresh");
    bytes.insert(bytes.end(), frame.begin(), frame.end());
    for (auto byte : bytes) host_sends({&byte, 1});
    EXPECT_EQ(payloads_, std::vector<std::string>{"fresh"});
}

TEST_F(PortTest, ASecondPreambleBeginsANewSession) {
    host_sends(preamble(1));
    host_received();
    auto bytes = data("old");
    for (const auto& more : {preamble(2), data("new")}) bytes.insert(bytes.end(), more.begin(), more.end());
    host_sends(bytes);
    EXPECT_EQ(began_, 2);
    EXPECT_EQ(ended_, 1);
    EXPECT_EQ(payloads_, (std::vector<std::string>{"old", "new"}));
    EXPECT_EQ(host_received(), preamble(2));
}

TEST_F(PortTest, NonsenseBreaksTheSessionForGood) {
    host_sends(preamble(1));
    host_received();
    host_sends(Bytes(100, 0xff));
    EXPECT_EQ(broken_, 1);
    EXPECT_EQ(ended_, 0);
    ASSERT_GT(::send(host_.get(), preamble(3).data(), wire::kPreambleBytes, 0), 0);
    ASSERT_TRUE(loop_.step(std::chrono::milliseconds(10)).has_value());
    EXPECT_TRUE(host_received().empty());
    EXPECT_EQ(broken_, 1);
}

TEST_F(PortTest, AFrameThatIsRefusedBreaksTheSession) {
    refuse_ = true;
    host_sends(preamble(1));
    host_sends(data("refused"));
    EXPECT_EQ(broken_, 1);
}

TEST_F(PortTest, NothingIsSentWithoutASession) {
    wire::FromAgent message;
    message.mutable_shut_down();
    port_->send(message);
    EXPECT_EQ(port_->backlog(), 0u);
}

TEST_F(PortTest, KeepsWhatTheHostDoesNotTakeAndSaysWhenThereIsRoom) {
    host_sends(preamble(1));
    EXPECT_EQ(host_received().size(), wire::kPreambleBytes);
    Bytes sent;
    for (std::uint8_t i = 0; i < 64; ++i) {
        Bytes frame;
        wire::append_data(frame, 4, Bytes(wire::kMaxDataBytes, i));
        port_->send_frame(frame);
        sent.insert(sent.end(), frame.begin(), frame.end());
    }
    EXPECT_GT(port_->backlog(), Port::kHighWater);
    EXPECT_EQ(drained_, 0);
    Bytes got;
    for (int i = 0; i < 1000 && got.size() < sent.size(); ++i) {
        auto more = host_received();
        got.insert(got.end(), more.begin(), more.end());
        turn();
    }
    EXPECT_EQ(got, sent);
    EXPECT_EQ(port_->backlog(), 0u);
    EXPECT_EQ(drained_, 1);
}

TEST_F(PortTest, AnEndOfFileEndsTheSession) {
    host_sends(preamble(1));
    host_.reset();
    turn();
    EXPECT_EQ(ended_, 1);
}

}  // namespace
}  // namespace caisson::agent
