// A line of a journal that somebody else may have written: what is read must be bounded, say whether it was changed, and
// reach no terminal as it is.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "audit/event.h"
#include "cli/audit_text.h"

using namespace caisson;

namespace {

void check(bool fine) {
    if (!fine) std::abort();
}

bool is_printable(std::string_view line) {
    for (char c : line)
        if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) return false;
    return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view line(reinterpret_cast<const char*>(data), size);
    auto entry = audit::parse_line(line);
    if (!entry) return 0;
    check(entry->hash.size() == 64 && entry->previous.size() == 64 && !entry->kind.empty() && entry->details.front() == '{');
    AuditEvent event{"home", entry->sequence, entry->unix_ms, entry->kind, entry->box_id, entry->box_name, entry->actor.uid, entry->actor.pid,
                     entry->actor.process, entry->details, entry->previous, entry->hash};
    check(is_printable(cli::audit_text_line(event, true)));
    auto shown = cli::audit_json_line(event);
    check(shown.back() == '\n');
    shown.pop_back();
    check(is_printable(shown));
    return 0;
}
