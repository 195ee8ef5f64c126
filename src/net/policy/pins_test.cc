#include "net/policy/pins.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/policy/limits.h"

namespace caisson::net {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

const Pins::Time kStart{seconds(1000)};
Address numbered(std::size_t number) { return Address::v4(0x09000000 + static_cast<std::uint32_t>(number)); }

TEST(Pins, AreKeptAsLongAsTheAnswerLivesWithinBounds) {
    Pins pins;
    pins.add("short", numbered(1), seconds(1), kStart);
    pins.add("middle", numbered(2), seconds(300), kStart);
    pins.add("long", numbered(3), seconds(1000000), kStart);
    EXPECT_THAT(pins.names_of(numbered(1), kStart + limits::kShortestPin - seconds(1)), ElementsAre("short"));
    EXPECT_THAT(pins.names_of(numbered(1), kStart + limits::kShortestPin), IsEmpty());
    EXPECT_THAT(pins.names_of(numbered(2), kStart + seconds(299)), ElementsAre("middle"));
    EXPECT_THAT(pins.names_of(numbered(2), kStart + seconds(300)), IsEmpty());
    EXPECT_THAT(pins.names_of(numbered(3), kStart + limits::kLongestPin - seconds(1)), ElementsAre("long"));
    EXPECT_THAT(pins.names_of(numbered(3), kStart + limits::kLongestPin), IsEmpty());
}

TEST(Pins, ALaterAnswerNeverShortensOne) {
    Pins pins;
    pins.add("a", numbered(1), seconds(600), kStart);
    pins.add("a", numbered(1), seconds(60), kStart + seconds(10));
    EXPECT_THAT(pins.names_of(numbered(1), kStart + seconds(599)), ElementsAre("a"));
    pins.add("a", numbered(1), seconds(600), kStart + seconds(10));
    EXPECT_THAT(pins.names_of(numbered(1), kStart + seconds(609)), ElementsAre("a"));
    EXPECT_EQ(pins.size(), 1u);
}

TEST(Pins, AnAddressMayHaveSeveralNames) {
    Pins pins;
    for (const char* name : {"b", "a", "c"}) pins.add(name, numbered(1), seconds(60), kStart);
    pins.add("d", numbered(2), seconds(60), kStart);
    EXPECT_THAT(pins.names_of(numbered(1), kStart), ElementsAre("a", "b", "c"));
}

TEST(Pins, AreBoundedInAll) {
    Pins pins;
    for (std::size_t i = 0; i < limits::kMostPins; ++i) pins.add("name" + std::to_string(i), numbered(i), seconds(i == 7 ? 60 : 600), kStart);
    EXPECT_EQ(pins.size(), limits::kMostPins);
    EXPECT_THAT(pins.names_of(numbered(7), kStart), ElementsAre("name7"));
    pins.add("one-more", numbered(limits::kMostPins), seconds(60), kStart);
    EXPECT_EQ(pins.size(), limits::kMostPins);
    EXPECT_THAT(pins.names_of(numbered(7), kStart), IsEmpty());  // it would have expired first
    EXPECT_THAT(pins.names_of(numbered(limits::kMostPins), kStart), ElementsAre("one-more"));
    pins.add("later", numbered(1), seconds(60), kStart + seconds(600));
    EXPECT_EQ(pins.size(), 1u);
}

TEST(Pins, OneNameCannotCrowdOutTheOthers) {
    Pins pins;
    pins.add("other", numbered(0), seconds(60), kStart);
    for (std::size_t i = 1; i <= limits::kMostPinsOfName + 1; ++i) pins.add("many", numbered(i), seconds(60 + static_cast<int>(i)), kStart);
    EXPECT_EQ(pins.size(), 1 + limits::kMostPinsOfName);
    EXPECT_THAT(pins.names_of(numbered(0), kStart), ElementsAre("other"));
    EXPECT_THAT(pins.names_of(numbered(1), kStart), IsEmpty());
}

}  // namespace
}  // namespace caisson::net
