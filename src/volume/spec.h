// What -v, --mount and --copy say, as docs/cli.md describes it. Pure: every text is either understood as a whole or refused
// with a message of its own, and nothing is made. That two mounts do not share a place is for whoever has them all.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <variant>

#include "caisson/volume.h"

namespace caisson::volume {

// Whether a path of the host is a single file. Only to word a refusal; without it every path is taken for a directory.
using IsFile = std::function<bool(const std::string& path)>;

// [VOLUME[/PATH]:]/TARGET[:OPTION,...]
Result<MountOption> parse_volume(std::string_view text, const IsFile& is_file = {});

// KEY=VALUE,... as Docker's --mount, with the types volume and tmpfs.
Result<std::variant<MountOption, TmpfsOption>> parse_mount(std::string_view text, const IsFile& is_file = {});

// HOST:/TARGET; the last ":/" separates.
Result<CopyOption> parse_copy(std::string_view text);

// What the three of them refuse in a MountOption, for callers who fill one themselves. kUsage.
Result<> check_mount(const MountOption& mount);
// Absolute, no "..": where a file is copied to, which may also be "/" or end in one.
Result<> check_copy_target(std::string_view path);

}  // namespace caisson::volume
