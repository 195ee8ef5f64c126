// What each kind of jailed process may ask of the kernel: one list a kind, all in kinds.cc. What it may see (mounts,
// descriptors, limits) depends on the box or the image and is put together where that is known: vmm_jail() in src/vmm,
// unpacker_jail() and client_jail() in src/image,
// share_jail() in src/volume.
#pragma once

#include <optional>

#include "jail/filter.h"

namespace caisson::jail {

// The virtual machine monitor: QEMU, under TCG and under KVM.
Filter vmm_filter();
// caisson-unpack, caisson-fetch and caisson-share. Without a value in builds with a sanitizer, whose run-time makes calls of its own that
// differ from version to version; their jails show more files for the same reason.
std::optional<Filter> unpacker_filter();
std::optional<Filter> fetch_filter();
// caisson-share, the server of a box's volumes.
std::optional<Filter> share_filter();
// caisson-netd, a box's whole outside network.
std::optional<Filter> netd_filter();

}  // namespace caisson::jail
