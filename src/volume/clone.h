// A second volume with the files of a first one.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::volume {

// Copies all that is in `source` to the empty directory `target`, which nobody else knows yet: files (sharing their blocks
// where the file system can, else with their holes), directories and links, with times and extended attributes, hence with
// what guests made of them. Follows no link and leaves neither directory. What vanishes meanwhile is left out, and so is
// what no box can have made: sockets, pipes and devices of the host's. Errors: those of the file system.
Result<> clone_tree(const os::Fd& source, const os::Fd& target);

// A new file (0600) with the content of `from`, of `size` bytes, in the same way; synced. After an error there is none.
Result<> clone_file(const os::Fd& from, std::uint64_t size, const std::string& path);

}  // namespace caisson::volume
