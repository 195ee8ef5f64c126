// Completion for zsh: one function for each command, with the specifications of _arguments.
#include "cli/generate/table.h"

namespace caisson::cli::generate {

namespace {

std::string quote(const std::string& text) {
    std::string result = "'";
    for (char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return result + "'";
}

std::string function_of(const Command& command) {
    return command.path.empty() ? "_caisson" : "_caisson_" + join(command.path, "_");
}

// ":message:action" of an option's value or of a word.
std::string action(const std::string& placeholder, const Values& values) {
    std::string text = ":" + escape(placeholder, ":\\") + ":";
    switch (values.kind) {
        case Values::Kind::kNothing: return text + " ";
        case Values::Kind::kFiles: return text + "_files";
        case Values::Kind::kWords: return text + "(" + join(values.words, " ") + ")";
        default: return text + "_caisson_names " + listing(values.kind).key + " " + listing(values.kind).words;
    }
}

std::string option_specification(const Option& option) {
    const std::string rest = "[" + escape(option.description, "[]\\") + "]" +
                             (option.value.empty() ? "" : action(option.value, option.values));
    if (option.names.size() == 1) return (option.repeatable ? "'*'" : "") + quote(option.names[0] + rest);
    const std::string before = option.repeatable ? "'*'" : "'(" + join(option.names, " ") + ")'";
    return before + "{" + join(option.names, ",") + "}" + quote(rest);
}

void describe(const Command& command, std::string& text) {
    text += function_of(command) + "() {\n";
    if (!command.commands.empty())
        text += "    local curcontext=\"$curcontext\" context state state_descr line\n    typeset -A opt_args\n";
    text += std::string("    _arguments -s") + (command.commands.empty() ? "" : " -C");
    for (const auto& option : command.options) text += " \\\n        " + option_specification(option);
    if (!command.commands.empty()) {
        text +=
            " \\\n        '1: :->command' '*:: :->words'\n    case $state in\n        command)\n            local -a "
            "commands=(\n";
        for (const auto& child : command.commands) {
            auto names = child.aliases;
            names.insert(names.begin(), child.path.back());
            for (const auto& name : names) text += "                " + quote(name + ":" + child.description) + "\n";
        }
        text +=
            "            )\n            _describe command commands\n            ;;\n        words)\n            case "
            "$words[1] in\n";
        for (const auto& child : command.commands) {
            auto names = child.aliases;
            names.insert(names.begin(), child.path.back());
            text += "                " + join(names, "|") + ") " + function_of(child) + " ;;\n";
        }
        text += "            esac\n            ;;\n    esac\n";
    } else {
        for (std::size_t i = 0; i < command.words.size(); ++i) {
            const auto& word = command.words[i];
            // No option is offered from the first word on where options end there.
            const std::string before = command.options_end_at_first_word ? "(-)" : "";
            const std::string place = word.many ? "*" : std::to_string(i + 1);
            text += " \\\n        " + quote(before + place + action(word.name, word.values));
        }
        text += "\n";
    }
    text += "}\n\n";
    for (const auto& child : command.commands) describe(child, text);
}

}  // namespace

std::string zsh_completion(const Command& table) {
    std::string text =
        "#compdef caisson\n"
        "# zsh completion for caisson. Generated from the command table.\n\n"
        "# KEY COMMAND...: what a listing names.\n"
        "_caisson_names() {\n"
        "    local key=$1\n"
        "    shift\n"
        "    # _arguments passes options of compadd first.\n"
        "    local -a options\n"
        "    while [[ $key == -* ]]; do\n"
        "        options+=($key)\n"
        "        key=$1\n"
        "        shift\n"
        "    done\n"
        "    local -a names\n"
        "    names=(${(f)\"$(caisson \"$@\" --format json 2>/dev/null |\n"
        "        sed -n \"s/^    \\\"$key\\\": \\\"\\([^\\\"\\\\\\\\]*\\)\\\",\\{0,1\\}\\$/\\1/p\")\"})\n"
        "    (($#names)) && compadd -a names\n"
        "}\n\n";
    describe(table, text);
    return text +
           "if [[ $funcstack[1] == _caisson ]]; then\n    _caisson \"$@\"\nelse\n    compdef _caisson caisson\nfi\n";
}

}  // namespace caisson::cli::generate
