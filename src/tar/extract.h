// Extraction of an archive that somebody hostile may have written: whatever it says, nothing is made, changed or
// followed outside of the one directory that it is extracted to, and nothing below that directory but what the archive
// names.
//
// - Each entry's parent directory is resolved from that directory's descriptor, beneath it and through no link
//   (openat2(2): RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS); its last part is never followed either.
// - What is in the way is replaced, never written to: a file of several names, or a pipe, keeps what it is. It is replaced
//   by something complete: until then that has a name which nobody can guess, in the same directory.
// - Only a file replaces a file, and nothing a device (replaces_all: anything replaces anything but a directory).
// - A directory is never replaced, nor does one replace anything. One that was there before stays as it is.
// - A hard link leads only to what this very extraction made.
// - Links get their text as it is, and are not looked at again. Those that may lead out of the copy are told, as the next
//   program may follow them.
// - Modes, owners and times of directories come last, so that read-only ones can be filled.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "os/fd.h"
#include "tar/entry.h"
#include "tar/names.h"

namespace caisson::tar {

// Where a copy goes.
struct Destination {
    os::Fd directory;  // the destination, or the directory that it is or is to be in
    std::string name;  // in that directory; empty if `directory` is the destination itself
    Present present = Present::kNothing;
    bool slash = false;  // it was written as a directory's path
    std::string shown;   // for messages
};

// As the calling process sees `path`. The parts above its last one are followed. A link that is the last one is what the
// copy is to replace (Present::kOther), unless `follow` is set: whoever wrote an earlier copy may have made it. kUsage if
// that would surprise, since it leads to a directory or the path can only mean one. kNotFound if the parent is not there.
Result<Destination> open_destination(const std::string& path, bool follow);

struct ExtractOptions {
    // The first part that every name of the archive must have; ".": it holds a directory's contents, under any names.
    std::string top = ".";
    // Owners as in the archive, and with them set-id bits. Else all belongs to the calling process's user.
    bool keep_owner = false;
    std::uint32_t mask = 0;     // bits that no mode gets, as with umask(2)
    bool make_devices = false;  // else they are left out with a notice
    // Links that lie where the archive has a directory are followed, as by any other program. Only where the process can
    // reach nothing but what the archive's author may change anyway: in a container.
    bool follow_links = false;
    // Links, pipes and devices of the archive take the place of files, too, and anything that of a device.
    bool replaces_all = false;
    bool must_exist = false;  // the destination has to be a directory already
    // Files that are there already, with the same size and time of last change, stay as they are, and links with the same
    // text.
    bool update = false;
    // At the end, what the archive did not name is removed. Only for contents that go to a directory that exists.
    bool remove_others = false;
    // Where something else than the file system keeps owner, mode and kind: files and directories are then the calling
    // user's alone, devices and pipes are empty files, and this is given each of them, open. `fresh`: it was made now,
    // else only its mode is new. Links have no owner then, and are not told, as nothing of this host follows them.
    std::function<Result<>(int file, const Entry& entry, bool fresh)> describe;
    // Which links become files that hold their text, for `describe`, as links cannot be described.
    std::function<bool(const Entry& entry)> link_as_file;
    // Asks for space (kNoSpace), or gives it back: bytes on the disk.
    std::function<Result<>(std::int64_t bytes)> account;
    struct Report {
        std::uint64_t changed = 0, removed = 0;  // entries
    };
    Report* report = nullptr;
};

// Reads `source` to its end. The caller's umask must be 0. An error names the entry; what was made before it stays.
Result<> extract(Source source, const Destination& destination, const ExtractOptions& options, const Notice& notice);

}  // namespace caisson::tar
