#include "image/name.h"

#include "base/text.h"
#include "image/digest.h"
#include "image/limits.h"

namespace caisson::image {

using base::failure;

namespace {

bool is_lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_alnum(char c) { return is_lower_alnum(c) || (c >= 'A' && c <= 'Z'); }

// path-component := [a-z0-9]+ ((\.|_|__|-+) [a-z0-9]+)*
bool is_path_component(std::string_view text) {
    if (text.empty() || !is_lower_alnum(text.front()) || !is_lower_alnum(text.back())) return false;
    for (std::size_t i = 0; i < text.size();) {
        if (is_lower_alnum(text[i])) {
            ++i;
            continue;
        }
        std::size_t end = i;
        while (end < text.size() && !is_lower_alnum(text[end])) ++end;
        auto separator = text.substr(i, end - i);
        bool fine = separator == "." || separator == "_" || separator == "__" ||
                    separator.find_first_not_of('-') == std::string_view::npos;
        if (!fine) return false;
        i = end;
    }
    return true;
}

bool is_host(std::string_view text) {
    auto colon = text.find(':');
    auto name = text.substr(0, colon);
    if (colon != std::string_view::npos) {
        auto port = text.substr(colon + 1);
        if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string_view::npos)
            return false;
    }
    if (name.empty() || !is_alnum(name.front()) || !is_alnum(name.back())) return false;
    for (char c : name)
        if (!is_alnum(c) && c != '.' && c != '-') return false;
    return true;
}

bool is_tag(std::string_view text) {
    if (text.empty() || text.size() > 128 || text.front() == '.' || text.front() == '-') return false;
    for (char c : text)
        if (!is_alnum(c) && c != '.' && c != '-' && c != '_') return false;
    return true;
}

}  // namespace

// If it could not be a path component of Docker's hub.
bool is_registry_part(std::string_view text) {
    return text == "localhost" || text.find_first_of(".:ABCDEFGHIJKLMNOPQRSTUVWXYZ") != std::string_view::npos;
}

Result<Reference> parse_reference(std::string_view text) {
    auto wrong = [&](const std::string& why) {
        return failure(Errc::kUsage, "\"" + base::printable(text, 300) + "\" is not an image name: " + why,
                       "a name looks like debian, debian:12 or ghcr.io/owner/name:tag");
    };
    if (text.empty()) return wrong("it is empty");
    if (text.size() > kMaxImageNameBytes + 1 + 128 + 1 + 71) return wrong("it is too long");
    Reference reference;
    if (auto at = text.find('@'); at != std::string_view::npos) {
        reference.digest = std::string(text.substr(at + 1));
        if (!digest_hex(reference.digest)) return wrong("what follows the @ is not sha256:<64 hex digits>");
        text = text.substr(0, at);
    }
    auto slash = text.rfind('/');
    auto colon = text.find(':', slash == std::string_view::npos ? 0 : slash);
    if (colon != std::string_view::npos) {
        reference.tag = std::string(text.substr(colon + 1));
        if (!is_tag(reference.tag)) return wrong("\"" + base::printable(reference.tag, 150) + "\" is not a tag");
        text = text.substr(0, colon);
    } else if (reference.digest.empty()) {
        reference.tag = "latest";
    }
    for (std::string_view prefix : {"docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/"})
        if (text.starts_with(prefix)) {
            text.remove_prefix(prefix.size());
            // Without the prefix it would be that registry's.
            auto inner = text.find('/');
            if (inner != std::string_view::npos && is_registry_part(text.substr(0, inner))) return wrong("it names two registries");
            break;
        }
    if (text.size() > kMaxImageNameBytes) return wrong("it is longer than 255 bytes");
    auto parts = base::split(text, '/');
    for (std::size_t i = 0; i < parts.size(); ++i) {
        bool host = i == 0 && parts.size() > 1 && is_registry_part(parts[0]);
        if (host ? is_host(parts[i]) : is_path_component(parts[i])) continue;
        return wrong(parts[i].empty() ? "it has an empty part"
                                      : "\"" + base::printable(parts[i], 100) +
                                            "\" must be lower-case letters and digits, joined by single . _ __ or -");
    }
    reference.repository = std::string(text);
    return reference;
}

}  // namespace caisson::image
