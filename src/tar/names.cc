#include "tar/names.h"

#include "base/text.h"

namespace caisson::tar {

using base::failure;

namespace {

std::string_view without_slashes(std::string_view path) {
    while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
    return path;
}

}  // namespace

std::string base_name(std::string_view path) {
    path = without_slashes(path);
    auto name = path.substr(path.rfind('/') + 1);
    if (name.empty() || name == "." || name == "..") return ".";
    return std::string(name);
}

std::string parent_name(std::string_view path) {
    path = without_slashes(path);
    auto slash = path.rfind('/');
    if (slash == std::string_view::npos) return ".";
    return std::string(slash == 0 ? "/" : without_slashes(path.substr(0, slash)));
}

std::string plain_path(std::string_view path) {
    for (;;) {
        path = without_slashes(path);
        if (path.size() < 2 || !path.ends_with("/.")) return std::string(path);
        path.remove_suffix(1);
    }
}

bool means_directory(std::string_view path) { return path.empty() || path.back() == '/' || base_name(path) == "."; }

Result<Place> place_for(bool directory, Present present, bool slash, const std::string& destination) {
    const auto shown = base::printable(destination, 300);
    switch (present) {
        case Present::kDirectory: return Place::kInside;
        case Present::kOther:
            if (directory) return failure(Errc::kUsage, "a directory cannot be copied onto " + shown + ", which is none");
            if (slash) return failure(Errc::kUsage, shown + " is no directory");
            return Place::kInstead;
        case Present::kNothing:
            if (!directory && slash)
                return failure(Errc::kNotFound, "the directory " + shown + " does not exist", "make it first, or leave the slash out");
            return Place::kInstead;
    }
    return Place::kInside;
}

Result<std::vector<std::string>> Names::map(std::string_view path) const {
    std::vector<std::string> parts;
    for (auto& part : base::split(path, '/')) {
        if (part.empty() || part == ".") continue;
        if (part == "..")
            return failure(Errc::kCorrupt, "the archive has a name that leads out of its directory: " + base::printable(path, 300));
        parts.push_back(std::move(part));
    }
    if (top.empty()) {
        if (!instead.empty()) parts.insert(parts.begin(), instead);
        return parts;
    }
    if (parts.empty() || parts[0] != top)
        return failure(Errc::kCorrupt, "the archive has a name that was not asked for: " + base::printable(path, 300));
    if (!instead.empty()) parts[0] = instead;
    return parts;
}

bool leads_out(std::string_view text, std::ptrdiff_t depth) {
    if (depth < 0 || text.starts_with('/')) return true;
    bool named = false;
    for (const auto& part : base::split(text, '/')) {
        if (part.empty() || part == ".") continue;
        if (part != "..") named = true;
        else if (named || --depth < 0) return true;
    }
    return false;
}

}  // namespace caisson::tar
