#include "cli/command.h"

#include <time.h>
#include <unistd.h>

#include <cstdio>

#include "base/text.h"
#include "cli/terminal.h"

namespace caisson::cli {

namespace {

bool line_drawn = false;  // whether a progress line stands on the terminal
std::string home_of_hints;  // the caller's, as it was before root was given up

void say(const std::string& text) {
    bool first = true;
    for (const auto& line : base::split(text, '\n')) {
        std::fprintf(stderr, first ? "caisson: %s\n" : "  %s\n", base::printable(line).c_str());
        first = false;
    }
}

// What fits into one line of the terminal: a line that wraps could not be rewritten.
std::string fitting(std::string text) {
    const auto columns = terminal_size(STDERR_FILENO).columns;
    std::size_t characters = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool begins = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;  // a character in UTF-8
        if (begins && columns > 0 && ++characters >= columns) {
            text.resize(i);
            break;
        }
    }
    return text;
}

}  // namespace

void clear_progress() {
    if (line_drawn) std::fputs("\r\x1b[K", stderr);
    line_drawn = false;
}

void draw_progress(const Progress& progress) {
    clear_progress();
    if (progress.step.empty()) return;
    std::string line = base::printable(progress.step);
    if (progress.done > 0) {
        line += "  " + base::format_size(progress.done);
        if (progress.total > 0) line += " of " + base::format_size(progress.total);
    }
    std::fputs(fitting(std::move(line)).c_str(), stderr);
    std::fflush(stderr);
    line_drawn = true;
}

RuntimeOptions runtime_options(const Context& context) {
    RuntimeOptions options;
    if (context.terminal && !context.quiet) options.on_progress = draw_progress;
    if (!context.quiet)
        options.on_notice = [](const std::string& text) {
            clear_progress();
            say(text);
        };
    return options;
}

Result<Runtime> open_runtime(Context& context) {
    return Runtime::open(CAISSON_TRY(leave_root(runtime_options(context))));
}

void report(const Error& error) {
    clear_progress();
    std::fprintf(stderr, "caisson: %s\n", base::printable(error.to_string()).c_str());
    if (!error.hint.empty())
        for (const auto& line : base::split(error.hint, '\n'))
            std::fprintf(stderr, "  %s\n", base::printable(line).c_str());
    if (auto hint = full_disk_hint(error, home_of_hints); !hint.empty()) std::fprintf(stderr, "  %s\n", base::printable(hint).c_str());
}

void remember_home() { home_of_hints = caller_home().value_or(std::string()); }

Result<bool> wants_json(const std::string& format) {
    if (format == "json") return true;
    if (format.empty() || format == "text") return false;
    return base::failure(Errc::kUsage, "--format '" + base::printable(format, 64) + "' is unknown", "use text or json");
}

std::string format_table(const std::vector<std::vector<std::string>>& cells) {
    // Names come from records that a taken-over supervisor could have written.
    constexpr std::size_t kLongestCell = 4096;
    auto rows = cells;
    for (auto& row : rows)
        for (auto& cell : row) cell = base::printable(cell, kLongestCell);
    std::vector<std::size_t> widths;
    for (const auto& row : rows)
        for (std::size_t i = 0; i < row.size(); ++i) {
            if (widths.size() <= i) widths.push_back(0);
            widths[i] = std::max(widths[i], row[i].size());
        }
    std::string text;
    for (const auto& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            text += row[i];
            if (i + 1 < row.size()) text += std::string(widths[i] - row[i].size() + 3, ' ');
        }
        text += "\n";
    }
    return text;
}

std::string format_age(std::int64_t unix_seconds) {
    auto age = static_cast<std::int64_t>(::time(nullptr)) - unix_seconds;
    if (age < 0) return "in the future";
    auto say = [](std::int64_t count, const char* unit) {
        return std::to_string(count) + " " + unit + (count == 1 ? "" : "s") + " ago";
    };
    if (age < 60) return say(age, "second");
    if (age < 3600) return say(age / 60, "minute");
    if (age < 2 * 86400) return say(age / 3600, "hour");
    return say(age / 86400, "day");
}

}  // namespace caisson::cli
