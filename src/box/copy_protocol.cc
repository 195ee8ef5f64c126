#include "box/copy_protocol.h"

#include <algorithm>

#include "base/text.h"

namespace caisson::box {

namespace {
constexpr const char* kPresent[] = {"nothing", "directory", "other"};  // in the order of tar::Present
constexpr int kLastErrc = static_cast<int>(Errc::kInternal);
}  // namespace

std::vector<std::string> pack_arguments(const tar::Origin& origin) { return {"pack", origin.name, origin.top}; }

std::vector<std::string> extract_arguments(const tar::Destination& destination, const std::string& top, bool keep_owner,
                                           std::optional<unsigned> umask) {
    return {"extract", destination.name, kPresent[static_cast<int>(destination.present)], destination.slash ? "slash" : "plain",
            destination.shown, top, keep_owner ? "owners" : "mine", umask ? std::to_string(*umask & 0777) : "inherited"};
}

Result<CopyOrder> parse_copy_arguments(const std::vector<std::string>& arguments) {
    CopyOrder order;
    if (arguments.size() == 3 && arguments[0] == "pack") {
        order.packs = true;
        order.origin.name = arguments[1];
        order.origin.top = arguments[2];
        return order;
    }
    if (arguments.size() != 8 || arguments[0] != "extract")
        return base::failure(Errc::kUsage, "caisson-copy is started by caisson; it has no use of its own");
    order.destination.name = arguments[1];
    for (int i = 0; i < 3; ++i)
        if (arguments[2] == kPresent[i]) order.destination.present = static_cast<tar::Present>(i);
    order.destination.slash = arguments[3] == "slash";
    order.destination.shown = arguments[4];
    order.options.top = arguments[5];
    order.options.keep_owner = arguments[6] == "owners";
    if (auto umask = base::parse_u64(arguments[7])) order.umask = static_cast<unsigned>(*umask) & 0777;
    return order;
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
