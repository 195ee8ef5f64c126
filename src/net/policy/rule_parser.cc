// The grammar of rules, and what is said to who got it wrong.
#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/text.h"
#include "net/policy/limits.h"
#include "net/name.h"
#include "net/policy/rule.h"
#include "net/policy/special.h"

namespace caisson::net {

using base::Failure;

namespace {

constexpr unsigned kV4Bits = 32;
constexpr std::uint16_t kQuicPort = 443, kLastPort = 65535;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_of(std::string_view text, std::string_view characters) {
    return text.find_first_not_of(characters) == std::string_view::npos;
}

std::optional<unsigned> parse_number(std::string_view text, unsigned most) {
    unsigned number = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
    if (text.empty() || read.ec != std::errc{} || read.ptr != text.data() + text.size() || number > most) return std::nullopt;
    return number;
}

Address masked(const Address& address, unsigned bits) {
    auto bytes = address.bytes();
    for (unsigned bit = bits; bit < kAllBits; ++bit) bytes[bit / 8] = static_cast<std::uint8_t>(bytes[bit / 8] & ~(0x80u >> bit % 8));
    return Address::v6(bytes);
}

std::string range_text(const Address& first, unsigned bits) {
    if (bits == kAllBits) return first.to_string();
    const bool is_v4 = bits >= kMappedBits && first.is_v4();
    return first.to_string() + "/" + std::to_string(is_v4 ? bits - kMappedBits : bits);
}

// What a program that reads addresses generously makes of this; empty: nothing.
std::string as_loose_address(const std::string& host) {
    in_addr four{};
    return ::inet_aton(host.c_str(), &four) == 1 ? Address::v4(ntohl(four.s_addr)).to_string() : "";
}

}  // namespace

// Takes the text apart from its front: host, prefix length, ports, protocol.
class RuleParser {
  public:
    RuleParser(std::string_view text, Effect effect) : whole_(text), rest_(text) { rule_.effect_ = effect; }

    Result<Rule> parse() {
        CAISSON_TRY(check_whole());
        CAISSON_TRY(take_host());
        CAISSON_TRY(take_ports());
        CAISSON_TRY(take_protocol());
        CAISSON_TRY(settle());
        rule_.text_ = canonical();
        return std::move(rule_);
    }

  private:
    bool allows() const { return rule_.effect_ == Effect::kAllow; }
    Failure wrong(const std::string& why, const std::string& instead) const {
        return base::failure(Errc::kUsage, "rule \"" + base::printable(whole_, limits::kLongestRule) + "\": " + why, instead);
    }

    Result<> check_whole() const {
        if (whole_.empty()) return base::failure(Errc::kUsage, "a rule is empty", "write a name, an address or a range, such as api.example.com");
        if (whole_.size() > limits::kLongestRule)
            return base::failure(Errc::kLimit, "a rule has " + std::to_string(whole_.size()) + " bytes (the limit is " +
                                                   std::to_string(limits::kLongestRule) + "): " + base::printable(whole_, 60) + "...",
                                 "write one rule for each host");
        if (std::any_of(whole_.begin(), whole_.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }))
            return wrong("it has letters outside ASCII", "write the name as DNS has it, with xn--");
        if (std::any_of(whole_.begin(), whole_.end(), [](char c) { return c <= ' ' || c == 0x7f; }))
            return wrong("it has a space or a control character", "give each rule in an option of its own");
        if (const auto scheme = whole_.find("://"); scheme != std::string_view::npos) {
            const auto host = whole_.substr(scheme + 3, whole_.find('/', scheme + 3) - scheme - 3);
            return wrong("it is a URL, and rules are about hosts", "write " + (host.empty() ? "its host" : std::string(host)));
        }
        if (whole_.find(',') != std::string_view::npos)
            return wrong("it is a list", "give each rule in an option of its own, one host and one port or range of ports each");
        return {};
    }

    // ---- the host ----
    Result<> take_host() {
        if (rest_.starts_with('[')) return take_bracketed();
        const auto head = rest_.substr(0, rest_.find('/'));
        if (std::count(head.begin(), head.end(), ':') > 1) return take_v6();
        const auto end = std::min(rest_.find_first_of(":/"), rest_.size());
        const auto host = rest_.substr(0, end);
        rest_.remove_prefix(end);
        if (host.empty()) return wrong("it has no host", "write the host before the port");
        if (host.find('*') != std::string_view::npos) return set_below(host);
        if (const auto address = Address::parse(host)) return take_range(*address, kV4Bits);
        if (rest_.size() > 1 && rest_[0] == '/' && is_digit(rest_[1]))
            return wrong("only addresses have a length behind a /", "leave " + std::string(rest_) + " out, or write an address");
        return set_name(host);
    }

