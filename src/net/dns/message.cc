#include "net/dns/message.h"

#include <algorithm>
#include <map>

#include "base/text.h"
#include "net/name.h"
#include "net/reader.h"

namespace caisson::net::dns {

namespace {

constexpr std::size_t kHeaderBytes = 12, kPlainUdpBytes = 512;
constexpr std::uint16_t kClassIn = 1, kPort = 53;
// Bits of the second word of a header, RFC 1035 4.1.1.
constexpr std::uint16_t kResponse = 0x8000, kOpcodes = 0x7800, kTruncatedBit = 0x0200, kWantsRecursion = 0x0100,
                        kHasRecursion = 0x0080, kCodes = 0x000f;

struct Header {
    std::uint16_t id, bits;
    std::uint16_t questions, answers, authorities, additionals;
};
Header read_header(Reader& reader) {
    const auto word = [&] { return static_cast<std::uint16_t>(reader.number(2)); };
    Header header{};
    header.id = word();
    header.bits = word();
    header.questions = word();
    header.answers = word();
    header.authorities = word();
    header.additionals = word();
    return header;
}

void put(base::Bytes& bytes, std::size_t width, std::uint32_t value) {
    for (std::size_t i = width; i-- > 0;) bytes.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}
void put_header(base::Bytes& bytes, const Header& header) {
    for (const auto word : {header.id, header.bits, header.questions, header.answers, header.authorities, header.additionals}) put(bytes, 2, word);
}
void put_name(base::Bytes& bytes, std::string_view name) {
    while (!name.empty()) {
        const auto label = name.substr(0, name.find('.'));
        put(bytes, 1, static_cast<std::uint32_t>(label.size()));
        base::append(bytes, base::as_bytes(label));
        name.remove_prefix(std::min(name.size(), label.size() + 1));
    }
    put(bytes, 1, 0);
}
// RFC 6891 6.1.2; an extended code or options are never needed.
void put_edns(base::Bytes& bytes) {
    put(bytes, 1, 0);
    put(bytes, 2, static_cast<std::uint16_t>(Type::kOpt));
    put(bytes, 2, kMostUdpAnswerBytes);
    put(bytes, 4, 0);
    put(bytes, 2, 0);
}

// A name as labels with dots, letters as they are, other bytes too: "" is the root. A dot within a label makes it a name
// that nobody has (one byte that canonical_name() refuses), so that it is not mistaken for two labels.
struct WireName {
    std::string text;
    bool is_good = false;
};

// false: the name gets too long.
bool add_label(WireName& name, base::ByteView label) {
    if (!name.text.empty()) name.text += '.';
    if (name.text.size() + label.size() > kLongestName) return false;
    for (const auto byte : label) name.text += byte == '.' ? '\0' : static_cast<char>(byte);
    return true;
}

// From the reader, which stays behind it. Pointers (RFC 1035 4.1.4) are followed in `message` if there is one, only
// towards its front, so that none of them can lead back to where it was.
WireName read_name(Reader& reader, std::optional<base::ByteView> message) {
    WireName name;
    Reader* from = &reader;
    Reader elsewhere({});
    std::size_t pointers = 0;
    // Where the bytes that are read begin: a pointer must lead before them.
    std::size_t begin = message ? message->size() - reader.rest().size() : 0;
    while (true) {
        const auto length = from->number(1);
        if (from->failed()) return {};
        if (length >= 0xc0) {
            const std::size_t target = (length & 0x3f) << 8 | from->number(1);
            if (from->failed() || !message || target >= begin || ++pointers > kMostPointers) return {};
            begin = target;
            elsewhere = Reader(message->subspan(target));
            from = &elsewhere;
            continue;
        }
        if (length > kLongestLabel) return {};
        if (length == 0) break;
        const auto label = from->take(length);
        if (from->failed() || !add_label(name, label)) return {};
    }
    name.is_good = true;
    return name;
}

// What stands before a record's data.
struct Record {
    std::string owner;  // canonical; empty: of no host
    std::uint16_t type = 0, record_class = 0;
    std::uint32_t ttl = 0;
    base::ByteView data;
};
std::optional<Record> read_record(Reader& reader, base::ByteView message) {
    const auto owner = read_name(reader, message);
    if (!owner.is_good) return std::nullopt;
    Record record;
    record.owner = canonical_name(owner.text).value_or("");
    record.type = static_cast<std::uint16_t>(reader.number(2));
    record.record_class = static_cast<std::uint16_t>(reader.number(2));
    record.ttl = reader.number(4);
    if (record.ttl > 0x7fffffff) record.ttl = 0;  // RFC 2181 8
    record.data = reader.counted(2);
    if (reader.failed()) return std::nullopt;
    return record;
}

// The OPT record behind a question: nothing else may stand there.
bool read_query_edns(Reader& reader, Query& query) {
    if (reader.number(1) != 0 || reader.number(2) != static_cast<std::uint16_t>(Type::kOpt)) return false;
    const std::size_t size = reader.number(2);
    reader.number(4);  // extended code, version, flags: nothing of them changes an answer
    reader.counted(2);
    query.edns = true;
    query.udp_bytes = std::clamp(size, kPlainUdpBytes, kMostUdpAnswerBytes);
    return !reader.failed();
}

}  // namespace

std::string to_string(Type type) {
    static const std::map<std::uint16_t, const char*> names{
        {1, "A"},     {2, "NS"},    {5, "CNAME"},  {6, "SOA"},    {12, "PTR"}, {15, "MX"},
        {16, "TXT"},  {28, "AAAA"}, {33, "SRV"},   {35, "NAPTR"}, {43, "DS"},  {48, "DNSKEY"},
        {52, "TLSA"}, {64, "SVCB"}, {65, "HTTPS"}, {255, "ANY"},  {257, "CAA"}};
    const auto found = names.find(static_cast<std::uint16_t>(type));
    return found != names.end() ? found->second : "TYPE" + std::to_string(static_cast<unsigned>(type));
}

std::variant<Query, BadQuery> parse_query(base::ByteView bytes) {
    Reader reader(bytes);
    const auto header = read_header(reader);
    if (reader.failed() || (header.bits & kResponse) != 0) return BadQuery{};
    if ((header.bits & kOpcodes) != 0) return BadQuery{header.id, Code::kNotImplemented};
    const BadQuery damaged{header.id, Code::kFormatError};
    if (bytes.size() > kMostQueryBytes || header.questions != 1 || header.answers != 0 || header.authorities != 0 ||
        header.additionals > 1)
        return damaged;
    Query query;
    query.id = header.id;
    query.recursion_desired = (header.bits & kWantsRecursion) != 0;
    const auto name = read_name(reader, std::nullopt);
    query.type = static_cast<Type>(reader.number(2));
    const auto query_class = reader.number(2);
    if (!name.is_good || reader.failed() || query.type == Type::kOpt) return damaged;
    if (query_class != kClassIn) return BadQuery{header.id, Code::kNotImplemented};
    query.question.assign(bytes.begin() + kHeaderBytes, bytes.end() - static_cast<std::ptrdiff_t>(reader.rest().size()));
    query.is_root = name.text.empty();
    query.name = canonical_name(name.text).value_or("");
    if (header.additionals == 1 && !read_query_edns(reader, query)) return damaged;
    if (!reader.is_done()) return damaged;
    return query;
}

base::Bytes build_query(std::uint16_t id, std::string_view name, Type type, bool edns) {
    base::Bytes bytes;
    put_header(bytes, {id, kWantsRecursion, 1, 0, 0, static_cast<std::uint16_t>(edns ? 1 : 0)});
    put_name(bytes, name);
    put(bytes, 2, static_cast<std::uint16_t>(type));
    put(bytes, 2, kClassIn);
    if (edns) put_edns(bytes);
    return bytes;
}

namespace {

// The records of an answer that matter, by whom they are of.
struct Collected {
    struct Alias {
        std::string target;
        std::uint32_t ttl;
    };
    struct Found {
        Address address;
        std::uint32_t ttl;
    };
    std::map<std::string, Alias> aliases;
    std::multimap<std::string, Found> addresses;
};

bool collect(const Record& record, base::ByteView message, Type type, Collected& into) {
    if (record.record_class != kClassIn || record.owner.empty()) return true;
    if (record.type == static_cast<std::uint16_t>(Type::kCname)) {
        // The whole message from the start of the data on, since the name in it may be compressed.
        const auto offset = static_cast<std::size_t>(record.data.data() - message.data());
        Reader data(message.subspan(offset).first(record.data.size()));
        const auto target = read_name(data, message.first(offset + record.data.size()));
        if (!target.is_good || !data.is_done()) return false;
        const auto canonical = canonical_name(target.text).value_or("");
        const auto [at, is_new] = into.aliases.emplace(record.owner, Collected::Alias{canonical, record.ttl});
        return is_new || at->second.target == canonical;  // a name is an alias of one other
    }
    if (record.type != static_cast<std::uint16_t>(type)) return true;
    if (type == Type::kA && record.data.size() == 4) {
        into.addresses.emplace(record.owner, Collected::Found{Address::v4(base::load_be32(record.data.data())), record.ttl});
        return true;
    }
    if (type == Type::kAaaa && record.data.size() == 16) {
        std::array<std::uint8_t, 16> six;
        std::copy(record.data.begin(), record.data.end(), six.begin());
        into.addresses.emplace(record.owner, Collected::Found{Address::v6(six), record.ttl});
        return true;
    }
    return false;
}

// From the name that was asked for, along its aliases, to the addresses.
Answer follow(const Collected& collected, std::string name) {
    Answer answer;
    std::uint32_t ttl = 0x7fffffff;
    for (std::size_t aliases = 0; collected.addresses.count(name) == 0; ++aliases) {
        const auto alias = collected.aliases.find(name);
        if (alias == collected.aliases.end()) {
            answer.kind = Answer::Kind::kNoData;
            answer.ttl = aliases > 0 ? ttl : 0;
            return answer;
        }
        if (aliases == kMostAliases) return answer;  // also: a loop
        name = alias->second.target;
        ttl = std::min(ttl, alias->second.ttl);
    }
    const auto [begin, end] = collected.addresses.equal_range(name);
    for (auto at = begin; at != end; ++at) {
        ttl = std::min(ttl, at->second.ttl);
        const bool is_known = std::find(answer.addresses.begin(), answer.addresses.end(), at->second.address) != answer.addresses.end();
        if (!is_known && answer.addresses.size() < kMostAnswerAddresses) answer.addresses.push_back(at->second.address);
    }
    answer.kind = Answer::Kind::kAddresses;
    answer.ttl = ttl;
    return answer;
}

// Whether the question of an answer is the one that was asked.
bool is_question(Reader& reader, base::ByteView message, std::string_view name, Type type) {
    const auto asked = read_name(reader, message);
    const auto asked_type = reader.number(2), asked_class = reader.number(2);
    return asked.is_good && !reader.failed() && canonical_name(asked.text) == name &&
           asked_type == static_cast<std::uint16_t>(type) && asked_class == kClassIn;
}

Answer of_kind(Answer::Kind kind, Code code = Code::kNoError) {
    Answer answer;
    answer.kind = kind;
    answer.code = code;
    return answer;
}

}  // namespace

Answer parse_answer(base::ByteView bytes, std::uint16_t id, std::string_view name, Type type) {
    using Kind = Answer::Kind;
    Reader reader(bytes);
    const auto header = read_header(reader);
    if (reader.failed() || header.id != id || (header.bits & kResponse) == 0 || (header.bits & kOpcodes) != 0) return of_kind(Kind::kNotOurs);
    const auto code = static_cast<Code>(header.bits & kCodes);
    // Servers that do not understand a question may leave it out.
    if (header.questions == 0 && header.answers == 0 && code != Code::kNoError && code != Code::kNoSuchName) return of_kind(Kind::kFailed, code);
    if (header.questions != 1 || !is_question(reader, bytes, name, type)) return of_kind(Kind::kNotOurs);
    if ((header.bits & kTruncatedBit) != 0) return of_kind(Kind::kTruncated);
    if (code == Code::kNoSuchName) return of_kind(Kind::kNoSuchName, code);
    if (code != Code::kNoError) return of_kind(Kind::kFailed, code);
    if (header.answers > kMostAnswerRecords) return of_kind(Kind::kMalformed);
    Collected collected;
    for (std::size_t i = 0; i < header.answers; ++i) {
        const auto record = read_record(reader, bytes);
        if (!record || !collect(*record, bytes, type, collected)) return of_kind(Kind::kMalformed);
    }
    return follow(collected, std::string(name));
}

base::Bytes build_reply(const Query& query, const Reply& reply, std::size_t most_bytes) {
    const std::size_t address_bytes = query.type == Type::kA ? 4 : 16;
    std::vector<Address> sent;
    for (const auto& address : reply.addresses)
        if ((query.type == Type::kA && address.is_v4()) || (query.type == Type::kAaaa && !address.is_v4())) sent.push_back(address);
    // Each record: a pointer to the question's name, type, class, TTL, length, data.
    const std::size_t record_bytes = 2 + 2 + 2 + 4 + 2 + address_bytes;
    const std::size_t frame = kHeaderBytes + query.question.size() + (query.edns ? 11 : 0);
    const std::size_t room = most_bytes > frame ? (most_bytes - frame) / record_bytes : 0;
    const bool is_cut = sent.size() > room;
    if (is_cut) sent.clear();  // what is left would be taken for the whole by clients that do not ask again
    std::uint16_t bits = kResponse | kHasRecursion | static_cast<std::uint16_t>(reply.code);
    if (query.recursion_desired) bits |= kWantsRecursion;
    if (is_cut) bits |= kTruncatedBit;
    base::Bytes bytes;
    put_header(bytes, {query.id, bits, 1, static_cast<std::uint16_t>(sent.size()), 0, static_cast<std::uint16_t>(query.edns ? 1 : 0)});
    base::append(bytes, query.question);
    for (const auto& address : sent) {
        put(bytes, 2, 0xc000 | kHeaderBytes);
        put(bytes, 2, static_cast<std::uint16_t>(query.type));
        put(bytes, 2, kClassIn);
        put(bytes, 4, std::clamp(reply.ttl, kShortestTtl, kLongestTtl));
        put(bytes, 2, static_cast<std::uint32_t>(address_bytes));
        base::append(bytes, base::ByteView(address.bytes()).last(address_bytes));
    }
    if (query.edns) put_edns(bytes);
    return bytes;
}

std::optional<base::Bytes> build_reply(const BadQuery& query) {
    if (!query.id) return std::nullopt;
    base::Bytes bytes;
    put_header(bytes, {*query.id, static_cast<std::uint16_t>(kResponse | kHasRecursion | static_cast<std::uint16_t>(query.code)), 0, 0, 0, 0});
    return bytes;
}

std::vector<Endpoint> parse_resolv_conf(std::string_view text) {
    std::vector<Endpoint> servers;
    for (const auto& line : base::split(text, '\n')) {
        auto rest = std::string_view(line);
        constexpr std::string_view kWord = "nameserver";
        // The word begins its line, resolv.conf(5).
        if (!rest.starts_with(kWord)) continue;
        rest.remove_prefix(kWord.size());
        if (rest.empty() || (rest.front() != ' ' && rest.front() != '\t')) continue;
        rest = base::trim(rest);
        rest = rest.substr(0, rest.find_first_of(" \t\r#;"));
        const auto address = Address::parse(rest);
        const Endpoint server{address.value_or(Address()), kPort};
        if (!address || *address == Address() || *address == Address::v4(0) ||
            std::find(servers.begin(), servers.end(), server) != servers.end())
            continue;
        if (servers.size() < kMostServers) servers.push_back(server);
    }
    return servers;
}

Result<Endpoint> parse_server(std::string_view text) {
    if (auto address = Address::parse(text)) return Endpoint{*address, kPort};
    const auto colon = text.rfind(':');
    const auto port = base::parse_u64(colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1));
    auto host = text.substr(0, colon);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    const auto address = Address::parse(host);
    if (!address || bracketed == address->is_v4() || !port || *port == 0 || *port > 65535)
        return base::failure(Errc::kUsage, "'" + base::printable(text, 100) + "' is no name server", "write ADDRESS or ADDRESS:PORT; an IPv6 address with a port takes brackets");
    return Endpoint{*address, static_cast<std::uint16_t>(*port)};
}

}  // namespace caisson::net::dns
