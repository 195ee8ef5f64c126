#include "wire/control.h"

#include <gtest/gtest.h>

#include "wire/frame.h"

namespace caisson::wire {
namespace {

using base::Bytes;

Result<FromAgent> through_the_wire(const FromAgent& message) {
    Bytes bytes;
    CAISSON_TRY(append_control(bytes, message));
    Decoder decoder;
    decoder.feed(bytes);
    auto frame = CAISSON_TRY(decoder.next());
    return parse_from_agent(frame->payload);
}

FromAgent exited(std::uint32_t id, bool signalled, int code) {
    FromAgent message;
    message.mutable_exited()->set_id(id);
    message.mutable_exited()->set_signalled(signalled);
    message.mutable_exited()->set_code(code);
    return message;
}

TEST(Control, MessagesSurviveTheWire) {
    ToAgent message;
    message.mutable_exec()->set_id(3);
    message.mutable_exec()->add_arguments("true");
    Bytes bytes;
    ASSERT_TRUE(append_control(bytes, message).has_value());
    Decoder decoder;
    decoder.feed(bytes);
    auto frame = decoder.next().value();
    ASSERT_TRUE(frame.has_value());
    EXPECT_EQ(frame->type, FrameType::kControl);
    auto parsed = parse_to_agent(frame->payload);
    ASSERT_TRUE(parsed.has_value());
    EXPECT_EQ(parsed->exec().arguments(0), "true");
}

TEST(Control, AMessageBeyondTheLimitIsNotSent) {
    ToAgent message;
    message.mutable_exec()->add_arguments(std::string(kMaxControlBytes, 'x'));
    Bytes bytes;
    auto result = append_control(bytes, message);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, Errc::kLimit);
    EXPECT_TRUE(bytes.empty());
}

TEST(Control, GarbageAndUnknownKindsAreViolations) {
    const std::uint8_t garbage[] = {0xff, 0xff, 0xff};
    EXPECT_EQ(parse_from_agent(garbage).error().code, Errc::kProtocol);
    EXPECT_EQ(parse_to_agent(garbage).error().code, Errc::kProtocol);
    const std::uint8_t unknown[] = {0xfa, 0x01, 0x00};  // field 31, empty
    EXPECT_EQ(parse_from_agent(unknown).error().code, Errc::kProtocol);
    EXPECT_EQ(parse_to_agent(unknown).error().code, Errc::kProtocol);
}

TEST(Control, AnAgentCannotReportWhatCannotBe) {
    EXPECT_TRUE(through_the_wire(exited(1, false, 255)).has_value());
    EXPECT_FALSE(through_the_wire(exited(1, false, 256)).has_value());
    EXPECT_FALSE(through_the_wire(exited(1, false, -1)).has_value());
    EXPECT_TRUE(through_the_wire(exited(1, true, 64)).has_value());
    EXPECT_FALSE(through_the_wire(exited(1, true, 65)).has_value());
    EXPECT_FALSE(through_the_wire(exited(1, true, 0)).has_value());
    EXPECT_FALSE(through_the_wire(exited(0, false, 0)).has_value());
    EXPECT_TRUE(through_the_wire(exited(kMaxExecutionId, false, 0)).has_value());
    EXPECT_FALSE(through_the_wire(exited(kMaxExecutionId + 1, false, 0)).has_value());

    FromAgent started;
    started.mutable_started()->set_id(1);
    started.mutable_started()->set_pid(-1);
    EXPECT_FALSE(through_the_wire(started).has_value());

    FromAgent failed;
    failed.mutable_start_failed()->set_id(1);
    failed.mutable_start_failed()->set_message(std::string(kMaxTextBytes, 'x'));
    EXPECT_TRUE(through_the_wire(failed).has_value());
    failed.mutable_start_failed()->set_message(std::string(kMaxTextBytes + 1, 'x'));
    EXPECT_FALSE(through_the_wire(failed).has_value());
    failed.mutable_start_failed()->set_message("");
    failed.mutable_start_failed()->set_kind(static_cast<StartFailed::Kind>(99));
    EXPECT_FALSE(through_the_wire(failed).has_value());
}

}  // namespace
}  // namespace caisson::wire
