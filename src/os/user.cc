#include "os/user.h"

#include <grp.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"

namespace caisson::os {

Identity service_identity() {
    // Read directly: no name service of the host may decide who we become, nor cost its start-up time.
    auto passwd = read_file("/etc/passwd", 1 << 20);
    if (passwd) {
        for (const auto& line : base::split(*passwd, '\n')) {
            auto fields = base::split(line, ':');
            if (fields.size() < 4 || fields[0] != "caisson") continue;
            auto user = base::parse_u64(fields[2]);
            auto group = base::parse_u64(fields[3]);
            if (user && group && *user > 0 && *group > 0 && *user < 0xffffffff && *group < 0xffffffff)
                return {static_cast<uid_t>(*user), static_cast<gid_t>(*group)};
        }
    }
    return {kServiceUid, kServiceUid};
}

Result<> drop_to(Identity identity) {
    if (::setgroups(0, nullptr) != 0) return base::failure_errno("cannot drop supplementary groups");
    if (::setresgid(identity.group, identity.group, identity.group) != 0)
        return base::failure_errno("cannot drop to group " + std::to_string(identity.group));
    if (::setresuid(identity.user, identity.user, identity.user) != 0)
        return base::failure_errno("cannot drop to user " + std::to_string(identity.user));
    if (::setuid(0) == 0) return base::failure(Errc::kInternal, "root could be taken back after dropping it");
    return {};
}

}  // namespace caisson::os
