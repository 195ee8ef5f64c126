#include "cli/generate/table.h"

#include <CLI/CLI.hpp>
#include <map>

#include "base/text.h"
#include "cli/command.h"

namespace caisson::cli::generate {

namespace {

// Placeholders that stand for something that a shell can offer. The others are the user's own words.
const std::map<std::string, Values>& known_values() {
    using Kind = Values::Kind;
    static const std::map<std::string, Values> known{
        {"FILE", {Kind::kFiles, {}}},
        {"SOURCE", {Kind::kFiles, {}}},
        {"ROOTFS", {Kind::kFiles, {}}},
        {"IMAGE", {Kind::kImages, {}}},
        {"BOX", {Kind::kBoxes, {}}},
        {"KEY", {Kind::kTemplates, {}}},
        {"FORMAT", {Kind::kWords, {"text", "json"}}},
        {"STREAM", {Kind::kWords, {"stdout", "stderr", "console"}}},
        {"MODE", {Kind::kWords, {"none"}}},
        {"POLICY", {Kind::kWords, {"no", "on-failure", "always"}}},
        {"SIGNAL", {Kind::kWords, {"TERM", "KILL", "INT", "HUP", "QUIT", "USR1", "USR2"}}},
        {"WHEN", {Kind::kWords, {"always", "missing", "never"}}},
    };
    return known;
}

Values values_of(const std::string& placeholder) {
    auto found = known_values().find(placeholder);
    return found == known_values().end() ? Values{} : found->second;
}

Option read_option(const CLI::Option& option) {
    Option result;
    for (const auto& name : option.get_snames()) result.names.push_back("-" + name);
    for (const auto& name : option.get_lnames()) result.names.push_back("--" + name);
    result.description = option.get_description();
    if (option.get_items_expected_max() == 0) return result;
    result.value = option.get_type_name();
    result.initial = option.get_default_str();
    result.repeatable = option.get_items_expected_max() > 1;
    result.values = values_of(result.value);
    return result;
}

// Words are read off the usage line: commands may show there what is no option to the parser.
std::vector<Word> read_words(const CLI::App& app, const std::string& name) {
    auto formatter = std::dynamic_pointer_cast<CLI::Formatter>(app.get_formatter());
    auto usage = formatter->make_usage(&app, name);
    usage = usage.substr(usage.find(name) + name.size());
    std::vector<Word> words;
    for (const auto& text : base::split(base::trim(usage), ' ')) {
        if (text.empty() || text == "[OPTIONS]" || text == "SUBCOMMAND") continue;
        Word word;
        word.usage = text;
        for (char c : text)
            if (c != '[' && c != ']' && c != '.') word.name += c;
        word.many = text.find("...") != std::string::npos;
        word.values = values_of(word.name);
        for (const auto* option : app.get_options([](const CLI::Option* one) { return one->get_positional(); }))
            if (option->get_name() == word.name) word.description = option->get_description();
        words.push_back(word);
    }
    return words;
}

Command read_command(const CLI::App& app, std::vector<std::string> path) {
    Command command;
    command.path = std::move(path);
    command.aliases = app.get_aliases();
    command.description = app.get_description();
    command.footer = app.get_footer();
    command.options_end_at_first_word = app.get_prefix_command();
    for (const auto* option : app.get_options([](const CLI::Option* one) { return one->nonpositional(); }))
        command.options.push_back(read_option(*option));
    command.words = read_words(app, command.name());
    for (const auto* child : app.get_subcommands([](const CLI::App* one) { return !one->get_name().empty(); })) {
        auto below = command.path;
        below.push_back(child->get_name());
        command.commands.push_back(read_command(*child, below));
    }
    return command;
}

}  // namespace

std::string Command::path_text() const { return join(path, " "); }
std::string Command::name() const { return path.empty() ? "caisson" : "caisson " + path_text(); }

Command read_table() {
    CLI::App app{"", "caisson"};
    Action action;
    add_everything(app, action);
    return read_command(app, {});
}

Listing listing(Values::Kind kind) {
    switch (kind) {
        case Values::Kind::kImages: return {"image ls", "name"};
        case Values::Kind::kBoxes: return {"ls --all", "name"};
        case Values::Kind::kTemplates: return {"template ls", "key"};
        default: return {};
    }
}

std::string join(const std::vector<std::string>& words, const std::string& between) {
    std::string text;
    for (const auto& word : words) text += (text.empty() ? "" : between) + word;
    return text;
}

std::string escape(const std::string& text, const std::string& characters, const std::string& before) {
    std::string result;
    for (char c : text) {
        if (characters.find(c) != std::string::npos) result += before;
        result += c;
    }
    return result;
}

}  // namespace caisson::cli::generate
