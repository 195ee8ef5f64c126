#include "vmm/machine.h"

#include <sys/resource.h>

#include <algorithm>

#include "base/text.h"
#include "jail/kinds.h"
#include "vmm/qcow2.h"
#include "wire/share.h"

namespace caisson::vmm {

namespace {

std::string number(std::uint64_t value) { return std::to_string(value); }

std::string block_node(const MachinePlan& plan) {
    // A machine without a disk exists only to make its command line part of a key.
    // Formats and backing are always given here, never probed and never taken from the disk's own header, which the
    // guest may have rewritten. The box's own lock keeps two machines off one disk; QEMU's would need a /dev.
    if (!plan.disk)
        return R"({"driver":"null-co","node-name":"d0","read-zeroes":true,"size":)" + number(kDefaultDiskBytes) + "}";
    return R"({"driver":"qcow2","node-name":"d0","discard":"unmap","file":{"driver":"file","filename":")" +
           plan.paths.overlay + R"(","discard":"unmap","locking":"off"},)" +
           R"("backing":{"driver":"raw","read-only":true,"file":{"driver":"file","read-only":true,"filename":")" +
           plan.paths.base_disk + R"(","locking":"off"}}})";
}

std::string volume_path(const MachinePlan& plan, std::size_t place) {
    return plan.paths.volumes.empty() ? kVolumeInJail + number(place) : plan.paths.volumes[place];
}

// Smaller than any volume: a guest that still sees this has not looked again.
constexpr std::uint64_t kPlaceholderBytes = 4096;

// Raw, whatever a guest has written there. A guest's flush is a flush of the file, as it is everywhere unless one says
// otherwise, and what it discards becomes a hole.
std::string volume_node(const MachinePlan& plan, std::size_t place) {
    const std::string name = R"("node-name":"v)" + number(place) + "\"";
    if (place >= plan.volumes.size()) return R"({"driver":"null-co",)" + name + R"(,"read-zeroes":true,"size":)" + number(kPlaceholderBytes) + "}";
    const std::string how = plan.volumes[place].read_only ? R"("read-only":true)" : R"("discard":"unmap")";
    return R"({"driver":"raw",)" + name + "," + how + R"(,"file":{"driver":"file","filename":")" + volume_path(plan, place) + "\"," + how +
           R"(,"locking":"off"}})";
}

// Memory of the host's that the box's share server has, too. Of its size from the start: nothing has to be looked at again.
// If the host has no memory for it the guest hears so, and sends by its port: nothing has to stop as for a full disk.
std::string window_node(const MachinePlan& plan) {
    if (plan.start == MachinePlan::Start::kTemplate)
        return R"({"driver":"null-co","node-name":"w0","read-zeroes":true,"size":)" + number(wire::kShareWindowBytes) + "}";
    return R"({"driver":"raw","node-name":"w0","file":{"driver":"file","filename":"/dev/fdset/2","locking":"off"}})";
}

// QEMU's default size of the buffer.
constexpr std::uint64_t kTranslatedCodeBytes = 1ull << 30;
constexpr std::uint64_t kVmmOwnBytes = 1ull << 30;

constexpr const char* kLoaderPath = "/usr/lib64/ld-linux-x86-64.so.2";

}  // namespace

std::string kernel_command_line(const MachinePlan& plan) {
    std::string line = "console=ttyS0 quiet reboot=t panic=-1 rdinit=/init cryptomgr.notests";
    if (plan.accelerator == Accelerator::kTcg)
        line += " tsc_early_khz=" + number(plan.tsc_khz) + " tsc=reliable";
    // Work at boot that a box never needs: certificate lists, type information for tracing, self-tests.
    line += " initcall_blacklist=load_system_certificate_list,bpf_tcp_ca_kfunc_init,bpf_dummy_struct_ops_init,"
            "trace_eval_init,jent_mod_init,sed_opal_init,slab_sysfs_init,init_ima,init_evm";
    return line;
}