    Result<> take_bracketed() {
        const auto end = rest_.find(']');
        if (end == std::string_view::npos) return wrong("its [ has no ]", "write [ADDRESS]:PORT");
        auto inner = rest_.substr(1, end - 1);
        const auto after = rest_.substr(end + 1);
        const auto slash = inner.find('/');
        const auto text = inner.substr(0, slash);
        const auto address = Address::parse(text);
        if (!address || text.find(':') == std::string_view::npos)
            return wrong("in brackets there is no IPv6 address", "write [2001:db8::1]:443, and names and IPv4 addresses without brackets");
        if (after.size() > 1 && after[0] == '/' && is_digit(after[1]))
            return wrong("the length stands outside of the brackets",
                         "write [" + std::string(inner) + std::string(after.substr(0, after.find(':'))) + "]");
        if (!after.empty() && after[0] != ':' && after[0] != '/') return wrong("after ] comes neither : nor /", "write [ADDRESS]:PORT");
        rest_ = slash == std::string_view::npos ? std::string_view() : inner.substr(slash);
        CAISSON_TRY(take_range(*address, kAllBits));
        if (!rest_.empty()) return wrong("in brackets there is more than an address and its length", "write ports and protocol after the ]");
        rest_ = after;
        return {};
    }

    Result<> take_v6() {
        const auto end = std::min(rest_.find('/'), rest_.size());
        const auto text = rest_.substr(0, end);
        const auto address = Address::parse(text);
        if (!address && text.find('%') != std::string_view::npos) return wrong("an address has no zone here", "leave % and what follows out");
        if (!address && is_of(text, "0123456789abcdefABCDEF:."))
            return wrong("this is no IPv6 address", "check its groups; with a port, write [ADDRESS]:PORT");
        if (!address) return wrong("it has more than one ':'", "write NAME:PORT or NAME:FROM-TO, or an IPv6 address in brackets");
        rest_.remove_prefix(end);
        return take_range(*address, kAllBits);
    }

    // `rest_` may go on with a prefix length, which counts up to `longest`: 32 where an IPv4 address was written as one.
    Result<> take_range(const Address& address, unsigned longest) {
        unsigned bits = kAllBits;
        if (rest_.size() > 1 && rest_[0] == '/' && is_digit(rest_[1])) {
            rest_.remove_prefix(1);
            const auto end = std::min(rest_.find_first_of(":/"), rest_.size());
            const auto number = parse_number(rest_.substr(0, end), longest);
            if (!number) return wrong("/" + std::string(rest_.substr(0, end)) + " is no length of a range", "write 0 to " + std::to_string(longest));
            rest_.remove_prefix(end);
            bits = kAllBits - longest + *number;
        }
        return set_range(address, bits);
    }

    Result<> set_range(const Address& address, unsigned bits) {
        const auto first = masked(address, bits);
        if (first != address)
            return wrong(address.to_string() + " is not the first address of that range",
                         "write " + range_text(first, bits) + " for the range, or " + address.to_string() + " for the one address");
        if (bits == kAllBits && (address == Address() || address == Address::v4(0)))
            return wrong("this is no address of anybody",
                         std::string("write ") + (address.is_v4() ? "0.0.0.0/0" : "::/0") + " for every address of the internet");
        rule_.host_ = Rule::Host::kRange;
        rule_.first_ = first;
        rule_.bits_ = bits;
        return {};
    }

    Result<> set_below(std::string_view host) {
        if (host == "*")
            return allows() ? wrong("'*' alone would be everything", "use --net public or --net open instead of rules")
                            : wrong("'*' alone would be everything", "use --net none, or allow only what is needed with --allow-net");
        if (!host.starts_with("*.") || host.find('*', 1) != std::string_view::npos)
            return wrong("'*' stands for whole parts of a name, once and at its front", "write *.example.com");
        const auto suffix = host.substr(2);
        CAISSON_TRY(set_name(suffix));
        if (rule_.name_.find('.') == std::string::npos)
            return wrong("it would cover every name below " + rule_.name_, "write at least two parts after the *, such as *.example." + rule_.name_);
        rule_.host_ = Rule::Host::kBelow;
        return {};
    }

    Result<> set_name(std::string_view host) {
        auto name = canonical_name(host);
        if (!name) return wrong_name(host);
        if (*name == "localhost" || is_below(*name, "localhost"))
            return wrong("in a box, " + *name + " is the box itself", "write host.caisson.internal for the host's loopback");
        rule_.host_ = *name == kHostName ? Rule::Host::kThisHost : Rule::Host::kName;
        rule_.name_ = std::move(*name);
        return {};
    }

    Failure wrong_name(std::string_view host) const {
        if (host.empty()) return wrong("it has no name", "write *.example.com, or a name");
        auto end = host;
        if (end.ends_with('.')) end.remove_suffix(1);
        if (end.empty() || end.front() == '.' || end.back() == '.' || end.find("..") != std::string_view::npos)
            return wrong("a part of the name is empty", "write exactly one dot between two parts");
        if (const auto loose = as_loose_address(std::string(end)); !loose.empty())
            return wrong("this is an address, in a spelling that programs understand differently", "write " + loose + " if that is meant");
        if (end.size() > kLongestName)
            return wrong("the name has more than " + std::to_string(kLongestName) + " letters", "names that long cannot be asked for");
        for (const auto& label : base::split(end, '.'))
            if (label.size() > kLongestLabel)
                return wrong("a part of the name has more than " + std::to_string(kLongestLabel) + " letters",
                             "names like that cannot be asked for");
        const auto last = end.substr(end.rfind('.') + 1);  // npos + 1 is the front
        if (is_of(last, "0123456789") || last.starts_with("0x") || last.starts_with("0X"))
            return wrong("a name does not end with a number", "write an address as four numbers from 0 to 255 without zeros before them");
        return wrong("this is neither a name nor an address", "names are of letters, digits, '-', '_' and dots");
    }

