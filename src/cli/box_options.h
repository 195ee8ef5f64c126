// Options that make a box, as `run` and `create` share them, and what other commands parse in the same way.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "caisson/runtime.h"
#include "cli/net_options.h"

namespace CLI {
class App;
}

namespace caisson::cli {

struct BoxArguments {
    std::string command_name;  // for messages: "run"
    std::vector<std::string> environment, environment_files, tmpfs, labels, volumes, mounts, copies;
    std::string name, hostname, working_directory, user, cpus = "1", memory = "512M", disk_size = "10G", pids_limit = "0", timeout;
    std::shared_ptr<NetArguments> net = std::make_shared<NetArguments>();
    std::vector<std::string> ports, servers, hosts, net_limits;
    bool net_learn = false;
    std::string net_proxy;
    std::string entrypoint, pull = "missing", authorities_file;
    std::string restart = "no", max_duration, idle_timeout, stop_timeout = "10s", stop_signal;
    std::string health_command, health_interval, health_timeout, health_start_period;
    std::uint32_t health_retries = 3;
    bool no_health_check = false;
    bool plain_http = false, has_entrypoint = false, replace = false, require_limits = false;
    std::vector<std::string> cap_add, cap_drop, security_options;
    std::string security = "jailed";
    bool privileged = false;
    bool remove = false, interactive = false, terminal = false, read_only = false, cold = false;
    std::vector<std::string> image_and_command;
};

// Opens what --copy names, as the calling user: before open_runtime(). Notices go to standard error unless `quiet`.
Result<> open_copies(BoxOptions& options, bool quiet);
// Declares them. IMAGE and COMMAND are what the parser leaves.
void add_box_options(CLI::App& command, const std::shared_ptr<BoxArguments>& arguments);
Result<BoxOptions> box_options(const BoxArguments& arguments);

// NAME=value, or NAME for the caller's own value; files first.
Result<std::vector<std::pair<std::string, std::string>>> parse_environment(const std::vector<std::string>& files,
                                                                           const std::vector<std::string>& variables);
// KEY or KEY=VALUE.
Result<std::map<std::string, std::string>> parse_labels(const std::vector<std::string>& labels);

// "1", "0.5": thousandths of a CPU.
Result<std::uint32_t> parse_cpus(const std::string& text);
Result<std::uint32_t> parse_pids_limit(const std::string& text);
// no, always, on-failure or on-failure:N.
struct RestartChoice {
    RestartPolicy policy = RestartPolicy::kNo;
    std::uint32_t limit = 0;
};
Result<RestartChoice> parse_restart(const std::string& text);

// The usage line of a command whose operands are no options to the parser.
void show_operands(CLI::App& command, const std::string& operands);

}  // namespace caisson::cli
