// Volumes as archives: what files get into a volume and out of it by. An archive has the guest's view of a file: its
// owner, mode and kind as metadata.h keeps them, and not as the host has them.
//
// Whatever a guest has put into a volume, nothing outside of it is opened: every path is resolved from the volume's own
// descriptor, beneath it and through no link.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "os/fd.h"
#include "tar/extract.h"
#include "tar/pack.h"
#include "volume/share/space.h"

namespace caisson::volume {

// The numbers that an archive has for whoever owns the volume.
struct OwnerIds {
    std::uint32_t user = 0, group = 0;
};

// For tar::pack(). Files without metadata are the owner's, with the host's mode. Sockets are left out.
tar::View guest_view(OwnerIds owner);

// For tar::ExtractOptions::describe. Without `keep_owner` everything is the volume owner's and no program gets set-id bits.
// kHostMissing: the home's file system keeps no extended attributes.
std::function<Result<>(int file, const tar::Entry& entry, bool fresh)> metadata_keeper(OwnerIds owner, bool keep_owner);
// For tar::ExtractOptions::link_as_file, with `keep_owner`: links that are not the volume owner's, see metadata.h.
std::function<bool(const tar::Entry& entry)> foreign_link(OwnerIds owner);

// For tar::ExtractOptions::account; `space` stays the caller's. kNoSpace names the limit.
std::function<Result<>(std::int64_t bytes)> accountant(share::Space& space);

// A place in a volume, as people write it: with or without a slash before it; empty: all of the volume. What it leads
// through is never followed. `shown` is for messages. Errors: kUsage (no path in a volume), kNotFound.
Result<tar::Origin> open_origin(const os::Fd& volume, const std::string& path, const std::string& shown);
Result<tar::Destination> open_destination(const os::Fd& volume, const std::string& path, const std::string& shown);

}  // namespace caisson::volume
