// Which boxes a command is for, as commands for one or many boxes share it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "caisson/runtime.h"

namespace CLI {
class App;
}

namespace caisson::cli {

// Those named, or those that have labels.
struct Chosen {
    std::vector<std::string> names, labels;
};

void add_chosen(CLI::App& command, const std::shared_ptr<Chosen>& chosen);

// `fits`: which of the labelled ones it makes sense for. kUsage if none or both are given.
Result<std::vector<std::string>> resolve(Runtime& runtime, const Chosen& chosen, const std::function<bool(const BoxInfo&)>& fits);

// Does a process answer for it?
bool is_live(const BoxInfo& box);

}  // namespace caisson::cli
