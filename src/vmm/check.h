// What must be true of the templates of a home: see template.h. They are made again when they are missing, so a repair removes
// those that are not complete.
#pragma once

#include <string>

#include "store/check.h"

namespace caisson::vmm {

// `count` is how many complete directories there are. Stale ones are no trouble, but what garbage collection is for.
store::Troubles check_templates(const std::string& home, const std::string& templates, std::size_t& count);

}  // namespace caisson::vmm
