#include "agent/credentials.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/capabilities.h"

namespace caisson::agent {

bool set_capabilities(std::uint64_t set) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    data[0].effective = data[0].permitted = static_cast<__u32>(set);
    data[1].effective = data[1].permitted = static_cast<__u32>(set >> 32);
    return ::syscall(SYS_capset, &header, data) == 0;
}

Result<> limit_bounding_set(std::uint64_t set) {
    for (unsigned long capability = 0; capability < 64; ++capability) {
        if (set & (1ULL << capability)) continue;
        if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) continue;
        if (errno == EINVAL) break;  // beyond the last one that the kernel knows
        return base::failure_errno("cannot limit the capabilities of the container");
    }
    return {};
}

std::uint64_t wanted_capabilities(const wire::Exec& exec) {
    return exec.has_privileges() ? exec.privileges().capabilities() : base::default_capabilities();
}

}  // namespace caisson::agent
