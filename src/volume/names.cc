#include "volume/names.h"

#include <algorithm>

#include "base/text.h"

namespace caisson::volume {

using base::failure;

namespace {

bool is_plain(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }
bool is_name_char(char c) { return is_plain(c) || c == '_' || c == '.' || c == '-'; }

std::string shown(std::string_view text) { return "'" + base::printable(text, 200) + "'"; }

// What is wrong with the parts of a path, as the end of a sentence; nothing if they are all plain.
std::string wrong_part(std::string_view parts) {
    for (const auto& part : base::split(parts, '/')) {
        if (part.empty()) return "has an empty part";
        if (part == "." || part == "..") return "has a part '" + std::string(part) + "'";
    }
    return {};
}

}  // namespace

Result<> check_name(std::string_view name) {
    const bool good = !name.empty() && name.size() <= kMaxNameBytes && is_plain(name[0]) && std::all_of(name.begin(), name.end(), is_name_char);
    if (good) return {};
    return failure(Errc::kUsage, shown(name) + " cannot be the name of a volume",
                   "use a letter or digit, then letters, digits, '_', '.' and '-', at most " + std::to_string(kMaxNameBytes) + " together");
}

Result<> check_target(std::string_view path) {
    if (path.empty() || path[0] != '/')
        return failure(Errc::kUsage, "the path in the box is relative: " + shown(path), "give the whole path, beginning with /");
    if (path == "/") return failure(Errc::kUsage, "nothing can be mounted at / of a box", "choose a directory below it");
    if (path.size() > kMaxPathBytes || path.find('\0') != std::string_view::npos)
        return failure(Errc::kUsage, "the path in the box is no path: " + shown(path));
    if (auto wrong = wrong_part(path.substr(1)); !wrong.empty())
        return failure(Errc::kUsage, "the path in the box " + wrong + ": " + shown(path), "write it without");
    return {};
}

Result<> check_subpath(std::string_view path) {
    if (path.empty() || path.size() > kMaxPathBytes || path.find('\0') != std::string_view::npos)
        return failure(Errc::kUsage, "the path in the volume is no path: " + shown(path));
    if (path[0] == '/')
        return failure(Errc::kUsage, "the path in the volume is absolute: " + shown(path), "leave out the first /");
    if (auto wrong = wrong_part(path); !wrong.empty())
        return failure(Errc::kUsage, "the path in the volume " + wrong + ": " + shown(path), "write it without");
    return {};
}

std::string name_for(std::string_view path) {
    while (!path.empty() && path.back() == '/') path.remove_suffix(1);
    auto last = path.substr(path.rfind('/') + 1);
    std::string name;
    for (char c : last.substr(0, kMaxNameBytes)) name += is_name_char(c) ? c : '-';
    auto first = std::find_if(name.begin(), name.end(), is_plain);
    name.erase(name.begin(), first);
    return name.empty() ? "data" : name;
}

}  // namespace caisson::volume
