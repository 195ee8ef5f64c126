// Copies of files between the host and a running box. Both ends are streams in tar's format: the box's end is an
// Execution (Runtime::copy_out(), Runtime::copy_in()), the host's a file, a pipe, or a HostCopy.
//
//     auto host = HostCopy::extract("report", {.top = copy_name("/tmp/report")});   // before leave_root()
//     auto box = runtime.copy_out("keen-otter-41", {.path = "/tmp/report"});
//     auto outcome = box->wait({.stdout_fd = host->stream_fd()});
//     auto copied = host->finish();
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caisson/export.h"
#include "caisson/outcome.h"
#include "caisson/result.h"

namespace caisson {

// The box's end.
struct CopyOptions {
    std::string path;         // in the box, from its root
    bool follow_link = false;  // out of the box: if `path` is a link, copy what it leads to, under the link's name
    bool keep_owner = false;  // into the box: owners and set-id bits as in the stream; else all belongs to root
    std::string top = ".";    // into the box: copy_name() of what was packed; ".": any names
    bool must_exist = false;  // into the box: `path` has to be a directory already
    std::string host_path;    // where the other end is, for the journal
};
// The execution's exit code: 0; 3 if the path does not exist in the box; 1 for other failures. Notices and at last the
// failure are lines of its standard error, which a hostile box may have written.
inline constexpr int kCopyNotFound = 3;

// What the box's end says while it copies, and whether it went well: add() is its StreamOptions::on_stderr. A hostile box
// may say anything and without end; 64 KiB of it are kept.
class CAISSON_API CopyWords {
  public:
    void add(std::string_view text);
    // Of a copy in (or out of) `box` that ended like this. Without a value: it went well. What was said beside the failure
    // goes to `on_notice` (which may be empty), line by line, fit for a terminal.
    std::optional<Error> failure(const std::string& box, const Outcome& outcome,
                                 const std::function<void(const std::string&)>& on_notice) const;

  private:
    std::string text_;
};

// What a stream calls a copy of `path`: its last part, or "." if it stands for contents ("/", "x/.").
CAISSON_API std::string copy_name(std::string_view path);
// Whether such a path was written as a directory's.
CAISSON_API bool copy_means_directory(std::string_view path);

struct HostCopyOptions {
    bool follow_link = false;  // pack: if the path is a link, what it leads to
    bool keep_owner = false;   // extract: owners (for root only) and set-id bits as in the stream; else the caller's and none
    std::string top = ".";     // extract: the copy_name() that was asked for; other names are refused
    // extract, without keep_owner: bits that modes lose; none: those of umask(2) of the process
    std::optional<unsigned> umask;
    // pack and extract: the stream holds the whole again, a moment after something changed, until nobody reads or writes it
    // any more. Both ends must want that.
    bool again = false;
    // extract: files that are there with the same size and time of last change stay as they are, and whatever else is in the
    // way of the copy but a directory is replaced.
    bool update = false;
    bool remove_others = false;  // with `update`: what is there and not in the stream is removed
    std::string program_directory;  // as in RuntimeOptions
    // Called by take_reports() and finish(): what was left out, for a person; and after each copy that updates, how many
    // files, directories and links are new and how many were removed.
    std::function<void(const std::string&)> on_notice;
    std::function<void(std::uint64_t changed, std::uint64_t removed)> on_pass;
};

// A volume's end of a copy.
struct VolumeCopyOptions {
    std::string path;  // in the volume; empty or "/": all that is in it
    // The numbers that stand in the archive for whoever owns the volume, and thus is the box's user in every box.
    std::uint32_t owner_user = 0, owner_group = 0;
    bool keep_owner = false;  // write: owners and set-id bits as in the stream; else all is the volume owner's
    std::string top = ".";    // write: as in HostCopyOptions
    bool make = true;         // write: a volume that is not there is made; it appears when it is complete, unless `again`
    std::uint64_t size_bytes = 0;  // of a volume that is made: its limit
    bool again = false, update = false, remove_others = false;  // as in HostCopyOptions
    std::string host_path;         // where the other end is, for the journal
    std::function<void(const std::string&)> on_notice;
    std::function<void(std::uint64_t changed, std::uint64_t removed)> on_pass;
};

// The host's end, or a volume's: a process of its own that has the caller's rights, one directory, and nothing else. For programs
// started as root: make it before leave_root(), or it has the service user's rights. Destroying it gives the copy up.
class CAISSON_API HostCopy {
  public:
    // Reads files: stream_fd() is read from. kNotFound. kUsage if the path is "LINK/" or "LINK/." and links are not followed.
    static Result<HostCopy> pack(const std::string& path, const HostCopyOptions& options);
    // Writes files, as `docker cp` names them: inside `path` if that is a directory, else as `path`. stream_fd() is
    // written to. Whatever the stream holds, nothing outside of that directory is made, changed or followed. Neither is
    // `path` itself, if it is a link: a file takes the link's place. Only files replace files.
    static Result<HostCopy> extract(const std::string& path, const HostCopyOptions& options);
    HostCopy(HostCopy&&) noexcept;
    HostCopy& operator=(HostCopy&&) noexcept;
    ~HostCopy();

    int stream_fd() const;
    // Becomes readable when there is something for take_reports(), which does not wait.
    int report_fd() const;
    Result<> take_reports();
    // Closes the stream and waits for the end. The error names the entry that could not be copied; what was copied
    // before it stays. A stream that was packed and not read to its end is no error here.
    Result<> finish();

  private:
    friend class Runtime;
    struct State;
    struct Plan;
    explicit HostCopy(std::unique_ptr<State> state);
    static Result<HostCopy> start(Plan plan);
    std::unique_ptr<State> state_;
};

}  // namespace caisson
