// What caisson-copy gives up before it reads its first byte. It keeps the caller's user, for the files are the
// caller's; so the jail is not bubblewrap's but one that a process can put on by itself.
//
// Left open, exactly: standard streams, the status pipe and the directory; below that directory, reading (pack) or
// making, writing and removing files (extract); and, started as root, these capabilities: to pack, DAC_READ_SEARCH; to
// extract, DAC_OVERRIDE and FOWNER, and with owners CHOWN and FSETID.
#pragma once

#include "base/result.h"

namespace caisson::box {

enum class CopyKind { kPack, kExtract, kExtractWithOwners };

// In this order: no new privileges, not dumpable; as root, the directory becomes the root; Landlock, where the kernel has
// it; capabilities; and a system call filter whose breach ends the process. Single-threaded; nothing takes it
// back. `removes`: an extraction that also removes directories.
Result<> enter_copy_jail(CopyKind kind, int directory, bool removes = false);

}  // namespace caisson::box
