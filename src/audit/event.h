// What an entry of the journal says, and the line that it is. Pure functions.
//
// A line is a JSON object: seq, time (RFC 3339, UTC, milliseconds), kind, box and name (where it is about a box), uid, pid
// and process of who did it, details, prev (the hash of the line before; 64 zeros before the first), and at its end hash:
// SHA-256 of the line without `,"hash":"..."`. Everything outside ASCII is escaped, so that a line can be shown anywhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace caisson::audit {

using Value = std::variant<std::string, std::int64_t, bool, std::vector<std::string>>;

// Whoever records something fills this in. Texts and lists may be of any size and hold any bytes: they are cut and
// escaped here. Secrets and values of environments do not belong into it.
struct Event {
    std::string kind;  // stable, snake_case
    std::string box_id, box_name;
    std::vector<std::pair<std::string, Value>> details;  // keys are stable, snake_case
};

// Who did it.
struct Actor {
    std::int64_t uid = -1, pid = 0;
    std::string process;  // its name; empty: not known
};
Actor this_actor();

// The last entry of a chain, or of what is known of it.
struct Head {
    std::uint64_t sequence = 0;  // 0: there is none
    std::string hash;            // 64 hexadecimal digits; empty: there is none
    bool operator==(const Head&) const = default;
};

// An entry as it was read.
struct Entry {
    std::uint64_t sequence = 0;
    std::int64_t unix_ms = 0;
    std::string kind, box_id, box_name;
    Actor actor;
    std::string details;           // a JSON object
    std::string previous, hash;    // as the line says
    bool intact = false;           // the line has the hash that it says
};

// The line that follows `previous`, with its end, and the head that it makes.
std::pair<std::string, Head> make_line(const Event& event, const Actor& actor, std::int64_t unix_ms, const Head& previous);
// One line without its end. kCorrupt: it is none. Whether it was changed is in `intact`.
Result<Entry> parse_line(std::string_view line);

// "2026-05-01T12:00:00.123Z"
std::string format_time(std::int64_t unix_ms);

}  // namespace caisson::audit
