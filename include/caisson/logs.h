// What boxes wrote: the history that Runtime::logs() reads, also of boxes that run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace caisson {

// A piece of output as the box wrote it, from one byte to 64 KiB, or a note that something is not there.
struct LogEntry {
    enum class Source { kStdout, kStderr, kConsole };
    enum class Kind {
        kBytes,
        kLost,     // the log could not be written for a while, `reason` says why
        kMissing,  // a part was rotated away before it was read, or is damaged, as `reason` says
    };
    Kind kind = Kind::kBytes;
    Source source = Source::kStdout;  // kLost: of the first byte that was lost
    std::uint64_t sequence = 0;       // counts the entries of one log; never repeats
    std::int64_t unix_ns = 0;         // when the host received it, Unix time
    std::string_view bytes;  // kBytes; valid while the sink runs. Anything the guest likes: not fit for a terminal
    std::uint64_t lost_bytes = 0;       // kLost
    std::uint64_t missing_entries = 0;  // kMissing
    std::string_view reason;
};

struct LogOptions {
    bool follow = false;  // go on with what comes, until the box has ended
    // Unix time in nanoseconds, both inclusive. With `follow`, reading ends when until_ns has passed.
    std::optional<std::int64_t> since_ns, until_ns;
    // Only the last lines of what was wanted and is there. 0 with `follow`: only what comes from now on.
    std::optional<std::uint64_t> tail_lines;
    bool want_stdout = true, want_stderr = true;
    bool console = false;   // instead: what the guest's kernel printed on its console
    std::string execution;  // id of an execution, or a unique beginning; empty: the box's own command
    std::optional<std::uint64_t> before_sequence;  // see Execution::log_position()
};

}  // namespace caisson
