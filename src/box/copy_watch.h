// Waiting until something below a directory changes.
#pragma once

#include "base/result.h"
#include "os/fd.h"

namespace caisson::box {

// inotify(7) on each directory of a tree. A link that takes a directory's place is not followed. Single-threaded.
class TreeWatch {
  public:
    // `directory` is the process's working directory, too: inotify knows paths only.
    static Result<TreeWatch> create(const os::Fd& directory);
    // Watches all directories that there are now. kLimit: more than the host lets one user watch.
    Result<> cover();
    // Waits for a change, and until no more come for a moment. false: nobody reads `reader` any more.
    Result<bool> wait(int reader);

  private:
    TreeWatch(os::Fd events, os::Fd directory) : events_(std::move(events)), directory_(std::move(directory)) {}
    Result<bool> poll(int reader, int patience_ms, bool& changed);
    os::Fd events_;
    os::Fd directory_;
};

}  // namespace caisson::box
