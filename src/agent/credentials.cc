#include "agent/credentials.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace caisson::agent {

std::uint64_t default_capabilities() {
    std::uint64_t set = 0;
    for (int capability : {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FSETID, CAP_FOWNER, CAP_MKNOD, CAP_NET_RAW, CAP_SETGID,
                           CAP_SETUID, CAP_SETFCAP, CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_SYS_CHROOT, CAP_KILL,
                           CAP_AUDIT_WRITE})
        set |= 1ULL << capability;
    return set;
}

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

}  // namespace caisson::agent
