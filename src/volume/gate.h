// The gate: the one way from a volume's name to its files. Only directories that caisson created are volumes, each the
// direct child of one of two directories of the home; whoever asks by a path instead of a name is checked against the
// same rule. What is checked is what was opened, and the descriptor is handed on: nobody opens the path again.
#pragma once

#include <string>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::volume {

enum class Kind { kAnonymous, kNamed };

// Where volumes are. Both directories belong to the home's owner, 0700.
struct Roots {
    std::string anonymous;  // <home>/volumes/anonymous
    std::string named;      // <home>/volumes/named
    const std::string& of(Kind kind) const { return kind == Kind::kNamed ? named : anonymous; }
};

struct Pinned {
    os::Fd file;  // O_PATH
    bool directory = true;
    // Which volume it was found to be.
    Kind kind = Kind::kNamed;
    std::string name;
};

// `name` is a plain name (or an id, for anonymous ones). `subpath`: a regular file or a directory in it, which must
// exist; empty: the volume itself. No link is followed anywhere. Errors: kUsage (names), kNotFound, naming the volume.
Result<Pinned> pin(const Roots& roots, Kind kind, const std::string& name, const std::string& subpath);

// The same for callers that know a volume by its path on the host: exactly one directory below one of the two roots.
// kUsage: "Volume host path '...' is not a caisson-managed volume".
Result<Pinned> pin_path(const Roots& roots, const std::string& path);

}  // namespace caisson::volume
