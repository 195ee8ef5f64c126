#include "cli/net_options.h"

#include <CLI/CLI.hpp>

#include "net/policy/limits.h"
#include "os/file.h"

namespace caisson::cli {

using base::failure;

void add_net_options(CLI::App& command, const std::shared_ptr<NetArguments>& arguments) {
    command.add_option("--net", arguments->net, "none, public (the internet) or open (and private networks)")->type_name("MODE");
    command
        .add_option("--allow-net", arguments->allow,
                    "Reach this and nothing else; may be repeated: NAME, *.SUFFIX, IP or CIDR, with :PORT, :FROM-TO or :*, /tcp or /udp")
        ->type_name("RULE")
        ->allow_extra_args(false)
        ->take_all();
    command.add_option("--deny-net", arguments->deny, "Do not reach this, whatever else allows it; may be repeated")
        ->type_name("RULE")
        ->allow_extra_args(false)
        ->take_all();
    command.add_option("--net-policy", arguments->policy_file, "Take mode and rules from a file instead")->type_name("FILE");
}

Result<net::Policy> net_policy(const NetArguments& arguments) {
    if (arguments.policy_file.empty()) return net::Policy::from_words({arguments.net, arguments.allow, arguments.deny});
    if (!arguments.net.empty() || !arguments.allow.empty() || !arguments.deny.empty())
        return failure(Errc::kUsage, "--net-policy says everything, so --net, --allow-net and --deny-net do not go with it",
                       "write mode and rules into the file");
    const auto context = "--net-policy " + arguments.policy_file;
    const auto text = CAISSON_TRY_CTX(os::read_file(arguments.policy_file, net::limits::kLargestPolicyBytes), context);
    return CAISSON_TRY_CTX(net::Policy::parse(text), context);
}

}  // namespace caisson::cli
