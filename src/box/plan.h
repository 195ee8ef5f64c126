// From options and image to what the guest is told: pure, so that Docker's rules are tested without a guest.
#pragma once

#include "caisson/runtime.h"
#include "image/store.h"
#include "vmm/shape.h"
#include "wire/agent.pb.h"
#include "wire/shim.pb.h"

namespace caisson::box {

// Checks everything that can be checked before anything is touched. kUsage names the option and the value.
Result<> validate(const BoxOptions& options);

// Of a box or a volume. kUsage.
Result<> validate_labels(const std::map<std::string, std::string>& labels);

// The command by Docker's rules: --entrypoint replaces ENTRYPOINT and drops CMD; arguments replace CMD.
// kUsage if nothing is left to run.
Result<wire::Exec> plan_exec(const BoxOptions& options, const image::Config& config);

// What a box is asked to be, for its record and its supervisor. `exec` is plan_exec()'s.
struct SpecParts {
    std::string box_id, machine_id;
    std::uint64_t base_disk_bytes = 0;
    std::vector<std::string> warm;
    std::optional<wire::NetworkSpec> network;
};
wire::BoxSpec plan_spec(const BoxOptions& options, const image::Config& config, wire::Exec exec, const SpecParts& parts);

// A further command of a box: where nothing else is said, as the box's own.
Result<wire::Exec> plan_further_exec(const wire::BoxSpec& spec, const ExecOptions& options);

// "no", "on-failure", "on-failure:3", "always".
std::string restart_text(const wire::BoxSpec& spec);

// What the box is called inside: as asked, else by its id.
std::string hostname_of(const BoxOptions& options, const std::string& box_id);

// HOSTNAME, as Docker sets it: unless the image or the user does.
void add_hostname(wire::Exec& exec, const std::string& hostname);

// Hostname, files, limits, mounts. Entropy and time are filled in by the shim when the guest answers. `connected`: the box
// has a network.
wire::Configure plan_configure(const BoxOptions& options, const std::string& box_id, const std::string& machine_id, bool connected = false);

// What of a box's limits the guest has to enforce: the machine's own size enforces a whole rung, and only what lies below
// it needs a limit there (else 0). All three are set.
wire::SetLimits guest_limits(vmm::Shape shape, std::uint32_t cpu_millis, std::uint64_t memory_bytes, std::uint32_t pids_limit);

}  // namespace caisson::box
