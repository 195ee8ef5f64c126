// For libcaisson.so: the program that loaded it may lie anywhere.
#include <dlfcn.h>

#include <cstdlib>
#include <memory>

#include "box/place.h"

namespace caisson::box {

std::string own_program_directory() {
    Dl_info info{};
    // An address of this library's own. The name is the one that the loader found it by: absolute, or relative to the
    // directory in which the program was started.
    if (::dladdr(reinterpret_cast<const void*>(&own_program_directory), &info) == 0 || info.dli_fname == nullptr)
        return {};
    std::unique_ptr<char, decltype(&std::free)> real(::realpath(info.dli_fname, nullptr), &std::free);
    if (!real) return {};
    std::string library = real.get();
    // CAISSON_PREFIX_FROM_LIBRARY: from the library's directory up, such as "..".
    std::string up = library.substr(0, library.rfind('/')) + "/" CAISSON_PREFIX_FROM_LIBRARY;
    std::unique_ptr<char, decltype(&std::free)> prefix(::realpath(up.c_str(), nullptr), &std::free);
    return (prefix ? std::string(prefix.get()) : up) + "/bin";
}

}  // namespace caisson::box
