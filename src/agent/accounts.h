// What the image's files say of users and groups. For a process whose root directory is the container's.
#pragma once

#include <string>
#include <string_view>

#include "agent/users.h"
#include "base/result.h"

namespace caisson::agent {

struct Accounts {
    Result<std::string> passwd, group;
};
Accounts read_accounts();

// Errors: those of the reading, and of resolve_user().
Result<UserIdentity> find_user(std::string_view specification, const Accounts& accounts);

}  // namespace caisson::agent
