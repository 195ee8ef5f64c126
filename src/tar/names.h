// What the things of a copy are called: where `docker cp` would put them. Pure.
//
// https://docs.docker.com/reference/cli/docker/container/cp/ is the rule: what is copied keeps its base name inside an
// existing directory, and else takes the destination's; "DIRECTORY/." stands for what is in the directory.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace caisson::tar {

// What an archive of `path` calls it: its last part; "." for "/", "x/." and "x/..", which stand for contents.
std::string base_name(std::string_view path);
// Everything before the last part: "a/b/" -> "a", "b" -> ".", "/b" -> "/".
std::string parent_name(std::string_view path);
// Without what only says that it means a directory: "a/./" -> "a". Looked at without following links, this is what the
// path names; with a slash behind it the kernel would follow. "a/.." stays, it names another directory.
std::string plain_path(std::string_view path);
// Whether `path` can only mean a directory: it ends in "/", "/." or "/..", or is "." or "..".
bool means_directory(std::string_view path);

enum class Present { kNothing, kDirectory, kOther };  // what is at the destination
enum class Place { kInside, kInstead };               // in that directory; or under the destination's name
// Errors: kUsage (a directory onto a file), kNotFound (a file into a directory that is not there). `destination` is for
// messages.
Result<Place> place_for(bool directory, Present present, bool slash, const std::string& destination);

// From a name in an archive to one below the directory that is written to.
struct Names {
    std::string top;      // the first part that every name must have; empty: any, the archive holds contents
    std::string instead;  // takes the place of `top`, or stands before contents; empty: names stay
    // Parts of the path, none of them "", "." or ".."; none at all for the directory itself. A leading slash counts for
    // nothing. kCorrupt: a name with "..", or one that is not below `top`.
    Result<std::vector<std::string>> map(std::string_view path) const;
};

// Whether a symbolic link with this text may lead out of a tree, from a directory `depth` levels below its top; negative:
// the link is not in a tree, but is all there is. Behind a name ".." may be anywhere, as the name may be another link's.
bool leads_out(std::string_view text, std::ptrdiff_t depth);

}  // namespace caisson::tar
