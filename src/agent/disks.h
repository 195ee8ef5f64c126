// Volumes that are disks. The machine has the devices from its start; which file each one shows is the host's business,
// and a restored guest has to look again. What they hold was written by guests, maybe others.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/shares.h"
#include "base/result.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

// "vdb": the block device that says this serial number. Empty: there is none.
std::string find_disk(std::string_view serial);
// Of a disk ("vdb"); 0 while the kernel does not know it.
std::uint64_t device_bytes(const std::string& name);

using WantedDisks = google::protobuf::RepeatedPtrField<wire::DiskMount>;

// Each disk's file system as a mount that is nowhere yet: only the container gets it, and when the container's mounts end it
// is unmounted. In the guest's mount namespace; blocks until the devices have their true sizes. `devices` gets their names
// ("vdb"). Errors name the volume.
Result<std::vector<ShareTree>> take_disks(const WantedDisks& wanted, std::set<std::string>& devices);

}  // namespace caisson::agent
