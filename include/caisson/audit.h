// The journal: who did what, when, from which process. One chain of entries for each box and one for the home, each entry
// with the hash of the one before it. Whoever owns the home can write all of it anew, the database included: what nobody
// can do is change it behind the back of somebody who has kept a head (Runtime::audit_head()) elsewhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "caisson/export.h"

namespace caisson {

// One entry. Its texts may have been chosen by guests and hold anything: they are not fit for a terminal.
struct AuditEvent {
    std::string chain;          // "home", the id of the box, or that and ".network"
    std::uint64_t sequence = 0; // in its chain, from 1 on
    std::int64_t time_ms = 0;   // Unix time
    std::string kind;           // stable, such as "box_started"; docs/audit.md lists them, and there will be more
    std::string box_id, box_name;  // empty: it is about no box
    std::int64_t uid = -1;      // of who did it; for programs started as root, root's
    std::int64_t pid = 0;
    std::string process;        // its name; empty: not known
    std::string details;        // a JSON object, with stable keys for each kind
    std::string previous_hash, hash;  // 64 hexadecimal digits
};

struct AuditQuery {
    std::string box;            // name, id or beginning of an id, also of boxes that are removed (by id); empty: everything
    bool follow = false;        // go on with what comes, until the sink says false
    std::optional<std::int64_t> since_ms;  // Unix time, inclusive
    std::vector<std::string> kinds;        // only these; empty: all
};

// The last entry of a chain.
struct AuditHead {
    std::string chain;
    std::uint64_t sequence = 0;  // 0: there is no entry
    std::string hash;
};

struct AuditFinding {
    std::string chain;
    std::uint64_t sequence = 0;  // the first entry that is not what was written
    std::string problem;         // "altered", "missing", "reordered", "cut", "rewritten"; "unreadable": the chain cannot be read; "unknown": it is older than what is kept
    std::string text;            // a sentence for people
};

struct AuditVerification {
    std::uint64_t chains = 0, entries = 0;  // that were looked at
    std::vector<AuditFinding> findings;     // the first of each chain; empty: all is as it was written
};

}  // namespace caisson
