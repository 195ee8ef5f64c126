#include "jail/kinds.h"

#include <gtest/gtest.h>

#include "jail/golden_test.h"

namespace caisson::jail {
namespace {

std::vector<Filter> all() {
    std::vector<Filter> filters{vmm_filter()};
    for (auto& filter : {unpacker_filter(), fetch_filter(), share_filter(), netd_filter()})
        if (filter) filters.push_back(*filter);
    return filters;
}

bool lists(const std::vector<CallRule>& rules, const std::string& call) {
    for (const auto& rule : rules)
        if (rule.call == call) return true;
    return false;
}

TEST(Kinds, EveryListIsKnownToLibseccomp) {
    for (const auto& filter : all()) {
        auto program = to_program(filter);
        ASSERT_TRUE(program) << filter.name << ": " << program.error().to_string();
        EXPECT_LT(program->size(), 8U * 4096) << filter.name;
    }
}

TEST(Kinds, TheListsAreThoseThatWereReviewed) {
    for (const auto& filter : all()) expect_golden(filter.name + ".filter", to_text(filter));
}

TEST(Kinds, NobodyIsAllowedWhatLeadsOutOfAJail) {
    for (const auto& filter : all()) {
        for (const char* call : {"ptrace", "mount", "setns", "unshare", "bpf", "process_vm_writev", "keyctl", "open_by_handle_at"})
            EXPECT_TRUE(lists(filter.killed, call)) << filter.name << " " << call;
        for (const char* call : {"clone3", "execveat", "io_uring_setup", "kill", "listen"})
            EXPECT_FALSE(lists(filter.allowed, call)) << filter.name << " " << call;
        // It is handed listeners, and makes none.
        EXPECT_EQ(lists(filter.allowed, "accept4"), filter.name == "netd") << filter.name;
    }
}

TEST(Kinds, OnlyWhoTalksToTheWorldMakesSockets) {
    for (const auto& filter : all()) {
        const bool talks = filter.name == "fetch" || filter.name == "netd";
        for (const char* call : {"socket", "connect"}) EXPECT_EQ(lists(filter.allowed, call), talks) << filter.name;
        EXPECT_EQ(lists(filter.allowed, "bind"), filter.name == "fetch") << filter.name;
    }
}

TEST(Kinds, TheNetworkHandsNoDescriptorToItsNeighbours) {
    for (const auto& filter : all())
        for (const char* call : {"sendmsg", "sendmmsg"}) EXPECT_FALSE(filter.name == "netd" && lists(filter.allowed, call)) << call;
}

}  // namespace
}  // namespace caisson::jail
