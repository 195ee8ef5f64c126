#include "os/landlock.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "os/fd.h"
#include "os/file.h"

namespace caisson::os {

using base::failure_errno;

namespace {

// The build's headers may be older than the kernel, which takes a shorter structure from older callers.
struct RulesetAttributes {
    std::uint64_t files;
    std::uint64_t network;  // from version 4 on
    std::uint64_t scoped;   // from version 6 on
};
constexpr std::uint64_t kBindTcp = 1ULL << 0;
constexpr std::uint64_t kConnectTcp = 1ULL << 1;
constexpr std::uint64_t kScopeAbstractSockets = 1ULL << 0;
constexpr std::uint64_t kScopeSignals = 1ULL << 1;

constexpr std::uint64_t kRightsOfFiles =
    landlock::kExecute | landlock::kWriteFile | landlock::kReadFile | landlock::kTruncate | landlock::kDeviceIoctl;

std::uint64_t rights_known_to(int version) {
    std::uint64_t known = landlock::kRefer - 1;
    if (version >= 2) known |= landlock::kRefer;
    if (version >= 3) known |= landlock::kTruncate;
    if (version >= 5) known |= landlock::kDeviceIoctl;
    return known;
}

std::size_t attributes_size(int version) {
    if (version >= 6) return sizeof(RulesetAttributes);
    return version >= 4 ? 2 * sizeof(std::uint64_t) : sizeof(std::uint64_t);
}

Result<> add_rule(int ruleset, const LandlockRule& rule, std::uint64_t known) {
    const std::string name = rule.fd >= 0 ? "an open directory" : rule.path;
    Fd opened;
    if (rule.fd < 0) opened = CAISSON_TRY(open_file(rule.path, O_PATH));
    landlock_path_beneath_attr allowed{};
    allowed.parent_fd = rule.fd >= 0 ? rule.fd : opened.get();
    allowed.allowed_access = rule.rights & known;
    struct stat info {};
    if (::fstat(allowed.parent_fd, &info) != 0) return failure_errno("cannot look at " + name);
    if (!S_ISDIR(info.st_mode)) allowed.allowed_access &= kRightsOfFiles;
    if (::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &allowed, 0) != 0)
        return failure_errno("cannot restrict access to " + name);
    return {};
}

}  // namespace

int landlock_version() {
    return static_cast<int>(std::max(0L, ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION)));
}

Result<int> restrict_self(const Landlock& landlock) {
    const int version = landlock_version();
    const bool refers = std::any_of(landlock.rules.begin(), landlock.rules.end(),
                                    [](const LandlockRule& rule) { return (rule.rights & landlock::kRefer) != 0; });
    if (version == 0 || (version < 2 && refers)) return 0;
    const auto known = rights_known_to(version);
    RulesetAttributes handled{};
    handled.files = known;
    if (landlock.forbid_tcp) handled.network = kBindTcp | kConnectTcp;
    if (landlock.scope_abstract_sockets) handled.scoped |= kScopeAbstractSockets;
    if (landlock.scope_signals) handled.scoped |= kScopeSignals;
    Fd ruleset(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &handled, attributes_size(version), 0)));
    if (!ruleset) return failure_errno("cannot restrict this process with Landlock");
    for (const auto& rule : landlock.rules) CAISSON_TRY(add_rule(ruleset.get(), rule, known));
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failure_errno("cannot give up new privileges");
    if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0)
        return failure_errno("cannot restrict this process with Landlock");
    return version;
}

}  // namespace caisson::os