std::vector<std::string> qemu_arguments(const MachinePlan& plan) {
    const bool restoring = plan.start == MachinePlan::Start::kRestore;
    const std::string memory = number(plan.shape.memory_mib) + "M";
    auto arguments = plan.paths.program;
    auto add = [&](std::initializer_list<std::string> words) { arguments.insert(arguments.end(), words); };
    // Without the old interrupt controller: a kernel that finds a machine without old hardware in ACPI's tables does not set it
    // up, and the first tick of the timer that comes by it then has the number of a division by zero.
    add({"-M", "microvm,isa-serial=on,pic=off,memory-backend=mem"});
    // The device comes as a descriptor: whoever may start a box need not be able to open it, and the jail needs no /dev.
    if (plan.accelerator == Accelerator::kKvm)
        add({"-add-fd", "fd=" + number(static_cast<std::uint64_t>(plan.kvm_fd)) + ",set=1", "-accel",
             "kvm,device=/dev/fdset/1", "-cpu", "host"});
    // rep movsb is slow under TCG; without these two flags the guest copies twice as fast.
    // Its memory for translated code is bounded, so that the box's memory limit can hold all of it.
    else add({"-accel", "tcg,thread=multi,tb-size=" + number(kTranslationMib), "-cpu", "max,-erms,-fsrm"});
    add({"-m", memory, "-smp", number(plan.shape.cpus), "-nodefaults", "-no-user-config", "-display", "none",
         "-no-reboot", "-global", "virtio-mmio.force-legacy=false"});
    add({"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"});
    std::string backend = "memory-backend-file,id=mem,size=" + memory + ",mem-path=" + plan.paths.template_directory + "/mem,share=";
    switch (plan.start) {
        case MachinePlan::Start::kTemplate: add({"-object", backend + "on"}); break;
        // Private pages over a file that cannot be opened for writing: nothing a guest does reaches its siblings.
        case MachinePlan::Start::kRestore: add({"-object", backend + "off,readonly=on,rom=off"}); break;
        case MachinePlan::Start::kCold: add({"-object", "memory-backend-ram,id=mem,size=" + memory}); break;
    }
    if (!restoring)
        add({"-kernel", plan.paths.kernel, "-initrd", plan.paths.template_directory + "/initramfs", "-append",
             kernel_command_line(plan)});
    // The order and the ids of devices are part of a template: change them only together with the key.
    add({"-blockdev", block_node(plan), "-device", "virtio-blk-device,drive=d0,id=disk0"});
    // The serial number is how the guest tells them apart.
    for (std::uint32_t place = 0; place < plan.shape.disks; ++place)
        add({"-blockdev", volume_node(plan, place), "-device",
             "virtio-blk-device,drive=v" + number(place) + ",id=volume" + number(place) + ",serial=volume" + number(place)});
    if (plan.start != MachinePlan::Start::kTemplate) add({"-add-fd", "fd=" + number(static_cast<std::uint64_t>(plan.window_fd)) + ",set=2"});
    add({"-blockdev", window_node(plan), "-device", std::string("virtio-blk-device,drive=w0,id=window,werror=report,rerror=report,serial=") + wire::kShareWindowSerial});
    // The tap comes from outside; without vhost, whose device the jail does not have.
    // Nobody has to be told where a restored card is now: to tell it would be the guest's first work, and some in the next
    // half second, as well as packets of before it has a randomness of its own.
    if (plan.shape.network)
        add({"-netdev", "tap,id=net,fd=" + number(static_cast<std::uint64_t>(plan.tap_fd)) + ",vhost=off", "-device",
             "virtio-net-device,netdev=net,id=net0,guest_announce=off,mac=" + std::string(kCardAddress)});
    // Without a limit QEMU makes room for as much randomness as a guest's buffers claim to have, gigabytes at once. The
    // guest reads a few bytes at boot and then now and again.
    add({"-object", "rng-builtin,id=rng", "-device", "virtio-rng-device,rng=rng,id=rng0,max-bytes=4096,period=100"});
    // Nobody knows yet which box of a template has volumes, and to the guest the two are the same.
    const auto share = plan.start == MachinePlan::Start::kTemplate ? "null,id=share" : "socket,id=share,fd=" + number(static_cast<std::uint64_t>(plan.share_fd));
    add({"-chardev", "socket,id=agent,fd=" + number(static_cast<std::uint64_t>(plan.agent_fd)), "-chardev", share, "-device", "virtio-serial-device,id=serial0,max_ports=3", "-device",
         "virtserialport,chardev=agent,name=agent,nr=1,id=port-agent", "-device",
         "virtserialport,chardev=share,name=share,nr=2,id=port-share"});
    add({"-chardev", "socket,id=console,fd=" + number(static_cast<std::uint64_t>(plan.console_fd)), "-serial",
         "chardev:console"});
    add({"-chardev", "socket,id=qmp,fd=" + number(static_cast<std::uint64_t>(plan.qmp_fd)), "-mon",
         "chardev=qmp,mode=control"});
    if (restoring) add({"-incoming", "defer"});
    return arguments;
}

