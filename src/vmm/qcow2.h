// The empty qcow2 overlay of a new box. Written by us: starting qemu-img costs 14-30 ms, this one write.
// Source: QEMU, docs/interop/qcow2.rst (version 3, 64 KiB clusters). The header names no backing file; the backing
// node is always given on the VMM's command line.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace caisson::vmm {

inline constexpr std::uint64_t kMaxDiskBytes = 1ull << 40;

// Pure. `virtual_size_bytes` is a multiple of 512, at most kMaxDiskBytes.
base::Bytes make_empty_qcow2(std::uint64_t virtual_size_bytes);
// Creates `path` (must not exist, mode 0600). Not synced: an empty overlay lost by a crash belongs to a box whose
// creation is undone.
Result<> create_overlay(const std::string& path, std::uint64_t virtual_size_bytes);

// An overlay that a guest has had: is it still one that could be ours? The machine is told formats and backing anyway,
// and its jail shows nothing else, so this is not what keeps a rewritten header from leading somewhere; it says so
// instead of showing a disk that is not the box's. kCorrupt: no plain file of this user's, no qcow2 header, one that names
// other files (a backing file, an external data file), is encrypted, uses features that we do not, or is larger than it may be.
//
// A link is not followed; a pipe or a device is not opened. Between this and the jail's mount, which goes by the path
// again, only processes of this user can put something else there: the directory is theirs alone (0700), and the
// machine sees the file, not its directory.
Result<> check_overlay(const std::string& path, std::uint64_t virtual_size_bytes);

// The same for the disk below it, which caisson alone has written: only that it is a plain file of this user's.
Result<> check_base_disk(const std::string& path);

// The most that an overlay of this virtual size may take: all of its blocks, qcow2's tables, and some to spare.
std::uint64_t max_overlay_bytes(std::uint64_t virtual_size_bytes);

// A private copy of a template's overlay, holes kept; shares blocks where the file system can. Same rules otherwise.
// kCorrupt: `from`, which a VMM has written, is no regular file or larger than an overlay of that size can be.
Result<> copy_overlay(const std::string& from, const std::string& path, std::uint64_t virtual_size_bytes);

}  // namespace caisson::vmm
