// Packing: a file, a link, or a directory with all that is below it, as an archive. Memory does not grow with files,
// only with directories that wait for their turn and with files of several names.
#pragma once

#include <string>

#include "os/fd.h"
#include "tar/entry.h"

namespace caisson::tar {

// What is packed: `name` in `directory`, without following it. `name` may be ".".
struct Origin {
    os::Fd directory;
    std::string name;
    std::string top;  // the first part of each name in the archive; "." for contents
};

// As the calling process sees `path`. The parts above its last one are followed. A link that is the last one is itself,
// unless `follow` is set; the archive has the link's name even then. kUsage if it is a link that is not to be followed and
// the path can only mean a directory: whoever wrote an earlier copy may have made it. kNotFound if nothing is there.
Result<Origin> open_origin(const std::string& path, bool follow);

// Says what an entry is, instead of the file system: owner, mode and kind may be changed, and what a
// link says; the path not. `file` is an open
// file or directory, or -1 for anything else. false: leave it out, with a notice.
using View = std::function<Result<bool>(int file, Entry& entry)>;

// The complete archive. Holes are kept, names of one file become hard links. Sockets are left out with a notice, and
// so is what lies below a directory of the kernel's own (proc, sysfs and their like). A file that changes meanwhile has
// the size that it had at first, with zeros for what is missing, and a notice.
Result<> pack(const Origin& origin, Sink sink, const Notice& notice, const View& view = {});

}  // namespace caisson::tar
