#include "wire/frame.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <tuple>

namespace caisson::wire {
namespace {

using base::Bytes;
using base::ByteView;

struct Frame {
    std::uint32_t stream;
    FrameType type;
    Bytes payload;
    bool operator==(const Frame&) const = default;
};

// All frames that `decoder` has, or the error.
Result<> drain(Decoder& decoder, std::vector<Frame>& frames) {
    for (;;) {
        auto next = CAISSON_TRY(decoder.next());
        if (!next) return {};
        frames.push_back({next->stream, next->type, Bytes(next->payload.begin(), next->payload.end())});
    }
}

Bytes header(std::uint32_t length, std::uint32_t stream, std::uint8_t type) {
    Bytes bytes(kHeaderBytes);
    store_header(bytes.data(), length, stream, static_cast<FrameType>(type));
    return bytes;
}

bool refused(ByteView bytes) {
    Decoder decoder;
    decoder.feed(bytes);
    auto next = decoder.next();
    return !next && next.error().code == Errc::kProtocol;
}

rc::Gen<Frame> any_frame() {
    return rc::gen::exec([] {
        Frame frame;
        frame.type = *rc::gen::element(FrameType::kControl, FrameType::kData, FrameType::kData, FrameType::kEof,
                                       FrameType::kCredit);
        auto channel = *rc::gen::element(Channel::kStdin, Channel::kStdout, Channel::kStderr);
        frame.stream = frame.type == FrameType::kControl
                           ? 0
                           : stream_of(*rc::gen::inRange<std::uint32_t>(1, kMaxExecutionId), channel);
        auto size = *rc::gen::weightedOneOf<std::size_t>(
            {{4, rc::gen::inRange<std::size_t>(1, 64)}, {1, rc::gen::inRange<std::size_t>(1, kMaxDataBytes + 1)}});
        if (frame.type == FrameType::kEof) size = 0;
        frame.payload.assign(size, static_cast<std::uint8_t>(*rc::gen::inRange(0, 256)));
        if (frame.type == FrameType::kCredit) {
            frame.payload.resize(4);
            base::store_le32(frame.payload.data(), *rc::gen::inRange<std::uint32_t>(1, kMaxCredit + 1));
        }
        return frame;
    });
}

RC_GTEST_PROP(Decoder, AnyCuttingOfTheBytesGivesTheSameFrames, ()) {
    auto frames = *rc::gen::container<std::vector<Frame>>(any_frame());
    Bytes bytes;
    for (const auto& frame : frames) append_frame(bytes, frame.stream, frame.type, frame.payload);
    Decoder decoder;
    std::vector<Frame> got;
    ByteView rest(bytes);
    while (!rest.empty()) {
        auto piece = rest.first(std::min(rest.size(), *rc::gen::inRange<std::size_t>(1, kMaxFeedBytes + 1)));
        rest = rest.subspan(piece.size());
        if (*rc::gen::arbitrary<bool>()) {
            decoder.feed(piece);
        } else {
            while (!piece.empty()) {
                auto room = decoder.prepare();
                auto count = std::min(room.size(), piece.size());
                std::copy_n(piece.begin(), count, room.begin());
                decoder.commit(count);
                piece = piece.subspan(count);
            }
        }
        RC_ASSERT(drain(decoder, got).has_value());
    }
    RC_ASSERT(got == frames);
    RC_ASSERT(decoder.unread().empty());
}

RC_GTEST_PROP(Decoder, ArbitraryBytesNeverBreakIt, (const Bytes& bytes)) {
    Decoder decoder;
    std::vector<Frame> got;
    decoder.feed(bytes);
    auto result = drain(decoder, got);
    if (!result) RC_ASSERT(!decoder.next().has_value());
}

TEST(Decoder, TakesTheLargestFramesAndRefusesOneByteMore) {
    for (auto [type, stream, limit] : {std::tuple{FrameType::kControl, 0U, kMaxControlBytes},
                                       std::tuple{FrameType::kData, 5U, kMaxDataBytes}}) {
        Bytes bytes;
        append_frame(bytes, stream, type, Bytes(limit, 7));
        Decoder decoder;
        std::vector<Frame> got;
        for (ByteView rest(bytes); !rest.empty();) {
            auto piece = rest.first(std::min(rest.size(), kMaxFeedBytes));
            decoder.feed(piece);
            ASSERT_TRUE(drain(decoder, got).has_value());
            rest = rest.subspan(piece.size());
        }
        ASSERT_EQ(got.size(), 1u);
        EXPECT_EQ(got[0].payload.size(), limit);
        EXPECT_TRUE(refused(header(static_cast<std::uint32_t>(limit + 1), stream, static_cast<std::uint8_t>(type))));
    }
}

TEST(Decoder, RefusesWhatTheProtocolDoesNotAllow) {
    EXPECT_TRUE(refused(header(1, 0, 0)));   // unknown types
    EXPECT_TRUE(refused(header(1, 4, 5)));
    EXPECT_TRUE(refused(header(1, 4, 1)));   // control beside stream 0
    EXPECT_TRUE(refused(header(0, 0, 1)));   // empty control
    EXPECT_TRUE(refused(header(1, 0, 2)));   // data on stream 0
    EXPECT_TRUE(refused(header(1, 3, 2)));   // streams of execution 0
    EXPECT_TRUE(refused(header(1, 7, 2)));   // the reserved channel
    EXPECT_TRUE(refused(header(0, 4, 2)));   // empty data
    EXPECT_TRUE(refused(header(1, 4, 3)));   // an end with a payload
    EXPECT_TRUE(refused(header(3, 4, 4)));   // credit of wrong sizes
    EXPECT_TRUE(refused(header(5, 4, 4)));
    for (std::uint32_t amount : {0U, kMaxCredit + 1, ~0U}) {
        auto bytes = header(4, 4, 4);
        bytes.resize(kHeaderBytes + 4);
        base::store_le32(bytes.data() + kHeaderBytes, amount);
        EXPECT_TRUE(refused(bytes)) << amount;
    }
}

TEST(Decoder, AViolationIsStickyUntilReset) {
    Decoder decoder;
    decoder.feed(header(0, 4, 9));
    EXPECT_FALSE(decoder.next().has_value());
    EXPECT_FALSE(decoder.next().has_value());
    decoder.reset();
    Bytes bytes;
    append_eof(bytes, 4);
    decoder.feed(bytes);
    EXPECT_TRUE(decoder.next().value().has_value());
}

TEST(Decoder, APreambleWhereAFrameShouldBeginIsAViolationAndStaysUnread) {
    Bytes bytes;
    append_eof(bytes, 4);
    append_preamble(bytes, Marker{1, 2, 3});
    Decoder decoder;
    decoder.feed(bytes);
    ASSERT_TRUE(decoder.next().value().has_value());
    ASSERT_FALSE(decoder.next().has_value());
    auto unread = decoder.unread();
    ASSERT_EQ(unread.size(), kPreambleBytes);
    EXPECT_TRUE(std::equal(kMagic.begin(), kMagic.end(), unread.begin()));
}

TEST(Decoder, ALargeFrameDoesNotKeepItsMemory) {
    Bytes bytes;
    append_frame(bytes, 0, FrameType::kControl, Bytes(kMaxControlBytes, 1));
    Decoder decoder;
    std::vector<Frame> got;
    for (ByteView rest(bytes); !rest.empty();) {
        auto piece = rest.first(std::min(rest.size(), kMaxFeedBytes));
        decoder.feed(piece);
        ASSERT_TRUE(drain(decoder, got).has_value());
        rest = rest.subspan(piece.size());
    }
    EXPECT_LE(decoder.prepare().size(), kMaxFeedBytes);
}

RC_GTEST_PROP(PreambleSeeker, FindsItsMarkerBehindAnyRubbishHoweverItIsCut, ()) {
    // Rubbish made of pieces of the magic, so that false beginnings are frequent.
    Bytes bytes;
    for (int i = *rc::gen::inRange(0, 40); i > 0; --i) {
        auto count = *rc::gen::inRange<std::size_t>(0, kMagic.size() + 1);
        bytes.insert(bytes.end(), kMagic.begin(), kMagic.begin() + static_cast<std::ptrdiff_t>(count));
        if (*rc::gen::arbitrary<bool>()) bytes.push_back(*rc::gen::arbitrary<std::uint8_t>());
    }
    Marker marker;
    for (auto& byte : marker) byte = *rc::gen::elementOf(Bytes{0xf5, 'C', 1, 2, 3});
    append_preamble(bytes, marker);
    const Bytes behind = {9, 8, 7};
    bytes.insert(bytes.end(), behind.begin(), behind.end());
    auto seeker = PreambleSeeker::expecting(marker);
    ByteView rest(bytes);
    for (;;) {
        RC_ASSERT(!rest.empty());
        auto piece = rest.first(std::min(rest.size(), *rc::gen::inRange<std::size_t>(1, 60)));
        rest = rest.subspan(piece.size());
        auto found = seeker.feed(piece);
        RC_ASSERT(found.has_value());
        if (!*found) continue;
        Bytes tail((*found)->begin(), (*found)->end());
        tail.insert(tail.end(), rest.begin(), rest.end());
        RC_ASSERT(tail == behind);
        break;
    }
}

TEST(PreambleSeeker, TheHostGivesUpOneByteBeyondTheLimit) {
    const Marker marker{1};
    Bytes preamble;
    append_preamble(preamble, marker);
    auto patient = PreambleSeeker::expecting(marker);
    ASSERT_TRUE(patient.feed(Bytes(kMaxStaleBytes, 0)).has_value());
    EXPECT_TRUE(patient.feed(preamble).value().has_value());
    auto tired = PreambleSeeker::expecting(marker);
    EXPECT_FALSE(tired.feed(Bytes(kMaxStaleBytes + 1, 0)).has_value());
    // The same when the rubbish looks like preambles of other sessions.
    auto fooled = PreambleSeeker::expecting(Marker{2});
    Bytes others;
    while (others.size() <= kMaxStaleBytes + kPreambleBytes) others.insert(others.end(), preamble.begin(), preamble.end());
    EXPECT_FALSE(fooled.feed(others).has_value());
}

TEST(PreambleSeeker, TheGuestTakesAnyMarker) {
    auto seeker = PreambleSeeker::any();
    Bytes bytes(3 << 20, 0xf5);
    const Marker marker{4, 5, 6};
    append_preamble(bytes, marker);
    ASSERT_TRUE(seeker.feed(bytes).value().has_value());
    EXPECT_EQ(seeker.marker(), marker);
}

TEST(Windows, SendingIsBoundedByCredit) {
    SendWindow window;
    EXPECT_EQ(window.available(), kInitialCredit);
    window.consume(kInitialCredit);
    EXPECT_EQ(window.available(), 0u);
    ASSERT_TRUE(window.add(kMaxCredit).has_value());
    EXPECT_FALSE(window.add(1).has_value());
    EXPECT_EQ(window.available(), kMaxCredit);
}

TEST(Windows, ReceivingOneByteBeyondTheWindowIsAViolation) {
    ReceiveWindow window;
    ASSERT_TRUE(window.receive(kInitialCredit).has_value());
    auto beyond = window.receive(1);
    ASSERT_FALSE(beyond.has_value());
    EXPECT_EQ(beyond.error().code, Errc::kProtocol);
}

RC_GTEST_PROP(Windows, BothEndsAgreeWhateverIsSentAndConsumed, ()) {
    SendWindow sender;
    ReceiveWindow receiver;
    for (int i = 0; i < 200; ++i) {
        auto bytes = std::min(sender.available(), *rc::gen::inRange<std::uint32_t>(0, kMaxDataBytes));
        sender.consume(bytes);
        RC_ASSERT(receiver.receive(bytes).has_value());
        auto grant = receiver.consume(*rc::gen::inRange<std::uint32_t>(0, receiver.held() + 1));
        RC_ASSERT(grant == 0 || grant >= kInitialCredit / 2);
        if (grant > 0) RC_ASSERT(sender.add(grant).has_value());
        RC_ASSERT(sender.available() + receiver.held() <= kInitialCredit);
    }
    // Whatever happened: once all is consumed, the sender can go on.
    auto grant = receiver.consume(receiver.held());
    if (grant > 0) RC_ASSERT(sender.add(grant).has_value());
    RC_ASSERT(sender.available() > kInitialCredit / 2 - 1);
}

}  // namespace
}  // namespace caisson::wire
