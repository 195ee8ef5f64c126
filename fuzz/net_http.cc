// The head of a request, as much of it as has come: the verdict stays the same with more, and what is accepted can be read
// in one way only.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "net/name.h"
#include "net/peek/limits.h"
#include "net/peek/peek.h"

using namespace caisson;

namespace {

void check(bool fine) {
    if (!fine) std::abort();
}

bool same(const net::HttpPeek& a, const net::HttpPeek& b) {
    if (a.index() != b.index()) return false;
    if (auto* head = std::get_if<net::HttpHead>(&a)) {
        const auto& other = std::get<net::HttpHead>(b);
        return head->method == other.method && head->target == other.target && head->host == other.host && head->bytes == other.bytes;
    }
    if (auto* bad = std::get_if<net::Malformed>(&a)) return bad->why == std::get<net::Malformed>(b).why;
    return true;
}

// The same question, asked of the bytes in the simplest way: how many lines could any server take for a Host header?
std::size_t lines_of_host(std::string_view head) {
    std::string text;
    for (char c : head) text += c == '\r' || c == '\0' ? '\n' : static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    std::size_t count = 0;
    for (std::size_t at = text.find('\n'); at != std::string::npos; at = text.find('\n', at + 1)) {
        const auto begin = text.find_first_not_of(" \t", at + 1);
        if (begin == std::string::npos || text.compare(begin, 4, "host") != 0) continue;
        const auto colon = text.find_first_not_of(" \t", begin + 4);
        count += colon != std::string::npos && text[colon] == ':';
    }
    return count;
}

void check_head(const net::HttpHead& head, base::ByteView bytes) {
    check(head.bytes <= bytes.size() && head.bytes <= net::kMostHeadBytes);
    const auto text = base::as_text(bytes.first(head.bytes));
    check(text.ends_with("\r\n\r\n") && text.find("\r\n\r\n") == head.bytes - 4);
    check(lines_of_host(text) <= 1);
    if (!head.host) return;
    if (head.host->address) check(head.host->name == head.host->address->to_string());
    else check(net::canonical_name(head.host->name) == head.host->name);
    check(head.host->port != 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const base::ByteView bytes(data, size);
    const auto whole = net::peek_http(bytes);
    if (auto* head = std::get_if<net::HttpHead>(&whole)) check_head(*head, bytes);
    check(size < net::kMostHeadBytes || whole.index() != net::HttpPeek(net::NeedMore{}).index());
    // Every prefix of a short input, of a long one some that its last byte chooses.
    const std::size_t step = 1 + size / 16;
    for (std::size_t part = step > 1 ? data[size - 1] % step : 0; part < size; part += step) {
        const auto verdict = net::peek_http(bytes.first(part));
        check(std::holds_alternative<net::NeedMore>(verdict) || same(verdict, whole));
    }
    const auto either = net::peek_first_bytes(bytes);
    check(std::holds_alternative<net::HttpHead>(either) == std::holds_alternative<net::HttpHead>(whole));
    return 0;
}
