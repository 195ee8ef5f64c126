// From options and image to what the guest is told: pure, so that Docker's rules are tested without a guest.
#pragma once

#include "caisson/runtime.h"
#include "image/store.h"
#include "wire/agent.pb.h"

namespace caisson::box {

// Checks everything that can be checked before anything is touched. kUsage names the option and the value.
Result<> validate(const BoxOptions& options);

// The command by Docker's rules: --entrypoint replaces ENTRYPOINT and drops CMD; arguments replace CMD.
// kUsage if nothing is left to run.
Result<wire::Exec> plan_exec(const BoxOptions& options, const image::Config& config);

// What the box is called inside: as asked, else by its id.
std::string hostname_of(const BoxOptions& options, const std::string& box_id);

// HOSTNAME, as Docker sets it: unless the image or the user does.
void add_hostname(wire::Exec& exec, const std::string& hostname);

// Hostname, files, limits, mounts. Entropy and time are filled in by the shim when the guest answers.
wire::Configure plan_configure(const BoxOptions& options, const std::string& box_id, const std::string& machine_id);

}  // namespace caisson::box
