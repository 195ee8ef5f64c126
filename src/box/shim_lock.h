// How the shim locks itself, once everything that it needs is open and before the first byte of a guest is read: pure
// descriptions of what is left to it, and the function that applies them for good.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "jail/filter.h"
#include "os/landlock.h"

namespace caisson::box {

// Opens: reading, writing, making and removing regular files and directories in the box's directory; no other file, no
// TCP, no abstract socket of others. It can make no symbolic links, sockets and devices there, and link or rename
// nothing from elsewhere: what the launcher finds under a name in that directory was made there.
// An empty name: no file at all (see listener.h). And of the journal, its own box's chain, whose directory is `journal`
// (empty: none): reading it, appending to it, taking back what could not be written whole, and removing its oldest files;
// so one that was taken over can forge what its own box did from then on, and nothing of other boxes or of the home.
os::Landlock shim_files(const std::string& box_directory, const std::vector<std::string>& journals = {});

// Opens what an event loop over descriptors that are there, its logs and SQLite call. Not among them: starting or tracing
// processes, signals to others (but SIGKILL through a pidfd that it was given), new sockets, executable memory.
jail::Filter shim_calls();

// For people: one line per rule.
std::string describe_lock(const std::string& box_directory, const std::vector<std::string>& journals = {});

// Applies them to this process, with limits of descriptors (enough for all clients) and no core files. On a kernel
// without Landlock the rest has to do. Errors: kHostMissing, a kernel that refuses.
Result<> lock_shim(const std::string& box_directory, const std::vector<std::string>& journals = {});

}  // namespace caisson::box
