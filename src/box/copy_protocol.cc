#include "box/copy_protocol.h"

#include <algorithm>
#include <span>

#include "base/text.h"

namespace caisson::box {

namespace {
constexpr const char* kPresent[] = {"nothing", "directory", "other"};  // in the order of tar::Present
constexpr int kLastErrc = static_cast<int>(Errc::kInternal);
}  // namespace

namespace {

// As words of the form NAME or NAME=NUMBER, behind what every copy has.
void add_manner(const CopyManner& manner, std::vector<std::string>& arguments) {
    if (manner.volume) {
        arguments.push_back("user=" + std::to_string(manner.owner.user));
        arguments.push_back("group=" + std::to_string(manner.owner.group));
    }
    if (manner.limit_bytes > 0) arguments.push_back("limit=" + std::to_string(manner.limit_bytes));
    if (manner.counted) arguments.push_back("counted");
    if (manner.update) arguments.push_back("update");
    if (manner.remove_others) arguments.push_back("remove-others");
    if (manner.again) arguments.push_back("again");
}

Result<> take_manner(std::span<const std::string> words, CopyManner& manner) {
    for (const auto& word : words) {
        const auto equals = word.find('=');
        const auto name = word.substr(0, equals);
        const auto number = equals == std::string::npos ? 0 : CAISSON_TRY(base::parse_u64(std::string_view(word).substr(equals + 1)));
        if (name == "user") manner.owner.user = static_cast<std::uint32_t>(number);
        else if (name == "group") manner.owner.group = static_cast<std::uint32_t>(number);
        else if (name == "limit") manner.limit_bytes = number;
        else if (word == "counted") manner.counted = true;
        else if (word == "update") manner.update = true;
        else if (word == "remove-others") manner.remove_others = true;
        else if (word == "again") manner.again = true;
        else return base::failure(Errc::kUsage, "caisson-copy does not know the word '" + base::printable(word, 100) + "'");
        manner.volume = manner.volume || name == "user";
    }
    return {};
}

}  // namespace

std::vector<std::string> pack_arguments(const tar::Origin& origin, const CopyManner& manner) {
    std::vector<std::string> arguments{"pack", origin.name, origin.top};
    add_manner(manner, arguments);
    return arguments;
}

std::vector<std::string> extract_arguments(const tar::Destination& destination, const std::string& top, bool keep_owner,
                                           std::optional<unsigned> umask, const CopyManner& manner) {
    std::vector<std::string> arguments{"extract", destination.name, kPresent[static_cast<int>(destination.present)],
                                       destination.slash ? "slash" : "plain", destination.shown, top, keep_owner ? "owners" : "mine",
                                       umask ? std::to_string(*umask & 0777) : "inherited"};
    add_manner(manner, arguments);
    return arguments;
}

Result<CopyOrder> parse_copy_arguments(const std::vector<std::string>& arguments) {
    CopyOrder order;
    if (arguments.size() >= 3 && arguments[0] == "pack") {
        order.packs = true;
        order.origin.name = arguments[1];
        order.origin.top = arguments[2];
        CAISSON_TRY(take_manner(std::span(arguments).subspan(3), order.manner));
        return order;
    }
    if (arguments.size() < 8 || arguments[0] != "extract")
        return base::failure(Errc::kUsage, "caisson-copy is started by caisson; it has no use of its own");
    order.destination.name = arguments[1];
    for (int i = 0; i < 3; ++i)
        if (arguments[2] == kPresent[i]) order.destination.present = static_cast<tar::Present>(i);
    order.destination.slash = arguments[3] == "slash";
    order.destination.shown = arguments[4];
    order.options.top = arguments[5];
    order.options.keep_owner = arguments[6] == "owners";
    if (auto umask = base::parse_u64(arguments[7])) order.umask = static_cast<unsigned>(*umask) & 0777;
    CAISSON_TRY(take_manner(std::span(arguments).subspan(8), order.manner));
    order.options.update = order.manner.update;
    order.options.remove_others = order.manner.remove_others;
    order.options.replaces_all = order.manner.update;
    return order;
}

std::string pass_line(std::uint64_t changed, std::uint64_t removed) {
    return "pass " + std::to_string(changed) + " " + std::to_string(removed) + "\n";
}

std::string notice_line(const std::string& text) { return "notice " + base::printable(text) + "\n"; }

std::string error_line(const Error& error) {
    Error plain = error;
    plain.hint.clear();
    return "error " + std::to_string(static_cast<int>(error.code)) + " " + base::printable(plain.to_string()) + "\n" +
           (error.hint.empty() ? std::string() : "hint " + base::printable(error.hint) + "\n");
}

CopyReport parse_copy_report(std::string_view said) {
    CopyReport report;
    for (const auto& line : base::split(said, '\n')) {
        std::string_view rest = line;
        auto word = rest.substr(0, rest.find(' '));
        rest.remove_prefix(std::min(rest.size(), word.size() + 1));
        if (word == "notice") {
            report.notices.push_back(base::printable(rest));
        } else if (word == "pass") {
            const auto words = base::split(rest, ' ');
            if (words.size() != 2) continue;
            report.passes.emplace_back(base::parse_u64(words[0]).value_or(0), base::parse_u64(words[1]).value_or(0));
        } else if (word == "error") {
            auto number = base::parse_u64(rest.substr(0, rest.find(' ')));
            rest.remove_prefix(std::min(rest.size(), rest.find(' ') == std::string_view::npos ? rest.size() : rest.find(' ') + 1));
            Error error;
            error.code = number && *number <= kLastErrc ? static_cast<Errc>(*number) : Errc::kIo;
            error.message = base::printable(rest);
            report.error = std::move(error);
        } else if (word == "hint" && report.error) {
            report.error->hint = base::printable(rest);
        }
    }
    return report;
}

}  // namespace caisson::box
