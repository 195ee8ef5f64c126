// Completion for bash, without the package bash-completion.
#include "cli/generate/table.h"

namespace caisson::cli::generate {

namespace {

std::string kind_text(const Values& values) {
    switch (values.kind) {
        case Values::Kind::kNothing: return "nothing";
        case Values::Kind::kFiles: return "files";
        case Values::Kind::kWords: return "words " + join(values.words, " ");
        default: return "names " + listing(values.kind).key + " " + listing(values.kind).words;
    }
}

struct Tables {
    std::string commands, options, values, words;
};

void describe(const Command& command, Tables& tables) {
    const auto path = command.path_text();
    std::vector<std::string> below, options;
    for (const auto& child : command.commands) {
        below.push_back(child.path.back());
        below.insert(below.end(), child.aliases.begin(), child.aliases.end());
    }
    if (!below.empty()) tables.commands += "        '" + path + "') echo '" + join(below, " ") + "' ;;\n";
    for (const auto& option : command.options) {
        options.insert(options.end(), option.names.begin(), option.names.end());
        if (option.value.empty()) continue;
        std::vector<std::string> cases;
        for (const auto& name : option.names) cases.push_back("'" + path + ":" + name + "'");
        tables.values += "        " + join(cases, " | ") + ") echo '" + kind_text(option.values) + "' ;;\n";
    }
    tables.options += "        '" + path + "') echo '" + join(options, " ") + "' ;;\n";
    for (std::size_t i = 0; i < command.words.size(); ++i) {
        const auto& word = command.words[i];
        const std::string place = word.many ? ":'*" : ":" + std::to_string(i) + "'";
        tables.words += "        '" + path + place + ") echo '" + kind_text(word.values) + "' ;;\n";
    }
    for (const auto& child : command.commands) describe(child, tables);
}

// Other names of commands lead to the same entries.
void add_aliases(const Command& command, std::string& text) {
    for (const auto& child : command.commands) {
        for (const auto& alias : child.aliases) {
            auto path = child.path;
            path.back() = alias;
            text += "        '" + join(path, " ") + "') path='" + child.path_text() + "' ;;\n";
        }
        add_aliases(child, text);
    }
}

void add_stops(const Command& command, std::vector<std::string>& paths) {
    if (command.options_end_at_first_word) paths.push_back("'" + command.path_text() + "'");
    for (const auto& child : command.commands) add_stops(child, paths);
}

}  // namespace

std::string bash_completion(const Command& table) {
    Tables tables;
    describe(table, tables);
    std::string aliases;
    add_aliases(table, aliases);
    std::vector<std::string> stops;
    add_stops(table, stops);
    auto lookup = [](const char* name, const char* about, const std::string& cases) {
        return "# " + std::string(about) + "\n" + name + "() {\n    case $1 in\n" + cases + "    esac\n}\n\n";
    };
    return "# bash completion for caisson. Generated from the command table.\n"
           "# shellcheck shell=bash\n\n" +
           lookup("_caisson_commands", "PATH: the commands below a command.", tables.commands) +
           lookup("_caisson_options", "PATH: the options of a command.", tables.options) +
           lookup("_caisson_value", "PATH:OPTION: what its value can be; nothing for a switch.", tables.values) +
           lookup("_caisson_word", "PATH:NUMBER: what the word at this place can be.", tables.words) +
           R"bash(# What COMP_WORDS holds up to the cursor, in words. Readline splits at ":" and "=" too, which names of images and
# options hold.
_caisson_split() {
    local index glue='' word
    words=()
    for ((index = 1; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ ${#words[@]} -gt 0 && $word == [:=]* ]]; then
            words[${#words[@]} - 1]+=$word
            glue=1
        elif [[ -n $glue ]]; then
            words[${#words[@]} - 1]+=$word
            glue=''
        else
            words+=("$word")
        fi
    done
}

_caisson() {
    local program=$1 path='' expected='' stopped='' count=0 index word key kind current below words
    _caisson_split
    for ((index = 0; index < ${#words[@]} - 1; index++)); do
        word=${words[index]}
        if [[ -n $expected ]]; then
            expected=''
        elif [[ -z $stopped && $word == -* ]]; then
            expected=$(_caisson_value "$path:$word")
        elif [[ " $(_caisson_commands "$path") " == *" $word "* ]]; then
            path+=${path:+ }$word
            case $path in
)bash" + aliases +
           R"bash(            esac
        else
            ((count += 1))
            case $path in
                )bash" +
           (stops.empty() ? "''" : join(stops, " | ")) + R"bash() stopped=1 ;;
            esac
        fi
    done
    current=''
    if ((${#words[@]} > 0)); then
        current=${words[${#words[@]} - 1]}
    fi

    below=$(_caisson_commands "$path")
    kind=words
    COMPREPLY=()
    if [[ -n $expected ]]; then
        kind=$expected
    elif [[ -z $stopped && $current == --*=* ]]; then
        kind=$(_caisson_value "$path:${current%%=*}")
        current=${current#*=}
    elif [[ -z $stopped && $current == -* ]]; then
        kind="words $(_caisson_options "$path")"
    elif [[ -n $below ]]; then
        kind="words $below"
    else
        kind=$(_caisson_word "$path:$count")
    fi
    case $kind in
        files)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            ;;
        names\ *)
            read -r _ key word <<<"$kind"
            # shellcheck disable=SC2086
            below=$("$program" $word --format json 2>/dev/null |
                sed -n "s/^    \"$key\": \"\([^\"\\\\]*\)\",\{0,1\}\$/\1/p")
            mapfile -t COMPREPLY < <(compgen -W "$below" -- "$current")
            ;;
        words\ *) mapfile -t COMPREPLY < <(compgen -W "${kind#words }" -- "$current") ;;
    esac
    # Readline puts in only what follows the last ":".
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
    fi
}

complete -F _caisson caisson
)bash";
}

}  // namespace caisson::cli::generate