Result<MachinePlan> without_jail(MachinePlan plan, const Assets& assets) {
    const auto& root = assets.vmm_root;
    // Its own C library throughout: nothing of the host's is loaded, whatever the host's cache of libraries says.
    plan.paths.program = {root + kLoaderPath, "--inhibit-cache", "--library-path",
                          root + "/usr/lib/x86_64-linux-gnu:" + root + "/lib/x86_64-linux-gnu", root + kQemuPath,
                          "-L", root + "/usr/share/qemu", "-L", root + "/usr/share/seabios"};
    plan.paths.template_directory = plan.template_directory;
    if (plan.disk) plan.paths.overlay = plan.disk->overlay_path;
    if (plan.disk) plan.paths.base_disk = plan.disk->base_path;
    plan.paths.kernel = assets.kernel;
    std::vector<std::string> paths{root, plan.paths.template_directory, plan.paths.overlay, plan.paths.base_disk, plan.paths.kernel};
    for (const auto& volume : plan.volumes) {
        plan.paths.volumes.push_back(volume.path);
        paths.push_back(volume.path);
    }
    // Separators of QEMU's options, of JSON and of the loader's path.
    for (const auto& path : paths)
        if (path.find_first_of(",:;$\"\\") != std::string::npos ||
            std::any_of(path.begin(), path.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }))
            return base::failure(Errc::kUnsupported, "a VMM without a jail cannot be given the path " + base::printable(path, 200),
                                 "use a home and assets whose paths have no comma, colon, semicolon, dollar, quote or backslash");
    plan.sandbox = &jail::no_jail();
    return plan;
}

jail::Description vmm_description(const MachinePlan& plan, const Assets& assets) {
    auto description = vmm_jail(plan, assets);
    if (plan.sandbox != &jail::no_jail()) return description;
    description.root.clear();
    description.mounts.clear();
    description.enter.clear();
    description.filter.reset();
    return description;
}

std::string template_command_line(Shape shape, Accelerator accelerator, std::uint64_t tsc_khz) {
    MachinePlan plan;
    plan.start = MachinePlan::Start::kTemplate;
    plan.shape = shape;
    plan.accelerator = accelerator;
    plan.tsc_khz = tsc_khz;
    std::string line;
    for (const auto& argument : qemu_arguments(plan)) {
        line += argument;
        line += '\n';
    }
    return line;
}

std::string initial_qmp(const MachinePlan& plan) {
    std::string text = R"({"execute":"qmp_capabilities"})";
    if (plan.start == MachinePlan::Start::kCold) return text;
    text += R"({"execute":"migrate-set-capabilities","arguments":{"capabilities":)"
            R"([{"capability":"x-ignore-shared","state":true}]}})";
    if (plan.start == MachinePlan::Start::kRestore) {
        if (plan.shape.network) text += R"({"execute":"migrate-set-parameters","arguments":{"announce-rounds":0}})";
        text += R"({"execute":"migrate-incoming","arguments":{"uri":"file:)" + plan.paths.template_directory + "/state\"}}";
    }
    return text;
}

