// A name server's answer: only addresses of the family that was asked for, a limited number of them, and passed on they are
// the same. The first byte chooses the family; the message's own id is the expected one.
#include <algorithm>
#include <cstdlib>

#include "net/dns/message.h"

using namespace caisson;
using namespace caisson::net;

namespace {

constexpr const char* kName = "a.test";

void check(bool fine) {
    if (!fine) std::abort();
}

void check_addresses(const dns::Answer& answer, dns::Type type) {
    check(answer.kind == dns::Answer::Kind::kAddresses || answer.addresses.empty());
    check(answer.addresses.size() <= dns::kMostAnswerAddresses && answer.ttl <= 0x7fffffff);
    std::vector<Address> sorted = answer.addresses;
    std::sort(sorted.begin(), sorted.end());
    check(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end());
    if (type == dns::Type::kA) check(std::all_of(sorted.begin(), sorted.end(), [](const Address& address) { return address.is_v4(); }));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 3) return 0;
    const auto type = (data[0] & 1) == 0 ? dns::Type::kA : dns::Type::kAaaa;
    const base::ByteView bytes(data + 1, size - 1);
    const auto id = static_cast<std::uint16_t>(bytes[0] << 8 | bytes[1]);
    const auto answer = dns::parse_answer(bytes, id, kName, type);
    check_addresses(answer, type);
    check(dns::parse_answer(bytes, static_cast<std::uint16_t>(id + 1), kName, type).kind == dns::Answer::Kind::kNotOurs);
    if (answer.kind != dns::Answer::Kind::kNotOurs) check(dns::parse_answer(bytes, id, "b.test", type).addresses.empty());
    if (answer.kind != dns::Answer::Kind::kAddresses) return 0;
    const auto query = std::get<dns::Query>(dns::parse_query(dns::build_query(id, kName, type, true)));
    const auto passed_on = dns::parse_answer(dns::build_reply(query, {dns::Code::kNoError, answer.addresses, answer.ttl}, 65535), id, kName, type);
    const bool has_mapped =
        type == dns::Type::kAaaa && std::any_of(answer.addresses.begin(), answer.addresses.end(),
                                                [](const Address& address) { return address.is_v4(); });
    check(has_mapped || passed_on.addresses.size() == answer.addresses.size());
    check(passed_on.kind == dns::Answer::Kind::kNoData || (passed_on.ttl >= dns::kShortestTtl && passed_on.ttl <= dns::kLongestTtl));
    return 0;
}
