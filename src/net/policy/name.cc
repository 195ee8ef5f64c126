#include "net/policy/name.h"

#include <algorithm>

#include "net/policy/limits.h"

namespace caisson::net {

namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool is_hex_digit(char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); }

bool is_label(std::string_view label) {
    auto fits = [](char c) { return is_letter(c) || is_digit(c) || c == '-' || c == '_'; };
    return !label.empty() && label.size() <= limits::kLongestNamePart && std::all_of(label.begin(), label.end(), fits);
}

// inet_aton() and the URL standard read a name that ends so as an IPv4 address.
bool is_number(std::string_view label) {
    if (label.starts_with("0x")) return std::all_of(label.begin() + 2, label.end(), is_hex_digit);
    return std::all_of(label.begin(), label.end(), is_digit);
}

}  // namespace

std::optional<std::string> normal_name(std::string_view text) {
    if (text.ends_with('.')) text.remove_suffix(1);
    if (text.empty() || text.size() > limits::kLongestName) return std::nullopt;
    std::string name(text);
    std::transform(name.begin(), name.end(), name.begin(), lower);
    std::size_t start = 0;
    while (true) {
        const auto end = std::min(name.find('.', start), name.size());
        const auto label = std::string_view(name).substr(start, end - start);
        if (!is_label(label)) return std::nullopt;
        if (end == name.size()) {
            if (is_number(label)) return std::nullopt;
            return name;
        }
        start = end + 1;
    }
}

bool is_below(std::string_view name, std::string_view suffix) {
    return name.size() > suffix.size() + 1 && name.ends_with(suffix) && name[name.size() - suffix.size() - 1] == '.';
}

}  // namespace caisson::net
