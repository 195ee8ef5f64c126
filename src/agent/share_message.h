// FUSE messages as the agent reads and writes them (share_cache.h, share_listings.h). Pure.
#pragma once

#include <linux/fuse.h>

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

inline void put_answer(base::Bytes& answer, const fuse_in_header& asked, int error, base::ByteView data = {}) {
    fuse_out_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + data.size());
    header.error = -error;
    header.unique = asked.unique;
    base::append(answer, base::bytes_of(header));
    base::append(answer, data);
}

}  // namespace caisson::agent
