// Templates: machines that were booted once and frozen just after their agent was ready.
//
// A template belongs to one image: its root disk is mounted and its container made before the machine is frozen, so
// that a box does not pay for it. What the mount wrote is in the template's own small overlay, which every box copies.
// A box whose disk was written to starts from a template without an image, whose guest has read nothing of any disk yet.
//
// On disk: <templates>/<key>/{mem,state,disk.qcow2,initramfs,info.json}, without an image no disk.qcow2; files 0444; a directory with that name is complete, for it is
// renamed into place. The key covers everything that the frozen state depends on, and the host's boot: templates do
// not outlive it, nor a week (clones share kernel layout and hash seeds, so that these must not live long).
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "os/fd.h"
#include "vmm/accelerator.h"
#include "vmm/assets.h"
#include "vmm/shape.h"

namespace caisson::vmm {

inline constexpr std::chrono::hours kTemplateMaxAge{7 * 24};

// What of the host a template depends on; measured once per boot and kept in <templates>/host.json.
struct HostProfile {
    std::string boot_id;
    std::uint64_t tsc_khz = 0;
    std::string cpu;     // family/model/stepping/microcode and kernel release
    bool kvm_failed = false;
};
// Reads or measures it. `templates` must exist.
Result<HostProfile> host_profile(const std::string& templates);
// Remembers that KVM did not run a guest on this boot of the host, so that nobody waits for it again.
Result<> remember_kvm_failure(const std::string& templates, HostProfile profile);

struct TemplateInfo {
    std::string key;
    std::string directory;
    Shape shape;
    std::string image;
    std::string base_disk;  // path; empty: it has none, or was made by an older caisson
    std::string accelerator;
    std::string vmm_version;
    std::string kernel_version;
    std::int64_t created_unix = 0;
    std::uint64_t disk_bytes = 0;
    std::int64_t used_unix = 0;  // when a box last started from it
    bool current = false;  // made for this host boot, these assets, and not too old
};

// 32 hex digits. Files are identified by device, inode, size and change time, which cannot alter unnoticed; hashing
// 80 MB at each start would cost more than the restore.
// `base_disk_path` is empty for a template without an image.
Result<std::string> template_key(Shape shape, Accelerator accelerator, const Assets& assets, const HostProfile& host,
                                 const std::string& base_disk_path);

bool is_template_key(const std::string& name);

// The usable template's directory, if there is one.
std::optional<std::string> find_template(const std::string& templates, const std::string& key);
Result<std::vector<TemplateInfo>> list_templates(const std::string& templates);
// Notes that a box starts from it now; failures do not matter.
void mark_template_used(const std::string& directory);
// Removes templates that can no longer be used, and the least used beyond `keep`.
Result<> collect_templates(const std::string& templates, std::size_t keep);
inline constexpr std::size_t kTemplatesKept = 12;
// The key of the template that is being made, or was, under this name; none: it is another name.
inline constexpr std::string_view kUnfinishedTemplate = ".new-";
std::optional<std::string> key_of_unfinished(const std::string& name);
// Ends the machines that killed makers of templates have left running. Cheap where nothing is unfinished.
void end_unfinished_makers(const std::string& templates);
// What a killed maker or an interrupted removal left, and nobody works on; `found` hears of each.
Result<> sweep_unfinished_templates(const std::string& templates, bool dry_run,
                                    const std::function<void(const std::string& name, std::uint64_t bytes)>& found);
// Removes one template; running boxes keep their mapping of its memory.
Result<> remove_template(const std::string& templates, const std::string& key);

// What listens to a machine that is being made into a template, apart from what makes files of it: no more than these
// descriptors and this request. The sockets are non-blocking.
struct Listening {
    bool only_answer = false;        // a first word is all that is waited for; else the machine is to be frozen
    bool prepare = false;            // it has a root disk
    std::uint64_t disk_bytes = 0;
    std::vector<std::string> warm;
    std::chrono::seconds deadline{120};
    os::Fd qmp, agent, console;
    os::Fd exited;                   // pidfd of the machine
    int owner_gone_fd = -1;          // see build_template()
};
struct BuildFailure;
using Listen = std::function<tl::expected<void, BuildFailure>(Listening)>;

struct BuildRequest {
    std::string templates;
    std::string key;
    Shape shape;
    Accelerator accelerator = Accelerator::kTcg;
    int kvm_fd = -1;  // of /dev/kvm, open; under KVM only
    int tap_fd = -1;  // of a card's tap; of shapes with a network only
    std::uint64_t tsc_khz = 0;
    std::string base_disk_path;      // empty: a template without an image
    std::uint64_t disk_bytes = 0;    // virtual size of the base disk
    std::vector<std::string> warm;   // see Prepare in wire/agent.proto
    std::string image;
    Assets assets;
    std::chrono::seconds deadline{120};  // from the machine's start to its freeze, and for what is done afterwards
    Listen listen;                       // empty: listen_to_machine() in this process
};
// Why there is no template.
struct BuildFailure {
    BuildFailure(Error why, bool silent = false) : error(std::move(why)), no_answer(silent) {}  // NOLINT: as Error is
    Error error;
    // The machine ended or hung before its agent said a word, so before it read anything of the image; under KVM
    // a second one, which was not given the image at all, did the same.
    bool no_answer = false;
};
// Blocks until the machine is frozen, has answered or has failed. Opens no file.
tl::expected<void, BuildFailure> listen_to_machine(Listening listening);
// Boots and freezes a machine; blocks. Safe against others building the same one: the second waits for the first.
// Runs in a single-threaded process of ours (the shim), since the VMM is tied to the calling thread.
// `owner_gone_fd`: when it becomes readable or hangs up the work is given up, also while it waits for others (-1: none).
// kGuest carries the console's tail; nothing half-made stays.
tl::expected<std::string, BuildFailure> build_template(const BuildRequest& request, int owner_gone_fd);

// An initramfs for a cold start, in `directory`.
Result<> write_initramfs(const Assets& assets, const std::string& directory);

}  // namespace caisson::vmm
