// What a box would be, for people: `run --dry-run`.
#include "base/capabilities.h"
#include "base/text.h"
#include "audit/journal.h"
#include "box/decision.h"
#include "box/disks.h"
#include "box/host_limits.h"
#include "box/mounts.h"
#include "box/plan.h"
#include "box/shim_lock.h"
#include "box/state.h"
#include "image/protocol.h"
#include "image/registry/client.h"
#include "image/unpacker.h"
#include "jail/jail.h"
#include "vmm/machine.h"

namespace caisson {

namespace {
// Of one word of a plan.
constexpr std::size_t kMostShownBytes = 16 * 1024;

// How root of the box differs from Docker's defaults; nothing if it does not.
std::string privileges_line(const wire::Privileges& privileges) {
    std::vector<std::string> parts;
    if (privileges.privileged()) parts.push_back("privileged (every device, nothing hidden)");
    if (privileges.no_new_privileges()) parts.push_back("no new privileges");
    const auto has = privileges.capabilities();
    const auto usual = base::default_capabilities();
    if (has == base::all_capabilities()) parts.push_back("all capabilities");
    else if (has == 0) parts.push_back("no capability");
    else if (has != usual) {
        for (const auto& name : base::names_of_capabilities(has)) parts.push_back(name);
    }
    return parts.empty() ? "" : "privileges " + base::join(parts, ", ") + "\n";
}

std::string host_limits_line(const internal::RuntimeState& state, const box::Decision& decision, const BoxOptions& options) {
    const auto place = box::choose_place(box::gather_group_facts(state.home.root, state.options.cgroup_fd));
    if (place.bases.empty()) return "no limits (" + place.reason + ")";
    const auto figures = box::host_figures(decision.shape, decision.engine.choice.accelerator, options.cpu_millis,
                                           box::disk_in_memory_bytes(state.home.boxes(), options.disk_bytes + box::bytes_of(decision.disks)));
    std::vector<std::string> parts;
    if (place.has("memory")) parts.push_back("memory " + base::format_size(figures.memory_bytes));
    if (place.has("cpu")) parts.push_back("cpus " + std::to_string(figures.cpu_millis) + "/1000");
    if (place.has("pids")) parts.push_back("processes " + std::to_string(figures.pids));
    return base::join(parts, ", ");
}

// The other processes on the host: those that this box has, and those that make its image.
std::string other_processes(const internal::RuntimeState& state, const std::string& box_directory, bool connected) {
    std::vector<std::string> journals{audit::chain_directory(state.home.audit(), "ID")};
    if (connected) journals.push_back(audit::chain_directory(state.home.audit(), audit::network_chain("ID")));
    std::string text = box::describe_lock(box_directory, journals);
    text += "launcher\n  not locked   it starts the VMM; it reads nothing that a guest or a VMM says\n";
    const auto options = state.image_options();
    auto unpacker = image::unpacker_jail(options, "disk", image::kDefaultMaxUnpackedBytes);
    unpacker.descriptors = {{0, 0}, {0, image::kStatusFd}};
    auto client = image::registry::client_jail(options, options.images_directory + "/downloads");
    client.descriptors = unpacker.descriptors;
    return text + jail::describe(unpacker) + jail::describe(client);
}
}  // namespace

Result<std::string> Runtime::plan(const BoxOptions& options) {
    auto decision = CAISSON_TRY(box::decide(*state_, options));
    auto base_disk = CAISSON_TRY(box::cached_base_disk(*state_, decision, options.disk_bytes));
    std::string key = "(none yet)";
    if (base_disk)
        key = CAISSON_TRY(vmm::template_key(decision.shape, decision.engine.choice.accelerator, decision.engine.assets,
                                            decision.engine.host, *base_disk));
    const std::string box_directory = state_->home.boxes() + "/ID";
    vmm::MachinePlan machine;
    machine.start = options.cold ? vmm::MachinePlan::Start::kCold : vmm::MachinePlan::Start::kRestore;
    machine.shape = decision.shape;
    machine.accelerator = decision.engine.choice.accelerator;
    machine.tsc_khz = decision.engine.host.tsc_khz;
    machine.template_directory = options.cold ? box_directory + "/boot" : state_->home.templates() + "/" + key;
    machine.disk = vmm::Disk{box_directory + "/disk.qcow2",
                             base_disk.value_or("(root disk of " + decision.image.name + ", not made yet)"),
                             options.disk_bytes};
    for (const auto& disk : decision.disks)
        machine.volumes.push_back({state_->home.volumes() + "/disks/" + disk.volume(), disk.read_only(), disk.limit_bytes()});
    box::add_hostname(decision.exec, options.hostname.empty() ? "(the end of ID)" : options.hostname);
    if (CAISSON_TRY(jail::sandbox_named(options.security)) == &jail::no_jail())
        machine = CAISSON_TRY(vmm::without_jail(std::move(machine), decision.engine.assets));
    auto jail_plan = vmm::vmm_description(machine, decision.engine.assets);
    jail_plan.descriptors = {{0, 1}, {0, 2}, {0, machine.qmp_fd}, {0, machine.agent_fd}, {0, machine.console_fd}, {0, machine.share_fd}, {0, machine.window_fd}};

    // Much of it comes from the image, and this is what one looks at before one trusts it.
    auto shown = [](const std::string& word) { return base::printable(base::shell_quote(word), kMostShownBytes); };
    std::string text = "engine     " + decision.engine.describe() + "\n";
    text += "image      " + decision.image.name + " (" + decision.image.manifest_digest + ")\n";
    text += "shape      " + decision.shape.to_string() + (options.cold ? ", cold boot" : ", template " + key) +
            (!options.cold && !vmm::find_template(state_->home.templates(), key) ? " (to be made)" : "") + "\n";
    std::vector<std::string> words;
    for (const auto& word : decision.exec.arguments()) words.push_back(shown(word));
    text += "command    " + base::join(words, " ") + "\n";
    text += "directory  " + shown(decision.exec.working_directory()) + "\n";
    text += "user       " + (decision.exec.user().empty() ? std::string("root (the default)") : shown(decision.exec.user())) + "\n";
    for (const auto& variable : decision.exec.environment()) text += "env        " + shown(variable) + "\n";
    text += "root       " + base::format_size(options.disk_bytes) + (options.read_only ? ", read-only" : ", read-write") + "\n";
    for (const auto& tmpfs : options.tmpfs)
        text += "tmpfs      " + shown(tmpfs.path) + (tmpfs.size_bytes > 0 ? " " + base::format_size(tmpfs.size_bytes) : "") + "\n";
    for (const auto& mount : decision.mounts) text += "volume     " + base::printable(box::describe_mount(mount), kMostShownBytes) + "\n";
    for (const auto& copy : options.copies) text += "copy       " + shown(copy.source) + " to " + shown(copy.target) + "\n";
    text += "limits     cpus " + std::to_string(options.cpu_millis) + "/1000, memory " +
            base::format_size(options.memory_bytes) +
            (options.pids_limit > 0 ? ", processes " + std::to_string(options.pids_limit) : "") + "\n";
    text += privileges_line(decision.exec.privileges());
    text += "on the host " + host_limits_line(*state_, decision, options) + "\n";
    text += "network    " + (decision.network ? shown(decision.network->policy()) : std::string("none")) + "\n";
    text += "security   " + std::string(machine.sandbox->name()) + "\n";
    text += machine.sandbox->describe(jail_plan);
    words.clear();
    for (const auto& word : CAISSON_TRY(jail::command(jail_plan, *machine.sandbox)).arguments) words.push_back(shown(word));
    text += std::string("command line of the ") + (machine.sandbox->has_init() ? "jailed VMM" : "VMM without a jail") + "\n  " +
            base::join(words, " ") + "\n";
    return text + other_processes(*state_, box_directory, decision.network.has_value());
}

}  // namespace caisson
