// Jails of which bubblewrap's outer process was killed before it had finished: what it had started does not die with it then,
// and nobody holds what would end it (see Init in jail.h). Source: proc(5).
#pragma once

#include <functional>
#include <string>

namespace caisson::jail {

// Is it a process of this user? Told by status, which everybody may read: a process that may not be dumped has its /proc
// entry owned by root. `process`: its directory in /proc.
bool is_own_process(const std::string& process);
// Is it bubblewrap, making or holding a jail in whose command line `path` stands? It must be bubblewrap, not a program that
// only mentions it: somebody's editor or grep.
bool is_unfinished_jail(const std::string& process, const std::string& path);
// SIGKILL to every process of this user but the caller that is `meant`. Returns how many were found.
int kill_own_processes(const std::function<bool(const std::string& process)>& meant);
// To every jail that is unfinished like this. Only for a `path` that no living jail can have. Returns how many were found.
int kill_unfinished_jails(const std::string& path);

}  // namespace caisson::jail
