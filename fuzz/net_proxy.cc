// What a proxy answers, as much of it as has come: the verdict stays the same with more, says how long the answer was, and
// comes before the answer is too long. The first byte says to which question.
#include <cstdlib>
#include <iterator>

#include "net/proxy/limits.h"
#include "net/proxy/proxy.h"

using namespace caisson;

namespace {

void check(bool fine) {
    if (!fine) std::abort();
}

bool same(const net::ProxyAnswer& a, const net::ProxyAnswer& b) { return a.error == b.error && a.bytes == b.bytes && a.why == b.why; }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    static const net::Endpoint place{net::Address::v4(0x01020304), 80};
    static const auto http = net::proxy_questions(net::Proxy::Kind::kHttp, place), socks = net::proxy_questions(net::Proxy::Kind::kSocks5, place);
    const net::ProxyQuestion* const questions[] = {&http[0], &socks[0], &socks[1]};
    const auto read = questions[data[0] % std::size(questions)]->read;
    const base::ByteView bytes(data + 1, size - 1);
    const auto whole = read(bytes);
    check(whole.has_value() || bytes.size() < net::kMostProxyAnswerBytes);
    if (whole) {
        check((whole->error == 0) == whole->why.empty());
        check(whole->bytes <= bytes.size() && whole->bytes <= net::kMostProxyAnswerBytes);
        // All of it, and no byte more, is the same yes.
        if (whole->error == 0) check(whole->bytes > 0 && same(*read(bytes.first(whole->bytes)), *whole) && !read(bytes.first(whole->bytes - 1)));
    }
    const std::size_t step = 1 + bytes.size() / 64;
    for (std::size_t part = 0; part < bytes.size(); part += step) {
        const auto verdict = read(bytes.first(part));
        check(!verdict || (whole && same(*verdict, *whole)));
    }
    return 0;
}
