// A guest's question: what is understood of it has one name, no part of it is understood as a whole, and what it gets is an
// answer to it of a size that it can take.
#include <cstdlib>

#include "net/dns/message.h"
#include "net/name.h"

using namespace caisson;
using namespace caisson::net;

namespace {

constexpr std::uint32_t kMostAddresses = 60;

void check(bool fine) {
    if (!fine) std::abort();
}

void check_reply(const dns::Query& query) {
    dns::Reply reply{dns::Code::kNoError, {}, 60};
    // More than fit, one, or anything in between.
    const std::uint32_t count = 1 + query.id % kMostAddresses;
    for (std::uint32_t i = 0; i < count; ++i) {
        reply.addresses.push_back(Address::v4(0xc0000200u + i));
        reply.addresses.push_back(Address::v6({0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(i)}));
    }
    const auto built = dns::build_reply(query, reply, query.udp_bytes);
    check(built.size() <= query.udp_bytes && query.udp_bytes >= 512 && query.udp_bytes <= dns::kMostUdpAnswerBytes);
    if (query.name.empty()) return;
    const auto read = dns::parse_answer(built, query.id, query.name, query.type);
    const bool is_address = query.type == dns::Type::kA || query.type == dns::Type::kAaaa;
    if (!is_address) check(read.kind == dns::Answer::Kind::kNoData);
    else check(read.kind == dns::Answer::Kind::kTruncated || read.addresses.size() == count);
    check(dns::parse_answer(built, static_cast<std::uint16_t>(query.id ^ 1), query.name, query.type).kind == dns::Answer::Kind::kNotOurs);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const base::ByteView bytes(data, size);
    const auto parsed = dns::parse_query(bytes);
    if (auto* bad = std::get_if<dns::BadQuery>(&parsed)) {
        const auto reply = dns::build_reply(*bad);
        check(reply.has_value() == bad->id.has_value() && (!reply || reply->size() == 12));
        return 0;
    }
    const auto& query = std::get<dns::Query>(parsed);
    check(size <= dns::kMostQueryBytes);
    check(query.name.empty() || canonical_name(query.name) == query.name);
    check_reply(query);
    // Every part of a short question, of a long one some that its number chooses.
    const std::size_t step = 1 + size / 16;
    for (std::size_t part = query.id % step; part < size; part += step) check(std::holds_alternative<dns::BadQuery>(dns::parse_query(bytes.first(part))));
    return 0;
}
