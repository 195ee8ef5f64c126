#include "box/update.h"

#include <gtest/gtest.h>

#include "box/network.h"

namespace caisson::box {
namespace {

wire::BoxSpec spec_of(std::uint32_t cpu_millis, std::uint64_t memory_mib) {
    wire::BoxSpec spec;
    spec.set_cpu_millis(cpu_millis);
    spec.set_memory_bytes(memory_mib << 20);
    auto* label = spec.add_labels();
    label->set_key("job");
    label->set_value("nightly");
    return spec;
}

RunningMachine running(std::uint32_t cpus, std::uint32_t memory_mib) { return {{.cpus = cpus, .memory_mib = memory_mib}, true, true}; }

std::string text_of(const BoxChange& change) {
    return change.what + " " + change.from + "->" + change.to + (change.now ? " now" : " later: " + change.reason);
}

TEST(Update, ChangesWhatFitsTheMachineAtOnce) {
    auto plan = plan_update(spec_of(1000, 512), running(1, 512), {.cpu_millis = 500, .memory_bytes = 300ull << 20, .pids_limit = 50});
    ASSERT_TRUE(plan) << plan.error().to_string();
    ASSERT_EQ(plan->changes.size(), 3u);
    EXPECT_EQ(text_of(plan->changes[0]), "cpus 1->0.5 now");
    EXPECT_EQ(text_of(plan->changes[1]), "memory 512M->300M now");
    EXPECT_EQ(text_of(plan->changes[2]), "pids_limit none->50 now");
    EXPECT_TRUE(plan->cpus_now);
    ASSERT_TRUE(plan->to_running);
    EXPECT_EQ(plan->to_running->limits().cpu_millis(), 500u);
    EXPECT_EQ(plan->to_running->limits().memory_bytes(), 300ull << 20);
    EXPECT_EQ(plan->to_running->limits().pids(), 51u);  // with the container's init
    // Back again: the machine itself was the limit.
    EXPECT_TRUE(plan->undo->limits().has_memory_bytes());
    EXPECT_EQ(plan->undo->limits().memory_bytes(), 0u);
    EXPECT_EQ(plan->undo->limits().cpu_millis(), 0u);
    EXPECT_EQ(plan->undo->limits().pids(), 0u);
    EXPECT_EQ(plan->spec.configure().memory_limit_bytes(), 300ull << 20);
    EXPECT_FALSE(plan->to_running->has_restart());
}

TEST(Update, LeavesWhatNeedsAnotherMachineToTheNextStart) {
    auto plan = plan_update(spec_of(1000, 512), running(1, 512), {.cpu_millis = 1500, .memory_bytes = 1ull << 30});
    ASSERT_TRUE(plan);
    ASSERT_EQ(plan->changes.size(), 2u);
    EXPECT_EQ(text_of(plan->changes[0]), "cpus 1->1.5 later: its machine was made with 1 CPUs");
    EXPECT_EQ(text_of(plan->changes[1]), "memory 512M->1G later: its machine was made with 512M");
    EXPECT_FALSE(plan->to_running);
    EXPECT_FALSE(plan->cpus_now);
    EXPECT_EQ(plan->spec.memory_bytes(), 1ull << 30);
    EXPECT_EQ(plan->spec.configure().memory_limit_bytes(), 0u);
    EXPECT_EQ(plan->spec.configure().cpu_limit_millis(), 1500u);
}

TEST(Update, GoesByTheMachineThatRunsNotByWhatIsYetToCome) {
    // Asked for 1G since it was started with 512M: 400M fit what runs.
    auto plan = plan_update(spec_of(1000, 1024), running(1, 512), {.memory_bytes = 400ull << 20});
    ASSERT_TRUE(plan);
    EXPECT_EQ(text_of(plan->changes.at(0)), "memory 1G->400M now");
    EXPECT_EQ(plan->to_running->limits().memory_bytes(), 400ull << 20);
    EXPECT_EQ(plan->undo->limits().memory_bytes(), 0u);  // all of 512M
}

TEST(Update, OfBoxesThatDoNotRunIsForTheirNextStart) {
    auto plan = plan_update(spec_of(1000, 512), std::nullopt, {.memory_bytes = 256ull << 20, .restart = RestartPolicy::kAlways});
    ASSERT_TRUE(plan);
    EXPECT_EQ(text_of(plan->changes.at(0)), "memory 512M->256M later: the box does not run");
    EXPECT_EQ(text_of(plan->changes.at(1)), "restart no->always now");
    EXPECT_FALSE(plan->to_running);
    EXPECT_EQ(plan->spec.restart(), wire::BoxSpec::ALWAYS);
}

TEST(Update, SaysNothingOfWhatIsSoAlready) {
    BoxUpdate update{.cpu_millis = 1000, .memory_bytes = 512ull << 20, .pids_limit = 0, .restart = RestartPolicy::kNo};
    update.labels = {{"job", "nightly"}};
    update.removed_labels = {"other"};
    auto plan = plan_update(spec_of(1000, 512), running(1, 512), update);
    ASSERT_TRUE(plan);
    EXPECT_TRUE(plan->changes.empty());
    EXPECT_FALSE(plan->to_running);
}

TEST(Update, SetsAndRemovesLabels) {
    BoxUpdate update;
    update.labels = {{"tier", "web"}};
    update.removed_labels = {"job"};
    auto plan = plan_update(spec_of(1000, 512), running(1, 512), update);
    ASSERT_TRUE(plan);
    EXPECT_EQ(text_of(plan->changes.at(0)), "label job nightly-> now");
    EXPECT_EQ(text_of(plan->changes.at(1)), "label tier ->web now");
    ASSERT_EQ(plan->spec.labels_size(), 1);
    EXPECT_EQ(plan->spec.labels(0).key(), "tier");
    EXPECT_FALSE(plan->to_running);  // a supervisor has no use for labels
}

TEST(Update, TellsAPolicyToTheSupervisor) {
    auto spec = spec_of(1000, 512);
    spec.set_restart(wire::BoxSpec::ALWAYS);
    auto plan = plan_update(spec, running(1, 512), {.restart = RestartPolicy::kOnFailure, .restart_limit = 3});
    ASSERT_TRUE(plan);
    EXPECT_EQ(text_of(plan->changes.at(0)), "restart always->on-failure:3 now");
    EXPECT_EQ(plan->to_running->restart(), wire::BoxSpec::ON_FAILURE);
    EXPECT_EQ(plan->to_running->restart_limit(), 3u);
    EXPECT_EQ(plan->undo->restart(), wire::BoxSpec::ALWAYS);
    EXPECT_FALSE(plan->to_running->has_limits());
}

TEST(Update, RefusesWhatANewBoxIsRefused) {
    EXPECT_EQ(plan_update(spec_of(1000, 512), std::nullopt, {.memory_bytes = 1 << 20}).error().code, Errc::kUsage);
    EXPECT_EQ(plan_update(spec_of(1000, 512), std::nullopt, {.cpu_millis = 1}).error().code, Errc::kUsage);
    EXPECT_EQ(plan_update(spec_of(1000, 512), std::nullopt, {.cpu_millis = 9000}).error().code, Errc::kUsage);
    auto removed = spec_of(1000, 512);
    removed.set_auto_remove(true);
    EXPECT_EQ(plan_update(removed, std::nullopt, {.restart = RestartPolicy::kAlways}).error().code, Errc::kUsage);
    auto attached = running(1, 512);
    attached.detached = false;
    EXPECT_EQ(plan_update(spec_of(1000, 512), attached, {.restart = RestartPolicy::kAlways}).error().code, Errc::kUsage);
    EXPECT_TRUE(plan_update(spec_of(1000, 512), attached, {.restart = RestartPolicy::kNo}));
}

TEST(Update, OfAnOlderSupervisorWaits) {
    auto old = running(0, 0);
    old.can_change = false;
    auto plan = plan_update(spec_of(1000, 512), old, {.memory_bytes = 256ull << 20, .restart = RestartPolicy::kAlways});
    ASSERT_TRUE(plan);
    EXPECT_EQ(text_of(plan->changes.at(0)), "memory 512M->256M later: its supervisor is of an older caisson");
    EXPECT_EQ(text_of(plan->changes.at(1)), "restart no->always later: its supervisor is of an older caisson");
    EXPECT_FALSE(plan->to_running);
}

wire::BoxSpec connected(const std::string& policy) {
    auto spec = spec_of(1000, 512);
    wire::NetworkSpec network;
    network.set_policy(policy);
    network.mutable_limits()->set_connections(16);
    for (const auto host_port : {8080u, 0u}) {
        auto& port = *network.add_ports();
        port.set_address("127.0.0.1");
        port.set_host_port(host_port);
        port.set_guest_port(80);
    }
    spec.mutable_configure()->add_files()->set_path("/etc/resolv.conf");
    set_network(spec, network);
    return spec;
}

constexpr const char* kPublic = R"({"version":1,"mode":"public"})";

RunningMachine with_card(const wire::BoxSpec& spec) {
    auto machine = running(1, 512);
    machine.shape.network = true;
    for (auto port : spec.network().ports()) {
        port.set_chosen_port(port.host_port() == 0 ? 40000 : port.host_port());
        machine.ports.push_back(port);
    }
    return machine;
}

TEST(UpdateOfTheNetwork, ReplacesThePolicyAsAWhole) {
    const auto spec = connected(R"({"version":1,"mode":"public","deny":["9.9.9.9"]})");
    auto plan = plan_update(spec, with_card(spec), {.deny_network = {"10.0.0.1"}});
    ASSERT_TRUE(plan) << plan.error().to_string();
    ASSERT_EQ(plan->changes.size(), 1u);
    EXPECT_EQ(text_of(plan->changes[0]), R"(network_policy {"version":1,"mode":"public","deny":["9.9.9.9"]}->{"version":1,"mode":"public","deny":["10.0.0.1"]} now)");
    ASSERT_TRUE(plan->network && plan->network_undo);
    EXPECT_EQ(plan->network->network().policy(), plan->spec.network().policy());
    EXPECT_EQ(plan->network->network().ports_size(), 2);
    EXPECT_EQ(plan->network->network().limits().connections(), 16u);
    EXPECT_EQ(plan->network_undo->network().SerializeAsString(), spec.network().SerializeAsString());
    EXPECT_FALSE(plan->to_running);
}

TEST(UpdateOfTheNetwork, KeepsTheProxyWhateverElseChanges) {
    const auto before = network_of({.network = "public", .network_proxy = "http://localhost:3128"});
    ASSERT_TRUE(before && *before) << before.error().to_string();
    EXPECT_EQ((*before)->proxy(), "http://127.0.0.1:3128");
    BoxDetails details;
    describe_network(**before, details);
    EXPECT_EQ(details.network_proxy, "http://127.0.0.1:3128");
    const BoxUpdate changes[] = {{.network = "open"}, {.allow_network = {"9.9.9.9"}}, {.network_limits = NetworkLimits{.flows = 3}}, {.published = {{.host_port = 8081, .guest_port = 81}}}};
    for (const auto& change : changes) {
        const auto changed = changed_network(&**before, {}, change);
        ASSERT_TRUE(changed && *changed);
        EXPECT_EQ((*changed)->proxy(), "http://127.0.0.1:3128") << "the box goes around its proxy from now on";
    }
    // Nothing would remember it until there is a network again.
    const auto without = changed_network(&**before, {}, {.network = "none"});
    ASSERT_FALSE(without);
    EXPECT_EQ(without.error().code, Errc::kUsage);
    EXPECT_EQ(network_of({.network = "none", .network_proxy = "http://localhost:3128"}).error().code, Errc::kUsage);
    EXPECT_EQ(network_of({.network = "public", .network_proxy = "http://localhost"}).error().code, Errc::kUsage);
}

TEST(UpdateOfTheNetwork, SaysNothingToTheBoxIfItIsSoAlready) {
    const auto spec = connected(kPublic);
    auto plan = plan_update(spec, with_card(spec), {.network = "public"});
    ASSERT_TRUE(plan) << plan.error().to_string();
    EXPECT_TRUE(plan->changes.empty());
    EXPECT_FALSE(plan->network);
    EXPECT_EQ(plan->spec.SerializeAsString(), spec.SerializeAsString());
}

TEST(UpdateOfTheNetwork, NamesPortsAsTheyWerePublishedOrChosen) {
    const auto spec = connected(kPublic);
    for (const std::uint16_t host_port : {std::uint16_t{0}, std::uint16_t{40000}}) {
        auto plan = plan_update(spec, with_card(spec), {.published = {{.host_port = 8081, .guest_port = 81, .udp = true}}, .unpublished = {{.host_port = host_port, .guest_port = 80}}});
        ASSERT_TRUE(plan) << plan.error().to_string();
        ASSERT_EQ(plan->changes.size(), 2u);
        EXPECT_EQ(text_of(plan->changes[0]), "port 127.0.0.1:0:80-> now");
        EXPECT_EQ(text_of(plan->changes[1]), "port ->127.0.0.1:8081:81/udp now");
        ASSERT_EQ(plan->spec.network().ports_size(), 2);
        EXPECT_EQ(plan->spec.network().ports(0).host_port(), 8080u);
        EXPECT_EQ(plan->spec.network().ports(0).chosen_port(), 0u);
    }
    EXPECT_EQ(plan_update(spec, with_card(spec), {.unpublished = {{.host_port = 40001, .guest_port = 80}}}).error().code, Errc::kNotFound);
    EXPECT_EQ(plan_update(spec, with_card(spec), {.unpublished = {{.address = "127.0.0.2", .host_port = 8080, .guest_port = 80}}}).error().code, Errc::kNotFound);
}

TEST(UpdateOfTheNetwork, AMachineThatRunsKeepsItsCardOrHasNone) {
    const auto spec = connected(kPublic);
    EXPECT_EQ(plan_update(spec, with_card(spec), {.network = "none", .unpublished = {{.host_port = 8080, .guest_port = 80}, {.guest_port = 80}}}).error().code, Errc::kInUse);
    EXPECT_EQ(plan_update(spec_of(1000, 512), running(1, 512), {.network = "public"}).error().code, Errc::kInUse);
    // With its ports it cannot mean that.
    EXPECT_EQ(plan_update(spec, std::nullopt, {.network = "none"}).error().code, Errc::kUsage);
}

TEST(UpdateOfTheNetwork, OfABoxThatDoesNotRunIsForItsNextStart) {
    auto spec = spec_of(1000, 512);
    spec.mutable_configure()->add_files()->set_path("/etc/resolv.conf");
    auto plan = plan_update(spec, std::nullopt, {.network = "public", .network_limits = NetworkLimits{.connections = 7}});
    ASSERT_TRUE(plan) << plan.error().to_string();
    ASSERT_EQ(plan->changes.size(), 2u);
    EXPECT_EQ(text_of(plan->changes[0]), R"(network_policy none->{"version":1,"mode":"public"} later: the box does not run)");
    EXPECT_EQ(text_of(plan->changes[1]), "network_limits default->connections=7 later: the box does not run");
    EXPECT_FALSE(plan->network);
    EXPECT_TRUE(plan->spec.configure().has_network());
    EXPECT_NE(plan->spec.configure().files(0).content().find("nameserver"), std::string::npos);
    auto back = plan_update(plan->spec, std::nullopt, {.network = "none"});
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_FALSE(back->spec.has_network() || back->spec.configure().has_network());
    EXPECT_EQ(back->spec.configure().files(0).content().find("nameserver"), std::string::npos);
}

TEST(UpdateOfTheNetwork, WhatMayNotBeInForceIsToldAgain) {
    const auto spec = connected(kPublic);
    BoxUpdate same;
    same.network = "public";
    EXPECT_FALSE(plan_update(spec, with_card(spec), same).value().network);
    const auto again = plan_update(spec, with_card(spec), same, true).value();
    EXPECT_TRUE(again.changes.empty());
    ASSERT_TRUE(again.network);
    EXPECT_EQ(again.network->network().policy(), spec.network().policy());
    EXPECT_FALSE(plan_update(spec, std::nullopt, same, true).value().network) << "it gets what is recorded when it starts";
}

TEST(UpdateOfTheNetwork, AnotherProcessIsForABoxThatRunsWithANetwork) {
    const auto spec = connected(kPublic);
    auto machine = with_card(spec);
    machine.network_died = true;
    auto plan = plan_update(spec, machine, {.restart_network = true});
    ASSERT_TRUE(plan) << plan.error().to_string();
    ASSERT_EQ(plan->changes.size(), 1u);
    EXPECT_EQ(text_of(plan->changes[0]), "network_process died->a new one now");
    ASSERT_TRUE(plan->network);
    EXPECT_TRUE(plan->network->restart_network());
    EXPECT_EQ(plan_update(spec, std::nullopt, {.restart_network = true}).error().code, Errc::kInUse);
    EXPECT_EQ(plan_update(spec_of(1000, 512), running(1, 512), {.restart_network = true}).error().code, Errc::kUsage);
    machine.can_change_network = false;
    EXPECT_EQ(plan_update(spec, machine, {.restart_network = true}).error().code, Errc::kUnsupported);
    auto later = plan_update(spec, machine, {.network = "open"});
    ASSERT_TRUE(later);
    EXPECT_FALSE(later->network || later->changes[0].now);
}

}  // namespace
}  // namespace caisson::box
