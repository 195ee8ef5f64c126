// Threads of a library inside somebody else's program.
#pragma once

#include <functional>
#include <thread>

#include "base/result.h"

namespace caisson::os {

// A thread that takes no signals: a program's are for its own threads. kIo if there can be none.
Result<std::thread> start_quiet_thread(std::function<void()> body);

}  // namespace caisson::os
