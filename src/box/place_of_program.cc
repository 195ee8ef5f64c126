// For programs that have the library in them.
#include "box/place.h"
#include "os/host.h"

namespace caisson::box {

std::string own_program_directory() { return os::program_directory(); }

}  // namespace caisson::box
