// Directories that a power failure leaves where they are.
#pragma once

#include <string>

#include "base/result.h"

namespace caisson::os {

// As make_directories(), and what it makes has reached the disk when it returns. A directory above it that may be
// passed, but not read, cannot be asked for that.
Result<> make_lasting_directories(const std::string& path, unsigned mode = 0700);

}  // namespace caisson::os
