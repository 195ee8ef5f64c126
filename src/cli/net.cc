// caisson net: what a box may reach.
#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "cli/json_text.h"
#include "cli/net_options.h"
#include "net/host.h"

namespace caisson::cli {

using base::failure;
using nlohmann::ordered_json;

namespace {

struct ExplainArguments {
    std::vector<std::string> words;  // [BOX] TARGET
    std::string resolved, format;
};

// HOST:PORT[/tcp|/udp]
struct Target {
    std::string name;  // empty: an address
    net::Endpoint endpoint;
    net::Protocol protocol = net::Protocol::kTcp;
    std::string to_string() const {
        return (name.empty() ? endpoint.to_string() : name + ":" + std::to_string(endpoint.port)) + "/" + net::to_string(protocol);
    }
};

base::Failure no_target(const std::string& text) {
    return failure(Errc::kUsage, "'" + base::printable(text, 300) + "' is no target",
                   "write NAME:PORT, IP:PORT or [IPV6]:PORT, with /udp if it is not TCP");
}

Result<Target> parse_target(const std::string& text) {
    Target target;
    std::string_view rest = text;
    if (rest.ends_with("/udp")) target.protocol = net::Protocol::kUdp;
    if (rest.ends_with("/udp") || rest.ends_with("/tcp")) rest.remove_suffix(4);
    const auto colon = rest.rfind(':');
    if (colon == std::string_view::npos) return no_target(text);
    const auto port = rest.substr(colon + 1);
    const auto read = std::from_chars(port.data(), port.data() + port.size(), target.endpoint.port);
    if (port.empty() || read.ec != std::errc{} || read.ptr != port.data() + port.size() || target.endpoint.port == 0) return no_target(text);
    auto host = rest.substr(0, colon);
    const bool bracketed = host.starts_with('[') && host.ends_with(']');
    if (bracketed) host = host.substr(1, host.size() - 2);
    const auto address = net::Address::parse(host);
    if (address && bracketed == (host.find(':') != std::string_view::npos)) {
        target.endpoint.address = *address;
        return target;
    }
    const auto name = net::canonical_name(host);
    if (address || bracketed || !name) return no_target(text);
    target.name = *name;
    return target;
}

struct Explained {
    net::Verdict verdict;
    std::optional<net::Verdict> question;  // of a name
    std::vector<std::string> notes;
};

Result<Explained> explain_name(const net::Policy& policy, const Target& target, const std::string& resolved) {
    Explained told{policy.judge_name(target.name, target.endpoint.port, target.protocol), policy.judge_question(target.name), {}};
    if (!told.verdict.allowed()) return told;
    if (target.name == net::kHostName) {
        if (!resolved.empty()) return failure(Errc::kUsage, target.name + " is not looked up", "leave --resolved out");
        return told;
    }
    if (policy.mode() == net::Mode::kRules)
        told.notes.emplace_back(
            net::Policy::shows_name(target.endpoint.port, target.protocol)
                ? "The connection must show this name, by TLS or HTTP; whatever address it was made to, caisson looks the name up and goes there."
                : "At this port connections show no name: the box must have asked for the name, and reaches the addresses that it was told.");
    if (resolved.empty()) {
        told.notes.emplace_back("Its addresses must be allowed as well; --resolved ADDRESS tells about one.");
        return told;
    }
    const auto address = net::Address::parse(resolved);
    if (!address)
        return failure(Errc::kUsage, "--resolved " + base::printable(resolved, 100) + " is no address",
                       "write an IPv4 or IPv6 address, without brackets");
    told.verdict = policy.judge_resolved(target.name, {*address, target.endpoint.port}, target.protocol);
    return told;
}

Result<Explained> explain_target(const net::Policy& policy, const Target& target, const std::string& resolved) {
    if (!target.name.empty()) return explain_name(policy, target, resolved);
    if (!resolved.empty()) return failure(Errc::kUsage, "--resolved is for names", "leave it out: " + target.to_string() + " is an address");
    Explained told{policy.judge_address(target.endpoint, target.protocol, net::Pins(), {}), std::nullopt, {}};
    if (told.verdict.answer == net::Verdict::Answer::kNeedsName) told.notes.emplace_back("Ask about NAME:PORT to see whether a name is allowed.");
    if (told.verdict.allowed() && told.verdict.looks) told.notes.emplace_back("A name that the connection shows must not be denied.");
    return told;
}

ordered_json to_json(const net::Verdict& verdict) {
    return {{"verdict", net::to_string(verdict.answer)}, {"rule", verdict.rule}, {"reason", verdict.reason}};
}

std::string json_of(const net::Policy& policy, const Target& target, const Explained& told) {
    ordered_json document{{"target", target.to_string()},
                          {"name", target.name.empty() ? ordered_json(nullptr) : ordered_json(target.name)},
                          {"address", target.name.empty() ? ordered_json(target.endpoint.address.to_string()) : ordered_json(nullptr)},
                          {"port", target.endpoint.port},
                          {"protocol", net::to_string(target.protocol)}};
    document.update(to_json(told.verdict));
    document["dns"] = told.question ? to_json(*told.question) : ordered_json(nullptr);
    document["notes"] = told.notes;
    document["policy"] = ordered_json::parse(policy.to_json());
    return json_text(document, 2) + "\n";
}

std::string shown(net::Verdict::Answer answer) {
    return answer == net::Verdict::Answer::kNeedsName ? "needs a name" : net::to_string(answer);
}

std::string text_of(const Target& target, const Explained& told) {
    std::string text = target.to_string() + ": " + shown(told.verdict.answer) + "\n  decided by: " + told.verdict.rule +
                       "\n  because: " + told.verdict.reason + "\n";
    if (told.question) text += "  asked by DNS: " + shown(told.question->answer) + ", decided by: " + told.question->rule + "\n";
    for (const auto& note : told.notes) text += "  " + note + "\n";
    return text;
}

// As it was recorded when the box was made.
Result<net::Policy> policy_of_box(Context& context, const std::string& box) {
    auto runtime = CAISSON_TRY(open_runtime(context));
    const auto details = CAISSON_TRY(runtime.inspect(box));
    return details.network_policy.empty() ? net::Policy::from_words({.net = "none"}) : net::Policy::parse(details.network_policy);
}

Result<int> explain(Context& context, const NetArguments& options, const ExplainArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    const bool of_box = arguments.words.size() > 1;
    if (of_box && options.given()) return failure(Errc::kUsage, "a box has a policy of its own", "leave out either the box or --net, --allow-net, --deny-net and --net-policy");
    const auto target = CAISSON_TRY(parse_target(arguments.words.back()));
    auto policy = of_box ? CAISSON_TRY(policy_of_box(context, arguments.words[0])) : CAISSON_TRY(net_policy(options));
    policy.set_host_addresses(net::host_addresses());
    const auto told = CAISSON_TRY(explain_target(policy, target, arguments.resolved));
    const auto text = as_json ? json_of(policy, target, told) : text_of(target, told);
    std::fwrite(text.data(), 1, text.size(), stdout);
    return 0;
}

void add_explain(CLI::App& group, Action& action) {
    auto options = std::make_shared<NetArguments>();
    auto arguments = std::make_shared<ExplainArguments>();
    auto* command = group.add_subcommand("explain", "Tell whether a policy allows a target, and which rule decides");
    command->footer("Examples:\n  caisson net explain 10.0.0.7:5432\n  caisson net explain --allow-net '*.example.com' api.example.com:443\n"
                    "  caisson net explain web 10.0.0.7:5432\n  caisson net explain --net-policy policy.json --format json '[2001:db8::1]:53/udp'\n\n"
                    "Nothing is looked up or connected to.");
    command->add_option("TARGET", arguments->words, "[BOX] and NAME:PORT, IP:PORT or [IPV6]:PORT, with /udp if it is not TCP")->required()->expected(1, 2);
    add_net_options(*command, options);
    command->add_option("--resolved", arguments->resolved, "Of a name: tell about this address of it")->type_name("ADDRESS");
    command->add_option("--format", arguments->format, "text or json")->type_name("FORMAT");
    command->callback([options, arguments, &action] {
        action = [options, arguments](Context& context) { return explain(context, *options, *arguments); };
    });
}

}  // namespace

void add_net_commands(CLI::App& app, Action& action) {
    auto* net = app.add_subcommand("net", "Show what boxes may reach");
    net->require_subcommand(1);
    add_explain(*net, action);
    add_network_log(*net, action);
    add_network_suggest(*net, action);
}

}  // namespace caisson::cli
