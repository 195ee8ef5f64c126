// caisson audit and caisson events: what happened, and whether the record of it is what was written.
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/audit_text.h"
#include "cli/command.h"
#include "cli/log_text.h"
#include "cli/text_output.h"

namespace caisson::cli {

using base::failure;
using nlohmann::json;

namespace {

constexpr int kTampered = 1;

struct ShowArguments {
    std::string box, since, format;
    std::vector<std::string> kinds;
    bool follow = false;
    bool full = false;
};

struct VerifyArguments {
    std::string box, head, format;
};

Result<AuditQuery> query_of(const ShowArguments& arguments) {
    AuditQuery query;
    query.box = arguments.box;
    query.follow = arguments.follow;
    query.kinds = arguments.kinds;
    if (arguments.since.empty()) return query;
    // In whole milliseconds, as entries are: the one that the moment is in belongs to it.
    query.since_ms = CAISSON_TRY_CTX(parse_log_time(arguments.since, now_ns()), "--since") / 1'000'000;
    return query;
}

Result<int> show(Context& context, const ShowArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    const auto query = CAISSON_TRY(query_of(arguments));
    auto runtime = CAISSON_TRY(open_runtime(context));
    Output output(arguments.follow);
    auto shown = runtime.audit(query, [&](const AuditEvent& event) -> Result<bool> {
        return output.write(STDOUT_FILENO, as_json ? audit_json_line(event) : audit_text_line(event, arguments.full) + "\n");
    });
    CAISSON_TRY(output.flush());
    CAISSON_TRY(std::move(shown));
    return 0;
}

Result<int> verify(Context& context, const VerifyArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    std::optional<AuditHead> head;
    if (!arguments.head.empty()) head = CAISSON_TRY_CTX(parse_audit_head(arguments.head), "--head");
    auto runtime = CAISSON_TRY(open_runtime(context));
    // What was anchored without a box's name is the home's.
    const auto verified = CAISSON_TRY(runtime.verify_audit(arguments.box.empty() && head ? "home" : arguments.box, head));
    if (as_json) {
        json findings = json::array();
        for (const auto& finding : verified.findings)
            findings.push_back({{"chain", finding.chain}, {"seq", finding.sequence}, {"problem", finding.problem}, {"text", finding.text}});
        print({{"chains", verified.chains}, {"entries", verified.entries}, {"findings", findings}});
        return verified.findings.empty() ? 0 : kTampered;
    }
    for (const auto& finding : verified.findings)
        std::printf("%s  %s  %s\n", finding.chain.c_str(), finding.problem.c_str(), base::printable(finding.text).c_str());
    if (verified.findings.empty())
        std::printf("%llu entries in %llu journals are as they were written\n", static_cast<unsigned long long>(verified.entries),
                    static_cast<unsigned long long>(verified.chains));
    return verified.findings.empty() ? 0 : kTampered;
}

Result<int> show_head(Context& context, const std::string& box, const std::string& format) {
    const bool as_json = CAISSON_TRY(wants_json(format));
    auto runtime = CAISSON_TRY(open_runtime(context));
    const auto head = CAISSON_TRY(runtime.audit_head(box));
    if (as_json) {
        print({{"chain", head.chain}, {"seq", head.sequence}, {"hash", head.sequence == 0 ? json(nullptr) : json(head.hash)}});
        return 0;
    }
    if (head.sequence == 0) return failure(Errc::kNotFound, "there is nothing in this journal yet");
    std::printf("%s\n", audit_head_text(head).c_str());
    return 0;
}

void add_show_options(CLI::App& command, ShowArguments& arguments) {
    command.add_flag("-f,--follow", arguments.follow, "Go on with what comes");
    command.add_option("--since", arguments.since, "Only what happened at or after this time")->type_name("TIME");
    command.add_option("--kind", arguments.kinds, "Only entries of this kind; may be given again")->type_name("KIND")->allow_extra_args(false)->take_all();
    command.add_option("--format", arguments.format, "text or json (a line for each entry)")->type_name("FORMAT");
}

void add_verify(CLI::App& group, Action& action) {
    auto arguments = std::make_shared<VerifyArguments>();
    auto* command = group.add_subcommand("verify", "Check that no entry was altered, removed, moved or cut off");
    command->footer("Examples:\n  caisson audit verify\n  caisson audit verify --head 42:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b web\n\n"
                    "Names the first entry of each journal that is not what was written, and exits with 1 then. Whoever owns the home can\n"
                    "write the whole journal anew, with what the database has of it; only a head that was kept elsewhere shows that.");
    command->add_option("BOX", arguments->box, "Only this box's journal: name, id or beginning of an id; home: the home's own");
    command->add_option("--head", arguments->head, "What audit head printed earlier, for BOX or else for the home")->type_name("SEQUENCE:HASH");
    command->add_option("--format", arguments->format, "text or json")->type_name("FORMAT");
    command->callback([arguments, &action] { action = [arguments](Context& context) { return verify(context, *arguments); }; });
}

void add_head(CLI::App& group, Action& action) {
    auto box = std::make_shared<std::string>();
    auto format = std::make_shared<std::string>();
    auto* command = group.add_subcommand("head", "Print the last entry's number and hash, to be kept elsewhere");
    command->footer("Examples:\n  caisson audit head\n  caisson audit head web | ssh log.example.com 'cat >> heads'");
    command->add_option("BOX", *box, "Name, id or beginning of an id; the home's own journal if it is not given");
    command->add_option("--format", *format, "text or json")->type_name("FORMAT");
    command->callback([box, format, &action] { action = [box, format](Context& context) { return show_head(context, *box, *format); }; });
}

}  // namespace

void add_network_log(CLI::App& group, Action& action) {
    auto arguments = std::make_shared<ShowArguments>();
    arguments->kinds = {"connection_allowed", "connection_denied", "connection_failed", "connection_ended", "name_asked", "network_ended", "network_restarted", "network_policy_changed", "network_limits_changed", "port_published", "port_unpublished", "network_events_left_out"};
    auto* command = group.add_subcommand("log", "Show what a box reached, asked for and was refused");
    command->footer(std::string("Examples:\n  caisson net log web\n  caisson net log -f --format json web\n\n") + kTimeForms + "\nThe same, with everything else of the box: caisson audit BOX\n");
    command->add_option("BOX", arguments->box, "Name, id or beginning of an id")->required();
    command->add_flag("-f,--follow", arguments->follow, "Go on with what comes");
    command->add_option("--since", arguments->since, "Only what happened at or after this time")->type_name("TIME");
    command->add_option("--format", arguments->format, "text or json (a line for each entry)")->type_name("FORMAT");
    command->callback([arguments, &action] { action = [arguments](Context& context) { return show(context, *arguments); }; });
}

void add_audit_commands(CLI::App& app, Action& action) {
    auto audited = std::make_shared<ShowArguments>();
    audited->full = true;
    auto* audit = app.add_subcommand("audit", "Show who did what, when, and from which process");
    audit->footer(std::string("Examples:\n  caisson audit\n  caisson audit --since 1h --kind security_lowered\n  caisson audit web --format json\n"
                              "  caisson audit verify\n\n") + kTimeForms + "\n" +
                  "A box that was removed is known by its id. A box called verify or head is, too.");
    audit->require_subcommand(0, 1);
    audit->add_option("BOX", audited->box, "Name, id or beginning of an id; everything if it is not given");
    add_show_options(*audit, *audited);
    audit->callback([audit, audited, &action] {
        if (audit->get_subcommands().empty()) action = [audited](Context& context) { return show(context, *audited); };
    });
    add_verify(*audit, action);
    add_head(*audit, action);

    auto seen = std::make_shared<ShowArguments>();
    auto* events = app.add_subcommand("events", "Show what happens in all boxes and the home");
    events->footer(std::string("Examples:\n  caisson events -f\n  caisson events --since 10m --kind box_stopped --format json\n\n") + kTimeForms + "\n");
    add_show_options(*events, *seen);
    events->callback([seen, &action] { action = [seen](Context& context) { return show(context, *seen); }; });
}

}  // namespace caisson::cli
