// Started as root: everything is done as the service user, see os/user.h.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "box/host_limits.h"
#include "box/place.h"
#include "box/state.h"
#include "net/space/tun.h"
#include "os/user.h"

namespace caisson {

using base::failure;

namespace {

constexpr const char* kPrograms[] = {"caisson-shim", "caisson-unpack", "caisson-agent", "caisson-fetch",
                                     "caisson-enter", "caisson-share", "caisson-copy", "caisson-netns", "caisson-netd"};

// The service user cannot enter, say, a build tree below /root. Then it gets copies of caisson's programs in the home.
Result<> copy_program(const os::Fd& source, const std::string& target) {
    struct stat from {};
    struct stat to {};
    if (::fstat(source.get(), &from) != 0) return base::failure_errno("cannot look at caisson's programs");
    if (::stat(target.c_str(), &to) == 0 && to.st_size == from.st_size && to.st_mtim.tv_sec == from.st_mtim.tv_sec &&
        to.st_mtim.tv_nsec == from.st_mtim.tv_nsec)
        return {};
    CAISSON_TRY(os::write_file_atomic(target, CAISSON_TRY(os::read_fd(source.get(), 256 << 20, target)), 0755));
    struct timespec times[2] = {from.st_mtim, from.st_mtim};
    if (::utimensat(AT_FDCWD, target.c_str(), times, 0) != 0) return base::failure_errno("cannot set the time of " + target);
    return {};
}

}  // namespace

Result<RuntimeOptions> leave_root(RuntimeOptions options) {
    if (::geteuid() != 0) return options;
    if (options.home.empty())
        options.home = CAISSON_TRY(store::default_home(::getenv("CAISSON_HOME"), ::getenv("HOME"), true));
    if (options.program_directory.empty()) options.program_directory = box::own_program_directory();
    if (options.caller_uid < 0) options.caller_uid = static_cast<std::int64_t>(::getuid());
    auto identity = os::service_identity();
    CAISSON_TRY(store::prepare_home_as_root(options.home, identity.user, identity.group));
    const auto libexec = box::prefix_of(options.program_directory) + "/libexec/caisson/";
    os::Fd programs[std::size(kPrograms)];
    for (std::size_t i = 0; i < std::size(kPrograms); ++i)
        programs[i] = CAISSON_TRY(os::open_file(libexec + kPrograms[i], O_RDONLY));
    // Left open for the life of the process; it leads to new machines and to nothing that exists.
    if (options.kvm_fd < 0)
        if (auto kvm = os::open_file("/dev/kvm", O_RDWR)) options.kvm_fd = kvm->release();
    // Where it cannot be had a box without a network starts all the same, and another one says why it does not.
    if (options.tun_fd < 0)
        if (auto tun = net::open_tun_node(identity.user)) options.tun_fd = tun->release();
    if (options.cgroup_fd < 0) options.cgroup_fd = box::prepare_groups_as_root(options.home, identity);
    CAISSON_TRY(os::drop_to(identity));
    if (::chdir("/") != 0) return base::failure_errno("cannot leave the working directory");

    if (::access(options.home.c_str(), W_OK | X_OK) != 0 && errno == EROFS) return base::failure_errno("cannot write to the home " + options.home);
    if (::access(options.home.c_str(), W_OK | X_OK) != 0)
        return failure(Errc::kPermission,
                       "the service user (uid " + std::to_string(identity.user) + ") cannot reach the home " + options.home,
                       "let others pass the directories above it (chmod o+x), or use another CAISSON_HOME");
    if (::access((libexec + kPrograms[0]).c_str(), X_OK) != 0) {
        CAISSON_TRY(os::make_directories(options.home + "/programs", 0700));
        for (std::size_t i = 0; i < std::size(kPrograms); ++i)
            CAISSON_TRY(copy_program(programs[i], options.home + "/programs/" + kPrograms[i]));
    }
    return options;
}

Result<RuntimeOptions> leave_root_to_look(RuntimeOptions options) {
    if (::geteuid() != 0) return options;
    if (options.home.empty())
        options.home = CAISSON_TRY(store::default_home(::getenv("CAISSON_HOME"), ::getenv("HOME"), true));
    CAISSON_TRY(os::drop_to(os::service_identity()));
    if (::chdir("/") != 0) return base::failure_errno("cannot leave the working directory");
    return options;
}

}  // namespace caisson
