// caisson net suggest: from what a box wanted to a policy.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "cli/json_text.h"
#include "cli/net_suggest.h"
#include "net/host.h"

namespace caisson::cli {

using nlohmann::json;
using nlohmann::ordered_json;

namespace {

struct SuggestArguments {
    std::string box, format;
};

std::string text_at(const json& details, const char* key) {
    const auto found = details.find(key);
    return found != details.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::int64_t number_at(const json& details, const char* key) {
    const auto found = details.find(key);
    return found != details.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

bool is_set(const json& details, const char* key) {
    const auto found = details.find(key);
    return found != details.end() && found->is_boolean() && found->get<bool>();
}

std::vector<net::Address> addresses_at(const json& details, const char* key) {
    std::vector<net::Address> addresses;
    for (const auto& word : base::split(text_at(details, key), ' '))
        if (const auto address = net::Address::parse(word)) addresses.push_back(*address);
    return addresses;
}

void add_connection(net::Wishes& wishes, const std::string& kind, const json& details, bool learns) {
    const auto address = net::Address::parse(text_at(details, "address"));
    const auto port = number_at(details, "port");
    // Connections from outside are no wish of the box's.
    if (!address || port < 1 || port > 65535 || is_set(details, "published")) return;
    net::Wishes::Connection connection;
    connection.target = {*address, static_cast<std::uint16_t>(port)};
    connection.protocol = text_at(details, "protocol") == "udp" ? net::Protocol::kUdp : net::Protocol::kTcp;
    connection.name = text_at(details, "name");
    // What could not be made was not read.
    connection.looked = learns && kind == "connection_allowed";
    connection.denied = kind == "connection_denied";
    connection.rule = text_at(details, "rule");
    connection.reason = text_at(details, "reason");
    wishes.add(connection);
}

void add_question(net::Wishes& wishes, const json& details) {
    wishes.add({.name = text_at(details, "name"), .denied = text_at(details, "verdict") == "denied", .addresses = addresses_at(details, "addresses"),
                .dropped = addresses_at(details, "dropped")});
}

std::string json_of(const net::Suggestion& suggestion, std::int64_t left_out) {
    auto rules = ordered_json::array(), refused = ordered_json::array();
    for (const auto& reason : suggestion.reasons) rules.push_back({{"rule", reason.rule}, {"wanted", reason.wanted}});
    for (const auto& [target, reason] : suggestion.refused) refused.push_back({{"target", target}, {"reason", reason}});
    const ordered_json document{{"policy", ordered_json::parse(suggestion.policy.to_json())}, {"rules", rules}, {"refused", refused}, {"left_out", left_out}};
    return json_text(document, 2) + "\n";
}

// The policy alone goes to a file; what there is to say about it goes to people.
void tell(const net::Suggestion& suggestion, std::int64_t left_out) {
    for (const auto& [target, reason] : suggestion.refused) std::fprintf(stderr, "caisson: not suggested: %s: %s\n", base::printable(target).c_str(), base::printable(reason).c_str());
    if (left_out > 0)
        std::fprintf(stderr, "caisson: %lld entries were left out of the journal, so there may be more; a box that is run with --net-learn keeps each target\n", static_cast<long long>(left_out));
    const auto text = json_text(ordered_json::parse(suggestion.policy.to_json()), 2) + "\n";
    std::fwrite(text.data(), 1, text.size(), stdout);
}

Result<int> suggest(Context& context, const SuggestArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    auto runtime = CAISSON_TRY(open_runtime(context));
    const auto details = CAISSON_TRY(runtime.inspect(arguments.box));
    if (details.network_policy.empty())
        return base::failure(Errc::kNotFound, "the box " + details.info.name + " has no network, so it could reach nothing", "run it with --net-learn");
    const auto host = net::host_addresses();
    net::Wishes wishes(CAISSON_TRY(net::Policy::parse(details.network_policy)), {host.begin(), host.end()});
    std::int64_t left_out = 0;
    AuditQuery query;
    query.box = details.info.id;
    query.kinds = {"connection_allowed", "connection_denied", "connection_failed", "name_asked", "network_events_left_out"};
    CAISSON_TRY(runtime.audit(query, [&](const AuditEvent& event) -> Result<bool> {
        left_out += add_network_entry(wishes, event, details.network_learn);
        return true;
    }));
    const auto suggestion = CAISSON_TRY_CTX(wishes.suggest(), "what the box " + details.info.name + " wanted");
    if (!as_json) tell(suggestion, left_out);
    else if (const auto text = json_of(suggestion, left_out); std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) return base::failure_errno("cannot write");
    return 0;
}

}  // namespace

std::int64_t add_network_entry(net::Wishes& wishes, const AuditEvent& event, bool learns) {
    const auto details = json::parse(event.details, nullptr, false);
    if (!details.is_object()) return 0;
    if (event.kind == "network_events_left_out") return number_at(details, "count");
    if (event.kind == "name_asked") add_question(wishes, details);
    else if (event.kind.starts_with("connection_")) add_connection(wishes, event.kind, details, learns);
    return 0;
}

void add_network_suggest(CLI::App& group, Action& action) {
    auto arguments = std::make_shared<SuggestArguments>();
    auto* command = group.add_subcommand("suggest", "Write the smallest policy that allows what a box wanted");
    command->footer("Examples:\n  caisson run --name build --net-learn alpine make\n  caisson net suggest build > policy.json\n  caisson run --net-policy policy.json alpine make\n\n"
                    "From the box's journal: what it asked for and connected to, refused or not. What its policy denies by a rule, and what was\n"
                    "refused for being metadata, a private network or the host, is named on stderr and not suggested.");
    command->add_option("BOX", arguments->box, "Name, id or beginning of an id")->required();
    command->add_option("--format", arguments->format, "text (a policy file) or json (with what each rule is for, and what was refused)")->type_name("FORMAT");
    command->callback([arguments, &action] { action = [arguments](Context& context) { return suggest(context, *arguments); }; });
}

}  // namespace caisson::cli
