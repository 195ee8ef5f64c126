// How a caisson-copy process is started; for this room, where copies of files (copy.cc) and of volumes (volumes.cc) are.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "box/copy_protocol.h"
#include "caisson/copy.h"
#include "os/fd.h"

namespace caisson {

struct HostCopy::Plan {
    bool packs = false;
    std::string program;  // caisson-copy
    std::vector<std::string> arguments;  // without the program
    int directory = -1, count = -1;      // stay the caller's
    std::shared_ptr<void> held;  // until the copy has ended
    // What is done once it has succeeded.
    std::function<Result<>()> complete;
    std::function<void(const std::string&)> on_notice;
    std::function<void(std::uint64_t changed, std::uint64_t removed)> on_pass;
};

}  // namespace caisson
