// One chain on the disk: a directory of files, each named by the sequence of its first entry, "00000000000000000001.jsonl".
// No file is ever renamed; the last one is appended to, and the oldest goes when there are too many.
//
// Written by several processes at once, under flock(2) of the directory: each entry by one write of its whole line.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "audit/event.h"
#include "audit/limits.h"
#include "os/fd.h"

namespace caisson::audit {

struct ChainLimits {
    std::uint64_t file_bytes = limits::kFileBytes;
    std::size_t files = limits::kMostFiles;
};

std::string file_name(std::uint64_t first_sequence);
// The first sequences of the files that are there, ascending. Other names are left out.
Result<std::vector<std::uint64_t>> list_files(const os::Fd& directory);

// The disk was to hold a line here and never got it: zeros stand there, which no line has. Where nothing was acknowledged
// that is what a power failure leaves, and nobody's doing.
bool was_never_written(std::string_view line);

// Appends to a chain. Not for two threads at once; other processes may append meanwhile.
class Writer {
  public:
    // Makes the directory (0700) if it is missing, and those above.
    static Result<Writer> open(const std::string& directory, ChainLimits limits = {});

    // Appends one entry and returns the head that it makes: seen by every process from now on, and there whatever becomes
    // of this one. `acknowledged` is asked for the head that the database has, when somebody else may have written since.
    // What a crash of the host left of lines that were not acknowledged is taken away, and an entry ("journal_torn") says
    // so; a chain that ends before what was acknowledged goes on behind that, so that the gap stays. kNoSpace, kIo: nothing was appended.
    Result<Head> append(const Event& event, const Actor& actor, std::int64_t unix_ms, const std::function<Result<Head>()>& acknowledged);

    // What was appended until now, by anybody, is on the disk when this returns. `whole`: and the names that lead there.
    Result<> sync(bool whole);
    // The last entry that can be read.
    Result<std::optional<Entry>> last() const;

    // The oldest files go if there are more than the limit; `keep` is told before which sequence will be first then, and
    // makes that known for good. Takes no lock: nobody appends to those files.
    Result<> trim(const std::function<Result<>(std::uint64_t first)>& keep);

  private:
    struct Tail {
        std::uint64_t file = 0;     // the last one's name; 0: there is none
        std::uint64_t bytes = 0;    // of its lines that are as they were written
        std::string torn;           // what stands behind them
        Head head;
        std::optional<Entry> last;  // as it was read
    };
    Writer(os::Fd directory, os::Fd parent, std::string path, ChainLimits limits)
        : directory_(std::move(directory)), parent_(std::move(parent)), path_(std::move(path)), limits_(limits) {}
    Result<bool> read_end_of(std::uint64_t file, std::uint64_t acknowledged, Tail& tail, std::uint64_t& damaged) const;
    Result<Tail> read_tail(std::uint64_t acknowledged) const;
    bool is_as_left() const;
    Result<> write_line(const std::string& line);
    Result<> put(const Event& event, const Actor& actor, std::int64_t unix_ms);

    os::Fd directory_;
    os::Fd parent_;  // for sync(): who has locked itself cannot open it any more
    std::string path_;
    ChainLimits limits_;
    std::optional<Tail> tail_;  // as we left it
};

// Reads a chain from its oldest entry on, and goes on where it was when there is more. Holds no file open between calls.
class Cursor {
  public:
    explicit Cursor(std::string directory) : directory_(std::move(directory)) {}
    // The next entry that can be read; nothing: that was all for now. A chain that is not there (any more) has none.
    Result<std::optional<Entry>> next();
    // Lines that were none.
    std::uint64_t unreadable() const { return unreadable_; }

  private:
    Result<bool> fill();

    std::string directory_;
    std::uint64_t file_ = 0;    // that is read; 0: none yet
    std::uint64_t offset_ = 0;  // of what is not in the buffer yet
    std::string buffer_;
    std::size_t used_ = 0;
    std::uint64_t unreadable_ = 0;
};

}  // namespace caisson::audit
