// Options that say what a box may reach, as every command that takes a policy has them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "caisson/runtime.h"
#include "net/policy/policy.h"

namespace CLI {
class App;
}

namespace caisson::cli {

struct NetArguments {
    std::string net, policy_file;
    std::vector<std::string> allow, deny;
    bool given() const { return !net.empty() || !policy_file.empty() || !allow.empty() || !deny.empty(); }
};

// Declares --net, --allow-net, --deny-net and --net-policy.
void add_net_options(CLI::App& command, const std::shared_ptr<NetArguments>& arguments);
// What --net is where no option says anything of the network: $CAISSON_NET, else "public". kUsage: it is no mode.
Result<std::string> default_net();
// Reads the file as the calling user: before open_runtime(). Nothing given: default_net() without rules.
Result<net::Policy> net_policy(const NetArguments& arguments);

// The same as BoxOptions and BoxUpdate take it: a mode, and the text of a policy file unless it is "none".
struct NetChoice {
    std::string mode, policy;
};
Result<NetChoice> net_choice(const NetArguments& arguments);
void add_publish_option(CLI::App& command, const char* name, std::vector<std::string>& ports, const char* what);
void add_net_limit_option(CLI::App& command, std::vector<std::string>& limits);

// "connections=256", "flows=…", "connects=…" (a second), "in=1M", "out=1M" (bytes a second). kUsage.
Result<> parse_net_limit(const std::string& text, NetworkLimits& limits);
// "[IP:]HOST:BOX[/udp]", each of them a port or FROM-TO; an IPv6 address in brackets. kUsage.
Result<std::vector<PublishedPort>> parse_ports(const std::string& text, const std::string& option = "--publish");

}  // namespace caisson::cli
