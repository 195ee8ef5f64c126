// The machine as plain data: QEMU's command line, what is written to its control socket, and its jail. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "jail/jail.h"
#include "jail/sandbox.h"
#include "vmm/accelerator.h"
#include "vmm/assets.h"
#include "vmm/shape.h"

namespace caisson::vmm {

// Where things are inside the VMM's jail.
inline constexpr const char* kTemplateInJail = "/template";  // mem, state, initramfs
inline constexpr const char* kOverlayInJail = "/box/disk.qcow2";
inline constexpr const char* kBaseDiskInJail = "/disk/base.ext4";
inline constexpr const char* kVolumeInJail = "/box/volume";  // and the place of each volume that is a disk: "/box/volume0"
inline constexpr const char* kKernelInJail = "/run/vmlinux";
inline constexpr const char* kEnterInJail = "/run/caisson-enter";

// Of every box's card: nothing but its own host process is on the same link.
inline constexpr const char* kCardAddress = "02:ca:15:50:00:02";

// What QEMU keeps of translated guest code under software emulation; when it is full it begins anew. A guest that
// compiles all day fills it, usual ones take 40 to 90 MiB. QEMU's own default is 1 GiB.
inline constexpr std::uint64_t kTranslationMib = 256;

struct Disk {
    std::string overlay_path;       // host path of the box's own qcow2, read-write
    std::string base_path;          // host path of the raw base disk, read-only
    std::uint64_t virtual_size_bytes = kDefaultDiskBytes;
};

// A volume that is a disk. Its place in MachinePlan::volumes is its device's: "volume0" is the first one's serial number.
struct VolumeDisk {
    std::string path;          // host path of the raw file
    bool read_only = false;
    std::uint64_t size_bytes = 0;
    // The starter's descriptor by which the file is locked, or -1: the VMM keeps it open, so that the lock lasts as long as
    // it can write.
    int lock_fd = -1;
};

struct MachinePlan {
    enum class Start {
        kTemplate,  // boot with placeholders, to be frozen
        kRestore,   // continue a frozen machine
        kCold,      // boot a machine of its own
    };
    Start start = Start::kRestore;
    Shape shape;
    Accelerator accelerator = Accelerator::kTcg;
    std::uint64_t tsc_khz = 0;       // kTemplate and kCold under TCG
    std::string template_directory;  // kTemplate: holds initramfs, and mem and state to be written; else read-only
    std::optional<Disk> disk;        // every machine that starts has one
    std::vector<VolumeDisk> volumes; // at most shape.disks; not of a template
    // Descriptor numbers inside the VMM.
    int qmp_fd = 3;
    int agent_fd = 4;
    int console_fd = 5;
    int kvm_fd = 6;
    int share_fd = 7;  // not of a template
    int first_lock_fd = 8;  // of volumes
    int tap_fd = 12;        // of machines with a network card
    int window_fd = 13;     // not of a template
    // The starter's own descriptor of /dev/kvm, for machines under KVM.
    int kvm_source_fd = -1;
    // The starter's own descriptor of the card's tap, with virtio headers and offloads: what the card has agreed to with
    // its guest is frozen with a template, so every machine with a card has one, its template's included.
    int tap_source_fd = -1;
    // That is a socket yet (SOCK_SEQPACKET), over which the tap comes while the jail is made. Not without caisson-enter.
    bool tap_follows = false;
    // Control groups that the jail enters.
    os::GroupEntry groups;
    // How QEMU is called and where it finds its files: in its jail, unless without_jail() says otherwise.
    struct Paths {
        std::vector<std::string> program{kQemuPath};
        std::string template_directory = kTemplateInJail;
        std::string overlay = kOverlayInJail;
        std::string base_disk = kBaseDiskInJail;
        std::string kernel = kKernelInJail;
        std::vector<std::string> volumes;  // empty: those of kVolumeInJail
    };
    Paths paths;
    const jail::Sandbox* sandbox = &jail::bubblewrap();
};

// The same machine for --security none: QEMU by its host path, with its own dynamic loader and libraries. A template made
// in the jail fits it, for the devices are the same. kUnsupported: a path has characters that QEMU would read as something
// else.
Result<MachinePlan> without_jail(MachinePlan plan, const Assets& assets);

std::string kernel_command_line(const MachinePlan& plan);
std::vector<std::string> qemu_arguments(const MachinePlan& plan);
// What the machine's key is made from: the arguments with nothing in them that differs from box to box.
std::string template_command_line(Shape shape, Accelerator accelerator, std::uint64_t tsc_khz);
// Written into the control socket before QEMU starts, so that a restore needs no round trip.
std::string initial_qmp(const MachinePlan& plan);
jail::Description vmm_jail(const MachinePlan& plan, const Assets& assets);
// What plan.sandbox is given: vmm_jail(), or the same without anything that needs a jail.
jail::Description vmm_description(const MachinePlan& plan, const Assets& assets);

}  // namespace caisson::vmm
