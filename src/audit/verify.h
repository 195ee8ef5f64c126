// Is a chain what was written? Finds the first entry that is not.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "audit/event.h"

namespace caisson::audit {

// What is known of a chain apart from its files.
struct Known {
    Head acknowledged;        // in the database
    std::uint64_t first = 1;  // the oldest entry that is kept
    std::optional<Head> anchored;  // by somebody outside
};

struct Finding {
    enum class Problem {
        kAltered,    // the entry is not the one that its hash, or the next entry, was made of
        kMissing,    // entries between others, or before them
        kReordered,  // it stands at another place
        kCut,        // the end is missing
        kRewritten,  // everything fits together, but is not what was acknowledged or anchored
        kUnknown,    // what was anchored is older than what is kept
    };
    Problem problem = Problem::kAltered;
    std::uint64_t sequence = 0;  // of the entry
    std::string text;            // a sentence
};
const char* to_string(Finding::Problem problem);

struct Verified {
    std::uint64_t entries = 0;  // that were read
    Head head;                  // the last one
    bool unfinished = false;    // behind it a piece of a line that was never acknowledged: somebody died over it, or is just writing
    std::optional<Finding> finding;
};

// kNotFound: there is no such chain although nothing says that there was one. Errors of reading.
Result<Verified> verify_chain(const std::string& directory, const Known& known);

}  // namespace caisson::audit
