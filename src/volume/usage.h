// How much of the host's disk a volume takes.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::volume {

// Allocated bytes (512 times st_blocks) of a directory and all that is below it on its file system; a file of several
// names counts once. Follows no link, and however deep the tree is, three descriptors do. kInUse: directories were moved
// all the time meanwhile.
Result<std::uint64_t> allocated_bytes(const os::Fd& top);

}  // namespace caisson::volume
