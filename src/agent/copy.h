// The box's end of `caisson cp`: files of the container as a tar archive, in code of the agent, since images need not
// have a tar.
#pragma once

#include "wire/agent.pb.h"

namespace caisson::agent {

// Runs in a process that has joined the container and has a root user's rights in it and no more; the umask is 0. Reads
// the archive from `input` or writes it to `output`, both blocking; notices and at last the failure go to `errors`, a
// line each. Returns the exit code, see wire::Copy.
int run_copy(const wire::Copy& copy, int input, int output, int errors);

}  // namespace caisson::agent
