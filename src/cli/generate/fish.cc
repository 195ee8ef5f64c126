// Completion for fish.
#include "cli/generate/table.h"

namespace caisson::cli::generate {

namespace {

std::string quote(const std::string& text) { return "'" + escape(text, "'\\") + "'"; }

std::string arguments(const Values& values) {
    switch (values.kind) {
        case Values::Kind::kNothing: return "";
        case Values::Kind::kFiles: return " -F";
        case Values::Kind::kWords: return " -a " + quote(join(values.words, " "));
        default:
            return " -a " +
                   quote("(__caisson_names " + listing(values.kind).key + " " + listing(values.kind).words + ")");
    }
}

std::string complete(const std::string& condition) { return "complete -c caisson -n " + quote(condition); }

void describe(const Command& command, std::string& text, std::vector<std::string>& valued) {
    const auto path = command.path_text();
    const auto here = "__caisson_at " + quote(path);
    for (const auto& option : command.options) {
        text += complete(command.options_end_at_first_word ? here + " 0" : here);
        for (const auto& name : option.names)
            text += name[1] == '-' ? " -l " + name.substr(2) : " -s " + name.substr(1);
        if (!option.value.empty()) {
            text += " -r" + arguments(option.values);
            for (const auto& name : option.names) valued.push_back(quote(path + ":" + name));
        }
        text += " -d " + quote(option.description) + "\n";
    }
    for (const auto& child : command.commands) {
        auto names = child.aliases;
        names.insert(names.begin(), child.path.back());
        for (const auto& name : names)
            text += complete(here + " 0") + " -a " + quote(name) + " -d " + quote(child.description) + "\n";
    }
    for (std::size_t i = 0; i < command.words.size(); ++i) {
        const auto& word = command.words[i];
        if (word.values.kind != Values::Kind::kNothing)
            text += complete(word.many ? here : here + " " + std::to_string(i)) + arguments(word.values) + "\n";
    }
    for (const auto& child : command.commands) describe(child, text, valued);
}

void collect(const Command& command, std::vector<std::string>& paths, std::string& aliases,
             std::vector<std::string>& stops) {
    if (command.options_end_at_first_word) stops.push_back(quote(command.path_text()));
    for (const auto& child : command.commands) {
        paths.push_back(quote(child.path_text()));
        for (const auto& alias : child.aliases) {
            auto path = child.path;
            path.back() = alias;
            aliases += "            case " + quote(join(path, " ")) + "\n                set path " +
                       quote(child.path_text()) + "\n";
            paths.push_back(quote(join(path, " ")));
        }
        collect(child, paths, aliases, stops);
    }
}

}  // namespace

std::string fish_completion(const Command& table) {
    std::vector<std::string> paths, stops, valued;
    std::string aliases, completions;
    collect(table, paths, aliases, stops);
    describe(table, completions, valued);
    return "# fish completion for caisson. Generated from the command table.\n\n"
           "# KEY COMMAND...: what a listing names.\n"
           "function __caisson_names --argument-names key\n"
           "    caisson $argv[2..-1] --format json 2>/dev/null |\n"
           "        string replace --regex --filter '^    \"'$key'\": \"([^\"\\\\\\\\]*)\",?$' '$1'\n"
           "end\n\n"
           "# PATH [COUNT]: whether the cursor is behind this command, and behind COUNT words of its own.\n"
           "function __caisson_at --argument-names wanted wanted_count\n"
           "    set -l path ''\n"
           "    set -l count 0\n"
           "    set -l stopped ''\n"
           "    set -l skip ''\n"
           "    for word in (commandline -opc)[2..-1]\n"
           "        if test -n \"$skip\"\n"
           "            set skip ''\n"
           "            continue\n"
           "        end\n"
           "        if test -z \"$stopped\"; and string match -q -- '-*' $word\n"
           "            contains -- \"$path:$word\" " +
           join(valued, " ") +
           "\n"
           "            and set skip 1\n"
           "            continue\n"
           "        end\n"
           "        set -l deeper (string trim -- \"$path $word\")\n"
           "        if contains -- $deeper " +
           join(paths, " ") +
           "\n"
           "            set path $deeper\n"
           "        else\n"
           "            set count (math $count + 1)\n"
           "            contains -- $path " +
           join(stops, " ") +
           "\n"
           "            and set stopped 1\n"
           "        end\n"
           "        switch \"$path\"\n" +
           aliases +
           "        end\n"
           "    end\n"
           "    test \"$path\" = \"$wanted\"\n"
           "    and test -z \"$wanted_count\" -o \"$wanted_count\" = $count\n"
           "end\n\n"
           "complete -c caisson -f\n" +
           completions;
}

}  // namespace caisson::cli::generate
