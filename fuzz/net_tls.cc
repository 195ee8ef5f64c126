// The first bytes of a TLS connection, as many of them as have come: the verdict stays the same with more, and a name is one.
#include <algorithm>
#include <cstdlib>

#include "net/name.h"
#include "net/peek/limits.h"
#include "net/peek/peek.h"

using namespace caisson;

namespace {

void check(bool fine) {
    if (!fine) std::abort();
}

bool same(const net::TlsPeek& a, const net::TlsPeek& b) {
    if (a.index() != b.index()) return false;
    if (auto* hello = std::get_if<net::TlsHello>(&a)) {
        const auto& other = std::get<net::TlsHello>(b);
        return hello->server_name == other.server_name && hello->alpn == other.alpn && hello->has_ech == other.has_ech;
    }
    if (auto* bad = std::get_if<net::Malformed>(&a)) return bad->why == std::get<net::Malformed>(b).why;
    return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const base::ByteView bytes(data, size);
    const auto whole = net::peek_tls(bytes);
    if (auto* hello = std::get_if<net::TlsHello>(&whole)) {
        if (hello->server_name) check(net::canonical_name(*hello->server_name) == hello->server_name);
        check(hello->alpn.size() <= net::kMostProtocolNames);
    }
    check(size < net::kMostFirstBytes || whole.index() != net::TlsPeek(net::NeedMore{}).index());
    // Every prefix of a short input, of a long one some that its last byte chooses.
    const std::size_t step = 1 + size / 16;
    for (std::size_t part = step > 1 ? data[size - 1] % step : 0; part < size; part += step) {
        const auto verdict = net::peek_tls(bytes.first(part));
        check(std::holds_alternative<net::NeedMore>(verdict) || same(verdict, whole));
    }
    const auto either = net::peek_first_bytes(bytes);
    check(std::holds_alternative<net::TlsHello>(either) == std::holds_alternative<net::TlsHello>(whole));
    return 0;
}
