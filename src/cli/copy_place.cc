#include "cli/copy_place.h"

#include "base/text.h"

namespace caisson::cli {

Result<CopyPlace> parse_copy_place(std::string_view text) {
    if (text.empty()) return base::failure(Errc::kUsage, "a place to copy from or to is empty", "write BOX:PATH, PATH or -");
    const auto colon = text.find(':');
    if (colon == std::string_view::npos || text[0] == '/' || text[0] == '.') return CopyPlace{"", std::string(text)};
    CopyPlace place{std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
    if (place.box.empty() || place.path.empty())
        return base::failure(Errc::kUsage, "'" + base::printable(text, 300) + "' names no box or no path",
                             "write BOX:PATH; a file of the host's with a colon as ./NAME");
    return place;
}

}  // namespace caisson::cli
