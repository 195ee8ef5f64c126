#include "box/place.h"

#include <cstdlib>
#include <memory>

namespace caisson::box {

std::string prefix_of(const std::string& program_directory) {
    std::string directory = program_directory;
    // The service user may be unable to follow it; and bin/ need not exist beside a library.
    if (std::unique_ptr<char, decltype(&std::free)> real(::realpath(directory.c_str(), nullptr), &std::free); real)
        directory = real.get();
    while (directory.size() > 1 && directory.back() == '/') directory.pop_back();
    return directory.substr(0, directory.rfind('/'));
}

}  // namespace caisson::box
