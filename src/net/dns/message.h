// DNS messages (RFC 1035, EDNS: RFC 6891), as far as a box needs them: questions for addresses and their answers. Pure.
// What is read is never passed on: answers are built from nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "net/address.h"
#include "net/dns/limits.h"

namespace caisson::net::dns {

// Any other number may stand in it too.
enum class Type : std::uint16_t { kA = 1, kCname = 5, kSoa = 6, kPtr = 12, kAaaa = 28, kOpt = 41, kSvcb = 64, kHttps = 65 };
// "A", "HTTPS", "TYPE257".
std::string to_string(Type type);

enum class Code : std::uint8_t { kNoError = 0, kFormatError = 1, kServerFailure = 2, kNoSuchName = 3, kNotImplemented = 4, kRefused = 5 };

// ---- questions ----
struct Query {
    std::uint16_t id = 0;
    // See canonical_name(). Empty: the root or a name that no host has, whose answer is that it does not exist.
    std::string name;
    bool is_root = false;
    Type type = Type::kA;
    bool recursion_desired = false;
    bool edns = false;
    // The largest answer that fits a datagram: 512 without EDNS, else what it says, but at least 512 and at most kMostUdpAnswerBytes.
    std::size_t udp_bytes = 512;
    base::Bytes question;  // its bytes, since the answer must repeat how the letters were written
};
// No question that can be answered from what is known.
struct BadQuery {
    std::optional<std::uint16_t> id;  // none: it gets no answer (too short, or itself an answer)
    Code code = Code::kFormatError;
};
std::variant<Query, BadQuery> parse_query(base::ByteView bytes);

// A question for an upstream server. `name`: of canonical_name(). With EDNS it says that kMostUdpAnswerBytes fit.
base::Bytes build_query(std::uint16_t id, std::string_view name, Type type, bool edns);

// ---- answers ----
struct Answer {
    enum class Kind : std::uint8_t {
        kAddresses,
        kNoData,      // the name exists and has no such address
        kNoSuchName,
        kFailed,      // `code` says how
        kTruncated,   // to be asked again over TCP
        kNotOurs,     // it answers another question: as if it had not come
        kMalformed,   // it answers ours and breaks the rules
    };
    Kind kind = Kind::kMalformed;
    Code code = Code::kNoError;
    std::vector<Address> addresses;  // of `type`, at most kMostAnswerAddresses, no two alike
    std::uint32_t ttl = 0;           // seconds, the least of all records that led to them; not clamped
};
// The answer to build_query(id, name, type). Only addresses of `name`, or of what its aliases lead to, are taken.
Answer parse_answer(base::ByteView bytes, std::uint16_t id, std::string_view name, Type type);

// What a guest hears. kNoError without addresses: the name has none of this type.
struct Reply {
    Code code = Code::kServerFailure;
    std::vector<Address> addresses;  // those of the query's type are sent
    std::uint32_t ttl = 0;           // is clamped to kShortestTtl..kLongestTtl
};
// `most_bytes`: query.udp_bytes, or 65535 over TCP. What does not fit is left out whole, with TC.
base::Bytes build_reply(const Query& query, const Reply& reply, std::size_t most_bytes);
// nullopt: it gets none.
std::optional<base::Bytes> build_reply(const BadQuery& query);

// ---- the host's own servers ----
// The servers that the text of a resolv.conf(5) names, at port 53, no two alike, at most kMostServers; what is no address,
// the unspecified one or one with a zone is left out.
std::vector<Endpoint> parse_resolv_conf(std::string_view text);
// "ADDRESS", at port 53, or "ADDRESS:PORT"; IPv6 with a port takes brackets. Errors: kUsage.
Result<Endpoint> parse_server(std::string_view text);

}  // namespace caisson::net::dns
