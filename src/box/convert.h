// Between the schema's messages and our own types, both ways, in one place.
#pragma once

#include "base/result.h"
#include "caisson/outcome.h"
#include "os/cgroup.h"
#include "vmm/machine.h"
#include "wire/shim.pb.h"

namespace caisson::box {

inline void to_message(const vmm::Assets& assets, wire::MachineAssets& out) {
    out.set_directory(assets.directory);
    out.set_vmm_root(assets.vmm_root);
    out.set_kernel(assets.kernel);
    out.set_modules(assets.modules);
    out.set_modules_list(assets.modules_list);
    out.set_agent(assets.agent);
    out.set_vmm_version(assets.vmm_version);
    out.set_kernel_version(assets.kernel_version);
}

inline vmm::Assets from_message(const wire::MachineAssets& in) {
    return {in.directory(),    in.vmm_root(), in.kernel(),      in.modules(),
            in.modules_list(), in.agent(),    in.vmm_version(), in.kernel_version()};
}

inline void to_message(vmm::Shape shape, vmm::Accelerator accelerator, std::uint64_t tsc_khz, wire::MachineShape& out) {
    out.set_cpus(shape.cpus);
    out.set_memory_mib(shape.memory_mib);
    out.set_disks(shape.disks);
    out.set_network(shape.network);
    out.set_kvm(accelerator == vmm::Accelerator::kKvm);
    out.set_tsc_khz(tsc_khz);
}

inline vmm::Shape shape_from(const wire::MachineShape& in) {
    return {.cpus = in.cpus(), .memory_mib = in.memory_mib(), .disks = in.disks(), .network = in.network()};
}
inline vmm::Accelerator accelerator_from(const wire::MachineShape& in) {
    return in.kvm() ? vmm::Accelerator::kKvm : vmm::Accelerator::kTcg;
}

inline void to_message(const Error& error, wire::ShimError& out) {
    Error without_errno = error;
    without_errno.sys_errno = 0;  // it travels on its own
    out.set_code(static_cast<int>(error.code));
    out.set_message(without_errno.to_string());
    out.set_error_number(error.sys_errno);
    out.set_hint(error.hint);
}

inline Error from_message(const wire::ShimError& in) {
    Error error;
    error.code = in.code() >= 0 && in.code() <= static_cast<int>(Errc::kInternal) ? static_cast<Errc>(in.code())
                                                                                 : Errc::kInternal;
    error.message = in.message();
    error.sys_errno = in.error_number();
    error.hint = in.hint();
    return error;
}

inline os::CgroupPlan groups_from(const wire::HostLimits& in) {
    os::CgroupPlan plan;
    for (const auto& group : in.groups()) {
        os::CgroupPlan::Group made{static_cast<int>(group.version()), group.directory(), {}};
        for (const auto& setting : group.settings()) made.settings.push_back({setting.file(), setting.value(), setting.optional()});
        plan.groups.push_back(std::move(made));
    }
    return plan;
}

// In one word or more, for people and the journal; "none" if there is no network.
std::string network_policy_text(const wire::NetworkSpec& network);
// As --net-limit takes them; "default" if there are none.
std::string network_limits_text(const wire::NetworkSpec::Limits& limits);

// A command's words as records and lists keep them: a JSON array. What is not UTF-8 is replaced.
std::string command_json(const std::vector<std::string>& words);

inline Error because(Errc code, std::string message) {
    Error error;
    error.code = code;
    error.message = std::move(message);
    return error;
}

inline Outcome outcome_from(wire::Ended::Kind kind, int code, const std::string& reason) {
    switch (kind) {
        case wire::Ended::EXITED: return {Outcome::Kind::kExited, code, 0, reason};
        case wire::Ended::SIGNALLED: return {Outcome::Kind::kSignalled, 0, code, reason};
        case wire::Ended::TIMED_OUT: return {Outcome::Kind::kTimedOut, 0, 0, reason};
        default: return {Outcome::Kind::kFailed, 0, 0, reason};
    }
}

// How the agent says that a command could not be started.
inline Error from_message(const wire::StartFailed& failed) {
    Error error;
    error.message = failed.message();
    switch (failed.kind()) {
        case wire::StartFailed::NOT_FOUND: error.code = Errc::kCommandNotFound; break;
        case wire::StartFailed::NOT_EXECUTABLE:
        case wire::StartFailed::BAD_WORKING_DIRECTORY:
        case wire::StartFailed::UNKNOWN_USER: error.code = Errc::kNotExecutable; break;
        default: error.code = Errc::kGuest; break;
    }
    return error;
}

}  // namespace caisson::box
