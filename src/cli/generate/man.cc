// Manual pages, in the macros of man(7): one for caisson, one for each of its commands; a group of commands has one
// page together.
#include "base/text.h"
#include "cli/generate/table.h"

namespace caisson::cli::generate {

namespace {

// Text of a line: a backslash, a hyphen that is meant to be typed, and what would begin a macro.
std::string roff(const std::string& text) {
    std::string result;
    for (char c : text) {
        if (c == '\\') result += "\\e";
        else if (c == '-') result += "\\-";
        else result += c;
    }
    if (!result.empty() && (result[0] == '.' || result[0] == '\'')) result.insert(0, "\\&");
    return result;
}

std::string sentence(std::string text) {
    if (!text.empty() && text.back() != '.' && text.back() != '!') text += '.';
    return text;
}

std::string lower_first(std::string text) {
    if (text.size() > 1 && text[1] >= 'a' && text[1] <= 'z' && text[0] >= 'A' && text[0] <= 'Z')
        text[0] = static_cast<char>(text[0] - 'A' + 'a');
    return text;
}

std::string section(const char* macro, const std::string& title) { return std::string(macro) + " \"" + title + "\"\n"; }

std::string heading(const std::string& page, const std::string& version, const std::string& date) {
    std::string title;
    for (char c : page) title += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    return ".\\\" Generated from the command table.\n.TH " + roff(title) + " 1 " + date + " \"caisson " + version +
           "\" \"caisson\"\n";
}

std::string synopsis(const Command& command) {
    std::string text = ".B " + roff(command.name()) + "\n";
    if (!command.options.empty()) text += ".RI [ options ]\n";
    for (const auto& word : command.words) text += ".I " + roff(word.usage) + "\n";
    if (!command.commands.empty()) text += ".I command\n.RI [ arguments ]\n";
    return text;
}

std::string options(const Command& command) {
    std::string text;
    for (const auto& option : command.options) {
        text += ".TP\n";
        std::string names;
        for (const auto& name : option.names) names += (names.empty() ? "" : ", ") + ("\\fB" + roff(name) + "\\fR");
        if (!option.value.empty()) names += " \\fI" + roff(option.value) + "\\fR";
        text += names + "\n" + roff(sentence(option.description)) + "\n";
        if (option.repeatable) text += "May be repeated.\n";
        if (!option.initial.empty()) text += "The default is " + roff(option.initial) + ".\n";
    }
    return text;
}

std::string words(const Command& command) {
    std::string text;
    for (const auto& word : command.words)
        if (!word.description.empty())
            text += ".TP\n.I " + roff(word.name) + "\n" + roff(sentence(word.description)) + "\n";
    return text;
}

// "Examples:" and "Exit code:" begin sections (of a page of their own, else paragraphs); lines that are indented are
// shown as they are.
std::string footer(const std::string& text, bool page) {
    std::string result;
    bool verbatim = false;
    auto begin = [&](const char* title) { result += page ? section(".SH", title) : std::string(".PP\n"); };
    auto end_verbatim = [&] {
        if (verbatim) result += ".EE\n";
        verbatim = false;
    };
    for (const auto& line : base::split(text, '\n')) {
        if (line.rfind("  ", 0) == 0) {
            if (!verbatim) result += result.empty() || result.ends_with("\"\n") ? ".EX\n" : ".PP\n.EX\n";
            verbatim = true;
            result += roff(line) + "\n";
            continue;
        }
        end_verbatim();
        if (line == "Example:" || line == "Examples:") {
            begin("EXAMPLES");
            if (!page) result += line + "\n";
        } else if (line.rfind("Exit code: ", 0) == 0) {
            begin("EXIT STATUS");
            result += roff(page ? line.substr(11) : line) + "\n";
        } else if (!line.empty()) {
            result += roff(line) + "\n";
        }
    }
    end_verbatim();
    return result;
}

std::string name_line(const std::string& page, const std::string& description) {
    return section(".SH", "NAME") + roff(page) + " \\- " + roff(lower_first(description)) + "\n";
}

std::string command_page(const Command& command, const std::string& page, const std::string& version,
                         const std::string& date) {
    std::string text = heading(page, version, date) + name_line(page, command.description);
    text += section(".SH", "SYNOPSIS");
    if (command.commands.empty()) {
        text += synopsis(command);
    } else {
        bool first = true;
        for (const auto& child : command.commands) {
            if (!first) text += ".br\n";
            first = false;
            text += synopsis(child);
        }
    }
    text += section(".SH", "DESCRIPTION") + roff(sentence(command.description)) + "\n";
    for (const auto& alias : command.aliases) text += ".B caisson " + roff(alias) + "\nis another name for it.\n";
    if (command.commands.empty()) {
        text += words(command) + section(".SH", "OPTIONS") + options(command) + footer(command.footer, true);
    } else {
        text += section(".SH", "COMMANDS");
        for (const auto& child : command.commands)
            text += section(".SS", child.name()) + roff(sentence(child.description)) + "\n" + words(child) +
                    options(child) + footer(child.footer, false);
    }
    return text + section(".SH", "SEE ALSO") + ".BR caisson (1)\n";
}

constexpr const char* kEnvironmentAndFiles = R"(.SH "ENVIRONMENT"
.TP
.B CAISSON_HOME
Where boxes, images and templates are kept: an absolute path.
The default is ~/.caisson, for root /var/lib/caisson.
.TP
.B CAISSON_ASSETS
Directory with the VMM and the guest kernel, as
.BR caisson\-setup (1)
makes it.
.TP
.B CAISSON_ACCEL
kvm or tcg; the default is what works.
.TP
.B CAISSON_NET
none, public or open: what a box reaches if no option says anything of its network.
The default is public.
.SH "EXIT STATUS"
0 if all went well, 2 for a wrong command line, 125 if caisson failed; see
.BR caisson\-run (1)
for the others.
)";

std::string main_page(const Command& table, const std::string& version, const std::string& date) {
    auto lines = base::split(table.description, '\n');
    std::string text = heading("caisson", version, date) + section(".SH", "NAME") +
                       "caisson \\- run commands from OCI images, each in a micro\\-VM of its own\n";
    text +=
        section(".SH", "SYNOPSIS") + synopsis(table) + section(".SH", "DESCRIPTION") + footer(table.description, true);
    text += section(".SH", "COMMANDS");
    std::string see;
    for (const auto& command : table.commands) {
        text += ".TP\n.BR caisson\\-" + roff(command.path[0]) + " (1)\n" + roff(sentence(command.description)) + "\n";
        see += ".BR caisson\\-" + roff(command.path[0]) + " (1),\n";
    }
    text += section(".SH", "OPTIONS") + options(table) + kEnvironmentAndFiles;
    return text + section(".SH", "SEE ALSO") + see + ".BR caisson\\-setup (1)\n";
}

}  // namespace

std::vector<std::pair<std::string, std::string>> manual(const Command& table, const std::string& version,
                                                        const std::string& date) {
    std::vector<std::pair<std::string, std::string>> pages{{"caisson.1", main_page(table, version, date)}};
    for (const auto& command : table.commands) {
        const auto page = "caisson-" + command.path[0];
        pages.emplace_back(page + ".1", command_page(command, page, version, date));
    }
    return pages;
}

}  // namespace caisson::cli::generate
