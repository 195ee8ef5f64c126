// Where caisson is installed, as seen by whoever runs this code.
#pragma once

#include <string>

namespace caisson::box {

// The directory of caisson's programs (PREFIX/bin): beside the running program if this code is linked into it, else
// that of the installation which libcaisson.so belongs to; each has a source file of its own. Empty if it cannot be
// found out.
std::string own_program_directory();

// The directory above that of the programs, without links where it can be followed.
std::string prefix_of(const std::string& program_directory);

}  // namespace caisson::box
