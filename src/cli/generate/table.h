// The command table as plain data: what the generators write down.
#pragma once

#include <string>
#include <vector>

namespace caisson::cli::generate {

// What can be put in for a placeholder, for completions.
struct Values {
    enum class Kind { kNothing, kFiles, kWords, kImages, kBoxes, kTemplates };
    Kind kind = Kind::kNothing;
    std::vector<std::string> words;  // for kWords
};

struct Option {
    std::vector<std::string> names;  // "-e", "--env"
    std::string value;               // placeholder, "NAME[=VALUE]"; empty for a switch
    std::string description;
    std::string initial;  // the default; empty: none
    bool repeatable = false;
    Values values;
};

struct Word {
    std::string usage;  // "[COMMAND...]"
    std::string name;   // "COMMAND"
    std::string description;
    bool many = false;
    Values values;
};

struct Command {
    std::vector<std::string> path;     // {"image", "ls"}; empty for caisson itself
    std::vector<std::string> aliases;  // of the last word
    std::string description;
    std::string footer;  // examples, exit codes
    std::vector<Option> options;
    std::vector<Word> words;
    bool options_end_at_first_word = false;
    std::vector<Command> commands;

    std::string name() const;       // "caisson image ls"
    std::string path_text() const;  // "image ls"
};

Command read_table();

// How the names of images, boxes and templates are listed: `caisson WORDS --format json`, the values of KEY.
struct Listing {
    std::string words;
    std::string key;
};
Listing listing(Values::Kind kind);

std::string join(const std::vector<std::string>& words, const std::string& between);
// Each occurrence of one of `characters` with `before` in front.
std::string escape(const std::string& text, const std::string& characters, const std::string& before = "\\");

// One file each, but for the manual: pairs of file name and content.
std::vector<std::pair<std::string, std::string>> manual(const Command& table, const std::string& version,
                                                        const std::string& date);
std::string bash_completion(const Command& table);
std::string zsh_completion(const Command& table);
std::string fish_completion(const Command& table);

}  // namespace caisson::cli::generate
