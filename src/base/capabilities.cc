#include "base/capabilities.h"

#include <linux/capability.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "base/text.h"

namespace caisson::base {

namespace {

// By number.
constexpr std::array<std::string_view, 41> kNames = {
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE"};
static_assert(kNames[CAP_SYS_ADMIN] == "SYS_ADMIN" && kNames[CAP_BPF] == "BPF" && kNames.size() == CAP_LAST_CAP + 1);

constexpr std::string_view kAll = "ALL";

// Upper case, without CAP_.
std::string plain_name(std::string_view word) {
    std::string name(word.substr(0, 64));
    for (char& c : name)
        if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    return starts_with(name, "CAP_") ? name.substr(4) : name;
}

// Letters to be changed, added or left out to make one word of the other (Levenshtein).
std::size_t distance(std::string_view from, std::string_view to) {
    std::vector<std::size_t> row(to.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 0; i < from.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i + 1);
        for (std::size_t j = 0; j < to.size(); ++j) {
            std::size_t changed = diagonal + (from[i] == to[j] ? 0 : 1);
            diagonal = std::exchange(row[j + 1], std::min({changed, row[j + 1] + 1, row[j] + 1}));
        }
    }
    return row.back();
}

bool holds(const std::vector<std::string>& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

std::uint64_t bits_of(const std::vector<std::string>& names) {
    std::uint64_t set = 0;
    for (const auto& name : names)
        if (auto number = capability_number(name)) set |= std::uint64_t{1} << *number;
    return set;
}

}  // namespace

std::uint64_t default_capabilities() {
    std::uint64_t set = 0;
    for (int capability : {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FSETID, CAP_FOWNER, CAP_MKNOD, CAP_NET_RAW, CAP_SETGID,
                           CAP_SETUID, CAP_SETFCAP, CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_SYS_CHROOT, CAP_KILL,
                           CAP_AUDIT_WRITE})
        set |= std::uint64_t{1} << capability;
    return set;
}

std::uint64_t all_capabilities() { return (std::uint64_t{1} << kNames.size()) - 1; }

std::optional<int> capability_number(std::string_view name) {
    auto found = std::find(kNames.begin(), kNames.end(), plain_name(name));
    if (found == kNames.end()) return std::nullopt;
    return static_cast<int>(found - kNames.begin());
}

std::vector<std::string> names_of_capabilities(std::uint64_t set) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < kNames.size(); ++i)
        if (set & std::uint64_t{1} << i) names.push_back("CAP_" + std::string(kNames[i]));
    return names;
}

std::string nearest_capability(std::string_view name) {
    const auto plain = plain_name(name);
    return std::string(*std::min_element(kNames.begin(), kNames.end(), [&](std::string_view a, std::string_view b) {
        return distance(plain, a) < distance(plain, b);
    }));
}

Result<std::vector<std::string>> capability_names(const std::string& option, const std::vector<std::string>& words) {
    std::vector<std::string> names;
    for (const auto& word : words) {
        std::string name(kAll);
        if (plain_name(word) != kAll) {
            auto number = capability_number(word);
            if (!number)
                return failure(Errc::kUsage, option + " '" + printable(word, 64) + "' is not a capability",
                               "the nearest is " + nearest_capability(word) + "; ALL is all of them; capabilities(7) lists them");
            name = "CAP_" + std::string(kNames[static_cast<std::size_t>(*number)]);
        }
        if (!holds(names, name)) names.push_back(name);
    }
    return names;
}

std::uint64_t capability_set(const std::vector<std::string>& add, const std::vector<std::string>& drop, bool privileged) {
    if (holds(drop, kAll) && !holds(add, kAll)) return bits_of(add);
    if (privileged || holds(add, kAll)) return all_capabilities() & ~bits_of(drop);
    return (default_capabilities() & ~bits_of(drop)) | bits_of(add);
}

}  // namespace caisson::base
