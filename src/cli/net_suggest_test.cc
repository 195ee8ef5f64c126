#include "cli/net_suggest.h"

#include <gtest/gtest.h>

namespace caisson::cli {
namespace {

class SuggestFromJournal : public testing::Test {
  protected:
    std::int64_t add(const std::string& kind, const std::string& details, bool learns = true) {
        AuditEvent event;
        event.kind = kind;
        event.details = details;
        return add_network_entry(wishes_, event, learns);
    }
    std::string policy() { return wishes_.suggest().value().policy.to_json(); }
    net::Wishes wishes_{net::Policy(), {}};
};

constexpr const char* kNothing = R"({"version":1,"mode":"rules","allow":[]})";
std::string allows(const std::string& rules) { return R"({"version":1,"mode":"rules","allow":[)" + rules + "]}"; }

TEST_F(SuggestFromJournal, ReadsConnectionsAndQuestions) {
    add("name_asked", R"({"name":"git.example.com","type":"A","verdict":"answered","addresses":"9.9.9.9 9.9.9.8","dropped":""})");
    add("connection_allowed", R"({"address":"9.9.9.8","port":22,"protocol":"tcp","name":"","rule":"mode public"})");
    add("connection_failed", R"({"address":"9.9.9.7","port":53,"protocol":"udp","name":"","rule":"mode public"})");
    EXPECT_EQ(policy(), allows(R"("git.example.com:22","9.9.9.7:53/udp")"));
}

TEST_F(SuggestFromJournal, OnlyALearningBoxKnowsThatNoNameWasShown) {
    for (const bool learns : {false, true}) {
        wishes_ = net::Wishes(net::Policy(), {});
        add("name_asked", R"({"name":"a.example.com","verdict":"answered","addresses":"9.9.9.9"})");
        add("connection_allowed", R"({"address":"9.9.9.9","port":443,"protocol":"tcp","name":""})", learns);
        EXPECT_EQ(policy(), allows(learns ? R"("a.example.com","9.9.9.9:443")" : R"("a.example.com")"));
    }
}

TEST_F(SuggestFromJournal, WhatComesFromOutsideIsNoWish) {
    add("connection_allowed", R"({"address":"9.9.9.9","port":80,"protocol":"tcp","published":true})");
    add("connection_ended", R"({"address":"9.9.9.9","port":80,"protocol":"tcp","published":true})");
    EXPECT_EQ(policy(), kNothing);
}

TEST_F(SuggestFromJournal, CountsWhatWasLeftOut) {
    EXPECT_EQ(add("network_events_left_out", R"({"count":12})"), 12);
    EXPECT_EQ(add("network_events_left_out", R"({"count":"many"})"), 0);
}

TEST_F(SuggestFromJournal, WhatIsNoEntryIsPassedOver) {
    for (const char* details : {"", "[]", "{", R"({"address":"9.9.9.9"})", R"({"address":"9.9.9.9","port":"80"})", R"({"address":"nowhere","port":80})",
                                R"({"address":"9.9.9.9","port":65536})", R"({"address":9,"port":80,"name":[]})"})
        add("connection_allowed", details);
    add("name_asked", R"({"name":"no name","verdict":"denied"})");
    EXPECT_EQ(policy(), kNothing);
}

}  // namespace
}  // namespace caisson::cli
