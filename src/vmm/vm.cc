#include "vmm/vm.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"
#include "os/random.h"
#include "wire/control.h"
#include "wire/share.h"

namespace caisson::vmm {

Result<os::Fd> make_window() {
    os::Fd memory(::memfd_create("caisson-window", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    // A guest says what is in it: nobody is to execute that.
    if (!memory || ::fchmod(memory.get(), 0600) != 0 || ::ftruncate(memory.get(), static_cast<off_t>(wire::kShareWindowBytes)) != 0 ||
        ::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
        return base::failure_errno("cannot make memory for what goes to volumes and comes from them");
    return memory;
}

Result<Vm> start_vm(const MachinePlan& plan, const Assets& assets) {
    auto qmp = CAISSON_TRY(os::make_socketpair(SOCK_STREAM));
    auto agent = CAISSON_TRY(os::make_socketpair(SOCK_STREAM));
    auto console = CAISSON_TRY(os::make_socketpair(SOCK_STREAM));
    auto share = CAISSON_TRY(os::make_socketpair(SOCK_STREAM));
    const bool has_share = plan.start != MachinePlan::Start::kTemplate;
    auto window = has_share ? CAISSON_TRY(make_window()) : os::Fd();
    CAISSON_TRY(os::write_all(qmp.first.get(), initial_qmp(plan)));

    auto description = vmm_description(plan, assets);
    description.descriptors = {{console.second.get(), 1},
                               {console.second.get(), 2},
                               {qmp.second.get(), plan.qmp_fd},
                               {agent.second.get(), plan.agent_fd},
                               {console.second.get(), plan.console_fd}};
    if (plan.accelerator == Accelerator::kKvm) description.descriptors.push_back({plan.kvm_source_fd, plan.kvm_fd});
    if (plan.shape.network) description.descriptors.push_back({plan.tap_source_fd, plan.tap_fd});
    if (has_share) {
        description.descriptors.push_back({share.second.get(), plan.share_fd});
        description.descriptors.push_back({window.get(), plan.window_fd});
    }
    for (std::size_t place = 0; place < plan.volumes.size(); ++place)
        if (plan.volumes[place].lock_fd >= 0) description.descriptors.push_back({plan.volumes[place].lock_fd, plan.first_lock_fd + static_cast<int>(place)});
    auto jailed = CAISSON_TRY_CTX(jail::start(description, *plan.sandbox), "starting the virtual machine");
    Vm vm;
    vm.process = std::move(jailed.process);
    vm.init = std::move(jailed.init);
    vm.qmp = std::move(qmp.first);
    vm.agent = std::move(agent.first);
    if (has_share) vm.share = std::move(share.first);
    vm.window = std::move(window);
    vm.console = std::move(console.first);
    CAISSON_TRY(os::set_nonblocking(vm.qmp.get(), true));
    CAISSON_TRY(os::set_nonblocking(vm.agent.get(), true));
    CAISSON_TRY(os::set_nonblocking(vm.console.get(), true));
    return vm;
}

Error killed_by_filter() {
    Error error;
    error.code = Errc::kGuest;
    error.message = "the VMM was killed by its system call filter: it made a call that an honest one does not make";
    error.hint = "the guest has taken the VMM over, or this build of QEMU needs a call that caisson does not allow";
    return error;
}

Result<> greet(wire::Connection& agent) {
    wire::Marker marker{};
    CAISSON_TRY(os::fill_random(marker));
    agent.begin_session(marker);
    wire::ToAgent hello;
    hello.mutable_hello()->set_version_major(wire::kVersionMajor);
    hello.mutable_hello()->set_version_minor(wire::kVersionMinor);
    return wire::append_control(agent.out(), hello);
}

bool ConsoleTail::read_from(int fd, const std::function<void(base::ByteView)>& also) {
    std::uint8_t buffer[4096];
    for (int reads = 0; reads < kReadsAtOnce; ++reads) {
        ssize_t got = ::read(fd, buffer, sizeof buffer);
        if (got <= 0) return got != 0;
        append({buffer, static_cast<std::size_t>(got)});
        if (also) also({buffer, static_cast<std::size_t>(got)});
    }
    return true;
}

Error ConsoleTail::explain(Error error, bool process_ended, bool guest_ran) const {
    auto lines = excerpt();
    error.hint = "likely cause: " + (error.hint.empty() ? likely_cause(process_ended, guest_ran) : error.hint) +
                 (lines.empty() ? std::string() : "\nthe guest's console ended with:\n" + lines);
    return error;
}

void ConsoleTail::append(base::ByteView data) {
    text_ += base::as_text(data);
    // Not each time: that would move all of it for every few bytes.
    if (text_.size() > 2 * kMaxBytes) text_.erase(0, text_.size() - kMaxBytes);
}

std::string ConsoleTail::excerpt(std::size_t lines) const {
    std::vector<std::string> kept;
    for (const auto& line : base::split(text_, '\n')) {
        auto trimmed = base::trim(line);
        if (!trimmed.empty()) kept.push_back("  | " + base::printable(trimmed, 300));
    }
    if (kept.size() > lines) kept.erase(kept.begin(), kept.end() - static_cast<std::ptrdiff_t>(lines));
    return base::join(kept, "\n");
}

std::string ConsoleTail::likely_cause(bool process_ended, bool guest_ran) const {
    struct Known {
        const char* pattern;
        const char* cause;
    };
    static constexpr Known kKnown[] = {
        {"Out of memory", "the guest ran out of memory: give the box more with --memory"},
        {"Kernel panic", "the guest's kernel panicked"},
        {"caisson-agent:", "the guest agent could not set up the guest"},
        {"Could not access KVM", "KVM could not be used"},
        {"can't open backing store", "the template's memory file could not be opened"},
        {"No space left on device", "the host's disk is full"},
        {"Permission denied", "the jailed VMM may not open one of its files (is a directory above it closed to others?)"},
        {"bwrap:", "the jail could not be made"},
        {"caisson-enter:", "the jail could not be made"},
    };
    for (const auto& known : kKnown)
        if (text_.find(known.pattern) != std::string::npos) return known.cause;
    if (text_.find("qemu-system") != std::string::npos)
        return guest_ran ? "the VMM met an error of its own and gave up" : "the VMM refused to start";
    if (process_ended)
        return guest_ran ? "the VMM ended without a message (killed from outside, or by its system call filter)"
                         : "the VMM ended without a message (the guest's kernel failed early, or it was killed from outside, or by its system call filter)";
    return "the guest hangs or the host is overloaded: it printed nothing";
}

}  // namespace caisson::vmm
