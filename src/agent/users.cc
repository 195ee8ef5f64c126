#include "agent/users.h"

#include <array>
#include <charconv>
#include <optional>

#include "base/text.h"

namespace caisson::agent {

using base::failure;

namespace {

// The largest id that Docker accepts; (uid_t)-1 has a meaning of its own to the kernel.
constexpr std::uint32_t kMaxId = 0x7fffffff;

std::optional<std::uint32_t> parse_id(std::string_view text) {
    std::uint32_t value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value > kMaxId) return std::nullopt;
    return value;
}

bool is_number(std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// Takes the next line off `text`, comments and empty lines skipped; false at the end.
bool next_line(std::string_view& text, std::string_view& line) {
    while (!text.empty()) {
        auto end = text.find('\n');
        line = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        line = base::trim(line);
        if (!line.empty() && line[0] != '#') return true;
    }
    return false;
}

// The first N fields between colons; missing ones are empty.
template <std::size_t N>
std::array<std::string_view, N> fields(std::string_view line) {
    std::array<std::string_view, N> result;
    for (auto& field : result) {
        auto end = line.find(':');
        field = line.substr(0, end);
        if (end == std::string_view::npos) break;
        line.remove_prefix(end + 1);
    }
    return result;
}

bool lists(std::string_view members, std::string_view name) {
    while (!members.empty()) {
        auto end = members.find(',');
        if (base::trim(members.substr(0, end)) == name) return true;
        if (end == std::string_view::npos) break;
        members.remove_prefix(end + 1);
    }
    return false;
}

}  // namespace

Result<UserIdentity> resolve_user(std::string_view specification, std::string_view passwd, std::string_view group) {
    if (specification.size() > kMaxUserSpecBytes) return failure(Errc::kUsage, "the user's name is too long");
    auto colon = specification.find(':');
    std::string_view user = specification.substr(0, colon);
    std::string_view group_name = colon == std::string_view::npos ? std::string_view() : specification.substr(colon + 1);
    if (is_number(user) && !parse_id(user)) return failure(Errc::kUsage, "user id " + std::string(user) + " is too large");
    if (is_number(group_name) && !parse_id(group_name))
        return failure(Errc::kUsage, "group id " + std::string(group_name) + " is too large");

    UserIdentity identity;
    auto wanted_id = user.empty() ? std::optional<std::uint32_t>(0) : parse_id(user);
    std::optional<std::string_view> account;
    std::string_view line;
    while (!account && next_line(passwd, line)) {
        auto entry = fields<7>(line);  // name:password:uid:gid:comment:home:shell
        auto uid = parse_id(entry[2]);
        auto gid = parse_id(entry[3]);
        if (!uid || !gid) continue;
        if ((user.empty() || entry[0] != user) && !(wanted_id && *uid == *wanted_id)) continue;
        account = entry[0];
        identity.uid = *uid;
        identity.gid = *gid;
        if (!entry[5].empty() && entry[5][0] == '/') identity.home = std::string(entry[5].substr(0, 4096));
    }
    if (!account) {
        if (!wanted_id)
            return failure(Errc::kNotFound, "unknown user '" + base::printable(user) + "': not in the image's /etc/passwd");
        identity.uid = *wanted_id;
    }

    if (!group_name.empty()) {
        auto wanted_gid = parse_id(group_name);
        while (next_line(group, line)) {
            auto entry = fields<4>(line);  // name:password:gid:members
            auto gid = parse_id(entry[2]);
            if (!gid || (entry[0] != group_name && !(wanted_gid && *gid == *wanted_gid))) continue;
            identity.gid = *gid;
            return identity;
        }
        if (!wanted_gid)
            return failure(Errc::kNotFound,
                           "unknown group '" + base::printable(group_name) + "': not in the image's /etc/group");
        identity.gid = *wanted_gid;
        return identity;
    }
    while (account && !account->empty() && next_line(group, line)) {
        auto entry = fields<4>(line);
        auto gid = parse_id(entry[2]);
        if (!gid || !lists(entry[3], *account)) continue;
        if (identity.groups.size() == kMaxGroups)
            return failure(Errc::kLimit, "the user is in more than " + std::to_string(kMaxGroups) + " groups");
        identity.groups.push_back(*gid);
    }
    return identity;
}

}  // namespace caisson::agent
