#include "volume/jail.h"

#include <sys/resource.h>

#include <algorithm>

#include "jail/kinds.h"
#include "volume/share/limits.h"

namespace caisson::volume {

namespace {

constexpr const char* kProgramInJail = "/caisson-share";
// Its own memory: messages under way and a few hundred bytes for each file that the guest knows.
constexpr std::uint64_t kMemoryBytes = 1ull << 30;

// A file that the guest knows is a descriptor here.
std::uint64_t most_descriptors() {
    struct rlimit now {};
    if (::getrlimit(RLIMIT_NOFILE, &now) != 0) return 1024;
    return std::min<std::uint64_t>(now.rlim_max, share::kMostDescriptors);
}

}  // namespace

jail::Description share_jail(const std::string& program, const jail::Sandbox& sandbox) {
    jail::Description description;
    description.name = "share";
    description.resource_limits = {{RLIMIT_NOFILE, most_descriptors()}};
    if (&sandbox == &jail::no_jail()) {
        description.arguments = {program};
        return description;
    }
    description.filter = jail::share_filter();
#ifdef CAISSON_STATIC_SHARE
    description.mounts = {{jail::Mount::Kind::kReadOnly, program, kProgramInJail}};
    description.arguments = {kProgramInJail};
    description.resource_limits.push_back({RLIMIT_DATA, kMemoryBytes});
#else
    description.root = "/";  // sanitizers need shared libraries
    description.arguments = {program};
#endif
    // Its own files by their descriptors, and only its own: the processes in it are its own as well.
    description.proc = true;
    return description;
}

}  // namespace caisson::volume
