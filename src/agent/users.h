// Who a command runs as: "", "name", "uid", "name:group", "uid:gid" against the container's passwd and group files.
// Those files come from an image nobody vouches for: the parser is pure and bounded and has a fuzz target.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace caisson::agent {

struct UserIdentity {
    uid_t uid = 0;
    gid_t gid = 0;
    std::vector<gid_t> groups;  // supplementary
    std::string home = "/";
};

inline constexpr std::size_t kMaxUserFileBytes = 1 << 20;  // of /etc/passwd and /etc/group each
inline constexpr std::size_t kMaxGroups = 1024;
inline constexpr std::size_t kMaxUserSpecBytes = 256;

// As Docker does it (moby/sys/user GetExecUser): names win over numbers, unknown numbers are fine (gid 0, home "/"),
// supplementary groups are those that list the user, unless the specification names a group.
// kNotFound for an unknown name, kUsage for what cannot be a user, kLimit for more than kMaxGroups groups.
Result<UserIdentity> resolve_user(std::string_view specification, std::string_view passwd, std::string_view group);

}  // namespace caisson::agent