    // ---- ports and protocol ----
    Result<> take_ports() {
        if (!rest_.starts_with(':')) return {};
        rest_.remove_prefix(1);
        const auto end = std::min(rest_.find('/'), rest_.size());
        const auto text = rest_.substr(0, end);
        rest_.remove_prefix(end);
        has_ports_ = true;
        if (text.empty()) return wrong("no port follows the ':'", "write a port, FROM-TO, or *, or leave the ':' out");
        if (text == "*") return {};
        const auto dash = text.find('-');
        rule_.from_ = CAISSON_TRY(port(text.substr(0, dash)));
        rule_.to_ = dash == std::string_view::npos ? rule_.from_ : CAISSON_TRY(port(text.substr(dash + 1)));
        if (rule_.from_ > rule_.to_)
            return wrong("the ports run backwards", "write " + std::to_string(rule_.to_) + "-" + std::to_string(rule_.from_));
        return {};
    }

    Result<std::uint16_t> port(std::string_view text) const {
        if (text.empty()) return wrong("a port is missing", "write FROM-TO, such as 8000-8100");
        const auto number = parse_number(text, kLastPort);
        if (!number) return wrong("\"" + std::string(text) + "\" is no port", "write a number from 1 to 65535, or * for all");
        if (*number == 0) return wrong("there is no port 0", "ports begin at 1; write * for all");
        return static_cast<std::uint16_t>(*number);
    }

    Result<> take_protocol() {
        if (rest_.empty()) return {};
        const auto text = rest_.substr(1);
        if (rest_[0] != '/') return wrong("\"" + std::string(rest_) + "\" follows what should be its end", "write HOST:PORT/tcp");
        if (text.empty()) return wrong("nothing follows the '/'", "write tcp or udp, or leave the '/' out");
        if (text == "tcp" || text == "udp") {
            (text == "tcp" ? rule_.udp_ : rule_.tcp_) = false;
            has_protocol_ = true;
            return {};
        }
        if (is_digit(text[0]) && rule_.is_range() && has_ports_)
            return wrong("the length of a range comes before the port", "write ADDRESS/" + std::string(text.substr(0, text.find('/'))) + ":PORT");
        return wrong("\"" + std::string(text) + "\" is no protocol", "write tcp or udp");
    }

    bool all_ports() const { return rule_.from_ == 1 && rule_.to_ == kLastPort; }

    // What was left out.
    Result<> settle() {
        if (!allows()) return {};
        if (!rule_.is_range() && !has_ports_) {
            if (!rule_.tcp_)
                return wrong("it does not say which ports of UDP",
                             "write the port, such as " + host_text() + ":53/udp, or " + host_text() + ":*/udp");
            rule_.web_ = true;
            rule_.udp_ = false;
        }
        if (has_ports_ && !all_ports() && !has_protocol_) rule_.udp_ = false;
        const bool is_name = rule_.host_ == Rule::Host::kName || rule_.host_ == Rule::Host::kBelow;
        if (is_name && !rule_.tcp_ && rule_.from_ == kQuicPort && rule_.to_ == kQuicPort)
            return wrong("port 443 of UDP is QUIC, in which nobody sees the name",
                         "leave it out: clients take TCP instead; or allow an address with " + std::string("ADDRESS:443/udp"));
        return {};
    }

    std::string host_text() const {
        if (rule_.host_ == Rule::Host::kBelow) return "*." + rule_.name_;
        return rule_.is_range() ? range_text(rule_.first_, rule_.bits_) : rule_.name_;
    }

    std::string canonical() const {
        std::string ports;
        if (!all_ports()) ports = ":" + std::to_string(rule_.from_) + (rule_.from_ == rule_.to_ ? "" : "-" + std::to_string(rule_.to_));
        else if (allows() && !rule_.is_range() && !rule_.web_) ports = ":*";
        auto text = host_text();
        if (!ports.empty() && text.find(':') != std::string::npos) text = "[" + text + "]";
        const bool means_tcp = allows() && (rule_.web_ || !all_ports());  // without a protocol
        if (!rule_.tcp_) return text + ports + "/udp";
        return text + ports + (rule_.udp_ || means_tcp ? "" : "/tcp");
    }

    std::string_view whole_, rest_;
    Rule rule_;
    bool has_ports_ = false, has_protocol_ = false;
};

Result<Rule> Rule::parse(std::string_view text, Effect effect) { return RuleParser(text, effect).parse(); }

}  // namespace caisson::net
