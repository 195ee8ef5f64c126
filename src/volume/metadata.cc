#include "volume/metadata.h"

#include <sys/stat.h>

#include <array>
#include <charconv>
#include <cstdio>

#include "base/text.h"

namespace caisson::volume {

namespace {

constexpr std::uint32_t kModeBits = 07777;

std::string id_text(const std::optional<std::uint32_t>& id) { return id ? std::to_string(*id) : "-"; }

std::string octal(std::uint32_t value) {
    char text[16];
    std::snprintf(text, sizeof text, "%o", value);
    return text;
}

bool parse_number(std::string_view text, int base, std::uint32_t& value) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    return !text.empty() && error == std::errc{} && end == text.data() + text.size();
}

bool parse_id(std::string_view text, std::optional<std::uint32_t>& id) {
    id.reset();
    return text == "-" || parse_number(text, 10, id.emplace());
}

bool is_special(std::uint32_t type) {
    return type == 0 || type == S_IFCHR || type == S_IFBLK || type == S_IFIFO || type == S_IFSOCK || type == S_IFLNK;
}

}  // namespace

std::string encode(const Metadata& metadata) {
    return "1 " + id_text(metadata.user) + " " + id_text(metadata.group) + " " + octal(metadata.mode) + " " +
           octal(metadata.special) + " " + std::to_string(metadata.device);
}

std::optional<Metadata> decode(std::string_view text) {
    auto words = base::split(text, ' ');
    Metadata metadata;
    if (words.size() != 6 || words[0] != "1") return std::nullopt;
    if (!parse_id(words[1], metadata.user) || !parse_id(words[2], metadata.group) ||
        !parse_number(words[3], 8, metadata.mode) || !parse_number(words[4], 8, metadata.special) ||
        !parse_number(words[5], 10, metadata.device))
        return std::nullopt;
    if ((metadata.mode & ~kModeBits) != 0 || !is_special(metadata.special)) return std::nullopt;
    return metadata;
}

}  // namespace caisson::volume
