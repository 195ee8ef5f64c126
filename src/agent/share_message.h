// FUSE messages as the agent reads and writes them (share_cache.h, share_listings.h). Pure.
#pragma once

#include <linux/fuse.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "base/bytes.h"

namespace caisson::agent {

// By value: nothing in a message is aligned. false: it is not there.
template <typename T>
bool take(base::ByteView& bytes, T& value) {
    if (bytes.size() < sizeof value) return false;
    std::memcpy(&value, bytes.data(), sizeof value);
    bytes = bytes.subspan(sizeof value);
    return true;
}

// Arguments that are text end with a null.
inline std::string_view text_of(base::ByteView bytes) {
    const auto text = base::as_text(bytes);
    return text.substr(0, text.find('\0'));
}

// Calls `found` with each entry of a listing: the file if it was looked up (or none, 0), where the listing goes on, its name.
template <typename Found>
void each_entry(base::ByteView bytes, bool plus, Found found) {
    for (;;) {
        fuse_entry_out file{};
        fuse_dirent entry{};
        if (plus && !take(bytes, file)) return;
        if (bytes.size() < offsetof(fuse_dirent, name)) return;
        std::memcpy(&entry, bytes.data(), offsetof(fuse_dirent, name));
        const std::size_t size = offsetof(fuse_dirent, name) + std::size_t{entry.namelen};
        if (bytes.size() < size) return;
        found(file, entry, base::as_text(bytes.subspan(offsetof(fuse_dirent, name), entry.namelen)));
        bytes = bytes.subspan(std::min(FUSE_DIRENT_ALIGN(size), bytes.size()));
    }
}

inline void put_answer(base::Bytes& answer, const fuse_in_header& asked, int error, base::ByteView data = {}) {
    fuse_out_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + data.size());
    header.error = -error;
    header.unique = asked.unique;
    base::append(answer, base::bytes_of(header));
    base::append(answer, data);
}

}  // namespace caisson::agent
