#include "box/layers.h"

#include <gtest/gtest.h>

namespace caisson::box {
namespace {

Layer layer(const LayerFacts& facts, const std::string& name) {
    for (const auto& each : layers_of(facts))
        if (each.name == name) return each;
    ADD_FAILURE() << "no layer " << name;
    return {};
}

TEST(Layers, OfAGoodHost) {
    LayerFacts facts;
    facts.jail.bwrap = "/usr/bin/bwrap";
    facts.landlock_version = 6;
    facts.groups.bases = {{2, "/sys/fs/cgroup/caisson/x", {"memory", "cpu", "pids"}, ""}};
    facts.cpu_virtualises = facts.kvm_exists = facts.kvm_opens = true;
    for (const char* name : {"user_namespaces", "no_nested_user_namespaces", "system_call_filters", "landlock", "no_new_privs", "no_core_dumps", "cgroup_limits", "kvm"}) {
        EXPECT_EQ(layer(facts, name).state, Layer::State::kOn) << name;
        EXPECT_EQ(layer(facts, name).fix, "") << name;
    }
    EXPECT_EQ(layer(facts, "landlock").detail, "version 6");
    EXPECT_EQ(layer(facts, "apparmor").state, Layer::State::kImpossible);
}

TEST(Layers, WhatIsOffSaysHowToSwitchItOn) {
    LayerFacts facts;
    facts.jail.bwrap = "/usr/bin/bwrap";
    facts.jail.can_forbid_user_namespaces = false;
    facts.jail.bwrap_set_user_id = true;
    facts.refusal = "user namespaces are refused";
    facts.refusal_fix = "run: sudo sysctl";
    facts.landlock_version = -1;
    facts.groups.missing = {"memory", "cpu", "pids"};
    facts.groups.reason = "nothing is delegated";
    facts.groups.fix = "log in through systemd";
    facts.cpu_virtualises = facts.kvm_exists = true;
    facts.jail.apparmor_label = "unconfined";
    facts.jail.apparmor_restriction = "1";
    facts.jail.apparmor_profile = "/usr/share/caisson/apparmor/caisson";
    for (const char* name : {"user_namespaces", "no_nested_user_namespaces", "landlock", "cgroup_limits", "apparmor", "kvm"}) {
        EXPECT_EQ(layer(facts, name).state, Layer::State::kOff) << name;
        EXPECT_NE(layer(facts, name).fix, "") << name;
    }
    facts.filters = false;
    facts.landlock_version = 0;
    facts.cpu_virtualises = false;
    for (const char* name : {"system_call_filters", "landlock", "kvm"}) EXPECT_EQ(layer(facts, name).state, Layer::State::kImpossible) << name;
}

}  // namespace
}  // namespace caisson::box
