#include "net/name.h"

#include <algorithm>

namespace caisson::net {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_label(std::string_view label) {
    if (label.empty() || label.size() > kLongestLabel || label.front() == '-' || label.back() == '-') return false;
    return std::all_of(label.begin(), label.end(), [](char c) { return (c >= 'a' && c <= 'z') || is_digit(c) || c == '-' || c == '_'; });
}

// What inet_aton(3) and its kin read as a part of an address: decimal, octal, hexadecimal, the latter even without digits.
bool is_number(std::string_view label) {
    if (label.starts_with("0x"))
        return std::all_of(label.begin() + 2, label.end(), [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); });
    return std::all_of(label.begin(), label.end(), is_digit);
}

}  // namespace

std::optional<std::string> canonical_name(std::string_view text) {
    if (text.ends_with('.')) text.remove_suffix(1);
    if (text.empty() || text.size() > kLongestName) return std::nullopt;
    std::string name(text);
    for (char& c : name)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    std::string_view rest = name, last;
    for (bool more = true; more;) {
        const auto dot = rest.find('.');
        last = rest.substr(0, dot);
        if (!is_label(last)) return std::nullopt;
        more = dot != std::string_view::npos;
        if (more) rest.remove_prefix(dot + 1);
    }
    if (is_number(last)) return std::nullopt;
    return name;
}

bool is_below(std::string_view name, std::string_view suffix) {
    return name.size() > suffix.size() + 1 && name.ends_with(suffix) && name[name.size() - suffix.size() - 1] == '.';
}

}  // namespace caisson::net
