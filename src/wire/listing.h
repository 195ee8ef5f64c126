// Listings of directories as FUSE gives them to a kernel: entries one behind the other, each with the file that it was looked
// up as (READDIRPLUS) or without (READDIR). Pure.
//
// Source: fuse_dirent and fuse_direntplus of include/uapi/linux/fuse.h of Linux.
#pragma once

#include <linux/fuse.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/bytes.h"

namespace caisson::wire {

inline std::size_t listing_entry_bytes(bool plus, std::size_t name_bytes) {
    return FUSE_DIRENT_ALIGN((plus ? sizeof(fuse_entry_out) : 0) + offsetof(fuse_dirent, name) + name_bytes);
}

// `file`: nullptr without. The length in `entry` is that of `name`.
inline void put_listing_entry(base::Bytes& bytes, const fuse_entry_out* file, fuse_dirent entry, std::string_view name) {
    const auto end = bytes.size() + listing_entry_bytes(file != nullptr, name.size());
    entry.namelen = static_cast<std::uint32_t>(name.size());
    if (file != nullptr) base::append(bytes, base::bytes_of(*file));
    base::append(bytes, base::bytes_of(entry).first(offsetof(fuse_dirent, name)));
    base::append(bytes, base::as_bytes(name));
    bytes.resize(end);
}

// Calls `found(file, entry, name)` with each, until something is not whole. The file's node is 0 if it was not looked up.
template <typename Found>
void each_listing_entry(base::ByteView bytes, bool plus, Found found) {
    const std::size_t head = listing_entry_bytes(plus, 0);
    while (bytes.size() >= head) {
        fuse_entry_out file{};
        fuse_dirent entry{};
        if (plus) std::memcpy(&file, bytes.data(), sizeof file);
        std::memcpy(&entry, bytes.data() + head - offsetof(fuse_dirent, name), offsetof(fuse_dirent, name));
        if (bytes.size() - head < entry.namelen) return;
        found(file, entry, base::as_text(bytes.subspan(head, entry.namelen)));
        bytes = bytes.subspan(std::min(listing_entry_bytes(plus, entry.namelen), bytes.size()));
    }
}

}  // namespace caisson::wire
