// caisson check: is everything in a home as it should be, and if not, mending it.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"

namespace caisson::cli {

using nlohmann::json;

namespace {

struct CheckArguments {
    CheckOptions checks;
    std::string format;
};

const char* word_of(Finding::Severity severity) { return severity == Finding::Severity::kError ? "error" : "warning"; }

json to_json(const Finding& finding) {
    return {{"code", finding.code}, {"severity", word_of(finding.severity)}, {"object", finding.object}, {"what", finding.what},
            {"remedy", finding.remedy}, {"repairable", finding.repairable}, {"done", finding.done}, {"left", finding.left}};
}

json to_json(const CheckReport& report) {
    json findings = json::array();
    for (const auto& finding : report.findings) findings.push_back(to_json(finding));
    return {{"home", report.home}, {"clean", report.clean()}, {"findings", findings}, {"aside", report.aside.empty() ? json(nullptr) : json(report.aside)},
            {"looked_at", {{"boxes", report.boxes}, {"images", report.images}, {"blobs", report.blobs}, {"disks", report.disks},
                           {"volumes", report.volumes}, {"templates", report.templates}}}};
}

void print_text(const CheckReport& report, bool repair) {
    std::size_t left = 0, repairable = 0;
    for (const auto& finding : report.findings) {
        std::printf("%s: %s [%s]\n  %s\n", word_of(finding.severity), finding.object.c_str(), finding.code.c_str(), finding.what.c_str());
        if (repair && !finding.done.empty()) std::printf("  repair: %s%s\n", base::printable(finding.done).c_str(), finding.left ? "; it is still so" : "");
        else std::printf("  %s: %s\n", finding.repairable ? "--repair" : "to do", finding.remedy.c_str());
        left += finding.left ? 1 : 0;
        repairable += finding.left && finding.repairable ? 1 : 0;
    }
    std::printf("%s: %zu boxes, %zu images with %zu blobs, %zu root disks, %zu volumes, %zu templates\n",
                left == 0 ? "clean" : (std::to_string(left) + (left == 1 ? " finding" : " findings")).c_str(), report.boxes, report.images, report.blobs,
                report.disks, report.volumes, report.templates);
    if (!report.aside.empty()) std::printf("what was moved aside is in %s\n", base::printable(report.aside).c_str());
    if (!repair && repairable > 0) std::printf("to repair %s: caisson check --repair\n", repairable == left ? "this" : "what can be repaired");
}

Result<int> check(Context& context, const CheckArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    const auto options = arguments.checks.repair ? CAISSON_TRY(leave_root(runtime_options(context))) : CAISSON_TRY(leave_root_to_look(runtime_options(context)));
    const auto report = CAISSON_TRY(Runtime::check(options, arguments.checks));
    if (as_json) print(to_json(report));
    else print_text(report, arguments.checks.repair);
    return report.clean() ? 0 : 1;
}

}  // namespace

void add_check(CLI::App& app, Action& action) {
    auto arguments = std::make_shared<CheckArguments>();
    auto* command = app.add_subcommand("check", "Tell whether everything in the home is as it should be, and repair it");
    command->footer(
        "Examples:\n"
        "  caisson check\n"
        "  caisson check --deep --format json\n"
        "  caisson check --repair\n"
        "\nWithout --repair nothing is changed. Exit code: 0 if all is well (now), 1 if something is not, 125 if the home cannot be looked at.");
    command->add_flag("--repair", arguments->checks.repair, "Mend what can be mended: what is doubtful is moved to HOME/aside, and no volume is removed");
    command->add_flag("--deep", arguments->checks.deep, "Read all of the images' layers and compare them with their digests");
    command->add_option("--format", arguments->format, "text or json")->type_name("FORMAT");
    command->callback([arguments, &action] { action = [arguments](Context& context) { return check(context, *arguments); }; });
}

}  // namespace caisson::cli
