// The container: the root disk, the namespaces and PID 1 of it. Made once in the life of a guest, by Prepare or
// Configure.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/clone.h"
#include "agent/shares.h"
#include "agent/stage.h"
#include "base/result.h"
#include "os/fd.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

class Container {
  public:
    // Mounts the root disk and starts the container's init. What is the same for every box of an image happens here,
    // if the host wants it before the template is saved. Blocks for as long as the disk takes to appear
    // (kDiskDeadline at most). `stage` outlives the container.
    static Result<std::unique_ptr<Container>> create(const wire::RootDisk& disk, Stage& stage);
    // What this box is: the rest of its mounts, its files, its limits. Once, before the first fork().
    Result<> configure(const wire::Configure& configure, wire::Configured& timings);
    // Reads files of the container into memory, at most kMaxWarmBytes; a name without a slash is looked up as a
    // command. What cannot be read is skipped.
    void warm(const google::protobuf::RepeatedPtrField<std::string>& paths) const;
    // Everything that was written to the root disk is on it.
    Result<> sync() const;
    ~Container();

    // A child of the agent in the container's pid namespace and cgroup; it joins the rest with enter().
    Result<Child> fork() const { return fork_into(stage_.cgroup.fd(), 0); }
    // The same for a copy out of the container, which goes on when the container stands still.
    Result<Child> fork_copy() const { return fork_into(stage_.cgroup.copies(), 0); }
    // For such a child: the container's mount, IPC, UTS and cgroup namespaces, its root directory included.
    Result<> enter() const;

    // Standard input of a command that has none.
    const os::Fd& null() const { return stage_.null; }

    // Terminals: the container's own devpts.
    struct Terminal {
        os::Fd master;  // non-blocking
        os::Fd slave;
    };
    Result<Terminal> open_terminal() const;

    // To every process of the container but its init.
    Result<> signal_all(int signal) const;
    // Ends every process of the container; returns at once. Nothing can be forked into it afterwards.
    void kill();
    bool killed() const { return killed_; }
    // Volumes, while commands run. All of them or none.
    Result<> attach_shares(const wire::Shares& wanted);
    // `entry` as in wire::ShareMount. EBUSY: it is used; with `force` it then goes from its place only.
    Result<> detach_share(const std::string& entry, bool force);
    // Whether configure() mounted anything over the image that was not there before.
    bool image_covered() const { return image_covered_; }
    // Waits for the init to be gone and lets go of the container's mounts: nothing of the root disk is left unwritten.
    Result<> unmount(std::chrono::milliseconds deadline);

  private:
    Result<std::vector<ShareTree>> take_shares(const wire::Shares& wanted);
    Result<> place_shares(std::vector<ShareTree> shares);
    Result<> check_let_go(const std::string& device) const;
    Container(Child init, Stage& stage, std::string disk)
        : init_(std::move(init)), stage_(stage), disk_(std::move(disk)) {}
    Child init_;
    Stage& stage_;
    std::map<std::string, PlacedShare> placed_;  // by their entries
    Shares shares_;  // outlive the container's mounts of them
    std::string disk_;  // the kernel's name of the root device
    std::set<std::string> volume_disks_;  // and of volumes that are disks
    bool killed_ = false;
    bool image_covered_ = false;
};

inline constexpr std::size_t kMaxWarmBytes = 64 << 20;

// `path` as a place to mount at, in the container's mount namespace, made if it is missing: a directory, or an empty
// file. Links of the image are followed, and stay inside it.
Result<os::Fd> open_directory_target(const std::string& path);
Result<os::Fd> open_file_target(const std::string& path);

// "vda" of "/dev/vda"; kUsage for anything that is not a plain device name.
Result<std::string> disk_name(const std::string& device);

}  // namespace caisson::agent