jail::Description vmm_jail(const MachinePlan& plan, const Assets& assets) {
    using Kind = jail::Mount::Kind;
    jail::Description description;
    description.name = "vmm";
    description.root = assets.vmm_root;
    if (plan.start == MachinePlan::Start::kTemplate) {
        // Two files that are there already, and not their directory: a QEMU that the image has taken over cannot put
        // anything there that the host would find later (a pipe, a link, another info.json).
        description.mounts.push_back({Kind::kTmpfs, "", kTemplateInJail});
        for (const char* file : {"/mem", "/state"})
            description.mounts.push_back({Kind::kReadWrite, plan.template_directory + file, std::string(kTemplateInJail) + file});
        description.mounts.push_back(
            {Kind::kReadOnly, plan.template_directory + "/initramfs", std::string(kTemplateInJail) + "/initramfs"});
    } else {
        // Template memory and state are reached only as read-only paths, never as descriptors: a descriptor could be
        // reopened for writing through /proc by the same user.
        description.mounts.push_back({Kind::kReadOnly, plan.template_directory, kTemplateInJail});
    }
    const auto enter = enter_program(assets);
    if (plan.start != MachinePlan::Start::kRestore || !enter.empty()) description.mounts.push_back({Kind::kTmpfs, "", "/run"});
    if (plan.start != MachinePlan::Start::kRestore)
        description.mounts.push_back({Kind::kReadOnly, assets.kernel, kKernelInJail});
    jail::enter_by(description, enter, kEnterInJail);
    if (plan.tap_follows) description.received = plan.tap_fd;
    std::uint64_t largest_volume = 0;
    if (plan.disk) {
        description.mounts.push_back({Kind::kTmpfs, "", "/box"});
        description.mounts.push_back({Kind::kReadWrite, plan.disk->overlay_path, kOverlayInJail});
        for (std::size_t place = 0; place < plan.volumes.size(); ++place) {
            const auto& volume = plan.volumes[place];
            description.mounts.push_back({volume.read_only ? Kind::kReadOnly : Kind::kReadWrite, volume.path, kVolumeInJail + number(place)});
            largest_volume = std::max(largest_volume, volume.size_bytes);
        }
        description.mounts.push_back({Kind::kTmpfs, "", "/disk"});
        description.mounts.push_back({Kind::kReadOnly, plan.disk->base_path, kBaseDiskInJail});
    }
    description.filter = jail::vmm_filter();
    description.arguments = qemu_arguments(plan);
    description.groups = plan.groups;
    // What it may write to a file: a disk of its size, a volume of its, or the memory that a template keeps.
    const std::uint64_t disk_bytes = plan.disk ? plan.disk->virtual_size_bytes : 0;
    const std::uint64_t memory_bytes = std::uint64_t{plan.shape.memory_mib} << 20;
    // What it may hold of the host's memory, also where no cgroup says so: the guest's memory, the buffer of translated
    // code, and for itself what it needs (measured: 100 MiB, under load 200) several times over. Its devices make room for
    // whatever a guest's buffers claim to be, gigabytes; beyond this QEMU ends, and its box with it.
    const std::uint64_t code_bytes = plan.accelerator == Accelerator::kTcg ? kTranslatedCodeBytes : 0;
    description.resource_limits = {{RLIMIT_NOFILE, 256},
                                   {RLIMIT_DATA, memory_bytes + code_bytes + kVmmOwnBytes},
                                   {RLIMIT_FSIZE, std::max(max_overlay_bytes(std::max(disk_bytes, memory_bytes)), largest_volume)}};
    return description;
}

}  // namespace caisson::vmm
