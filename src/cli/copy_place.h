// One side of `caisson cp`, as it is written: BOX:PATH, PATH or "-". Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson::cli {

struct CopyPlace {
    std::string box;  // empty: on the host
    std::string path;  // "-" on the host: standard input or output
    bool stream() const { return box.empty() && path == "-"; }
};

// As docker cp reads it: what begins with "/" or "." is a path of the host's, whatever colons it has. kUsage if a part
// is empty.
Result<CopyPlace> parse_copy_place(std::string_view text);

}  // namespace caisson::cli
