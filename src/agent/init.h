// PID 1 of the container: reaps what has lost its parent, and delivers signals to everyone when the agent asks.
#pragma once

namespace caisson::agent {

// Never returns. The caller is the first process of the container's pid namespace and has set everything up. It holds
// no descriptor afterwards, no capability but CAP_KILL, and nobody in the container may trace it. The agent asks for
// kill(-1, N) by sending SIGUSR1 with the value N: in the kernel one atomic walk over the namespace, which no fork
// can outrun. The same signal from inside the container is not listened to.
[[noreturn]] void run_container_init();

}  // namespace caisson::agent
