#include "audit/verify.h"

#include <fcntl.h>

#include <algorithm>

#include "audit/chain.h"
#include "base/text.h"
#include "os/file.h"

namespace caisson::audit {

using Problem = Finding::Problem;

namespace {

// A file that somebody made larger than one of ours can be is not read into memory.
constexpr std::size_t kLargestFile = 64 << 20;

std::string entries_text(std::uint64_t first, std::uint64_t last) {
    if (first == last) return "entry " + std::to_string(first) + " is";
    return "entries " + std::to_string(first) + " to " + std::to_string(last) + " are";
}

// One walk over a chain, until the first finding.
class Walk {
  public:
    Walk(const os::Fd& directory, const Known& known) : directory_(directory), known_(known) {}

    Result<Verified> run() {
        files_ = CAISSON_TRY(list_files(directory_));
        for (std::size_t i = 0; i < files_.size() && !result_.finding && !result_.unfinished; ++i) CAISSON_TRY(read(i));
        if (!result_.finding) check_end();
        return std::move(result_);
    }

  private:
    Result<> read(std::size_t index) {
        auto fd = CAISSON_TRY(os::open_at(directory_, file_name(files_[index]), O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
        text_ = CAISSON_TRY(os::read_fd(fd.get(), kLargestFile, "the journal"));
        std::string_view rest = text_;
        while (!rest.empty() && !result_.finding && !result_.unfinished) {
            const auto end = rest.find('\n');
            if (end == std::string_view::npos) {
                // Only the last file may end so; else somebody appended behind what was never finished.
                if (index + 1 == files_.size()) result_.unfinished = true;
                else if (files_[index + 1] <= expected()) find(Problem::kAltered, expected(), "cannot be read");
                break;
            }
            check(rest.substr(0, end), rest.substr(end + 1));
            rest.remove_prefix(end + 1);
        }
        return {};
    }

    std::uint64_t expected() const { return result_.head.sequence + 1; }

    void find(Problem problem, std::uint64_t sequence, const std::string& what) {
        result_.finding = Finding{problem, sequence, "entry " + std::to_string(sequence) + " " + what};
    }

    void check(std::string_view line, std::string_view rest) {
        auto entry = parse_line(line);
        // A power failure took it, and with it what came after.
        if (!entry && expected() > known_.acknowledged.sequence && was_never_written(line)) {
            result_.unfinished = true;
            return;
        }
        const bool first = result_.entries == 0;
        if (!entry) return find(Problem::kAltered, first ? files_.front() : expected(), "was altered: it cannot be read");
        if (!entry->intact) return find(Problem::kAltered, first ? files_.front() : expected(), "was altered: its hash does not fit");
        if (first) check_first(*entry, rest);
        else check_place(*entry, rest);
        if (result_.finding) return;
        ++result_.entries;
        result_.head = {entry->sequence, entry->hash};
        compare(known_.acknowledged, "what the database has");
        if (known_.anchored) compare(*known_.anchored, "what was anchored");
    }

    void check_first(const Entry& entry, std::string_view rest) {
        const bool begins = entry.sequence == 1 && entry.previous.find_first_not_of('0') == std::string::npos;
        if (begins || (entry.sequence > 1 && entry.sequence <= known_.first)) return;
        if (entry.sequence == 1) return find(Problem::kAltered, 1, "was altered: it does not begin a chain");
        out_of_place(known_.first, entry, rest);
    }

    void check_place(const Entry& entry, std::string_view rest) {
        if (entry.sequence != expected()) return out_of_place(expected(), entry, rest);
        // Both are what their own hashes say: so the one before was made anew after this one had been written.
        if (entry.previous != result_.head.hash)
            find(Problem::kAltered, result_.head.sequence, "was altered: entry " + std::to_string(entry.sequence) + " was made after another one");
    }

    // The entry that belongs here is further back, or nowhere.
    void out_of_place(std::uint64_t wanted, const Entry& entry, std::string_view rest) {
        if (entry.sequence < wanted) return find(Problem::kReordered, entry.sequence, "stands behind entry " + std::to_string(wanted - 1));
        while (!rest.empty()) {
            const auto end = std::min(rest.find('\n'), rest.size() - 1);
            auto later = parse_line(rest.substr(0, end));
            if (later && later->sequence == wanted) return find(Problem::kReordered, wanted, "stands behind entry " + std::to_string(entry.sequence));
            rest.remove_prefix(end + 1);
        }
        result_.finding = Finding{Problem::kMissing, wanted, entries_text(wanted, entry.sequence - 1) + " missing"};
    }

    void compare(const Head& known, const std::string& whose) {
        if (known.sequence != result_.head.sequence || known.sequence == 0 || known.hash == result_.head.hash) return;
        find(Problem::kRewritten, known.sequence, "is not " + whose + ": it, or something before it, was written anew");
    }

    void check_end() {
        const auto last = result_.head.sequence;
        auto cut = [&](const Head& known, const std::string& whose) {
            if (known.sequence <= last || result_.finding) return;
            result_.finding = Finding{Problem::kCut, last + 1, entries_text(last + 1, known.sequence) + " cut off: " + whose + " ends with entry " +
                                                                   std::to_string(known.sequence)};
        };
        cut(known_.acknowledged, "what the database has");
        if (!known_.anchored) return;
        cut(*known_.anchored, "what was anchored");
        const auto oldest = last - result_.entries + 1;
        if (!result_.finding && known_.anchored->sequence > 0 && known_.anchored->sequence < oldest)
            find(Problem::kUnknown, known_.anchored->sequence, "is not kept any more; the oldest is entry " + std::to_string(oldest));
    }

    const os::Fd& directory_;
    const Known& known_;
    std::vector<std::uint64_t> files_;
    std::string text_;
    Verified result_;
};

}  // namespace

const char* to_string(Problem problem) {
    switch (problem) {
        case Problem::kAltered: return "altered";
        case Problem::kMissing: return "missing";
        case Problem::kReordered: return "reordered";
        case Problem::kCut: return "cut";
        case Problem::kRewritten: return "rewritten";
        case Problem::kUnknown: return "unknown";
    }
    return "altered";
}

Result<Verified> verify_chain(const std::string& directory, const Known& known) {
    auto opened = os::open_file(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!opened && opened.error().code == Errc::kNotFound && known.acknowledged.sequence > 0) {
        Verified gone;
        gone.finding = Finding{Problem::kCut, 1, "the whole journal is gone: what the database has ends with entry " +
                                                     std::to_string(known.acknowledged.sequence)};
        return gone;
    }
    const auto held = CAISSON_TRY(std::move(opened));
    return Walk(held, known).run();
}

}  // namespace caisson::audit
