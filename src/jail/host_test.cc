#include "jail/host.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "jail/jail.h"
#include "os/fd.h"
#include "os/file.h"

namespace caisson::jail {
namespace {

// A host where nothing is in the way.
HostJailFacts good_host() {
    HostJailFacts facts;
    facts.bwrap = "/usr/bin/bwrap";
    facts.apparmor_label = "unconfined";
    facts.kernel = "6.1.0-18-amd64";
    return facts;
}

void expect_refusal(const HostJailFacts& facts, const std::string& said, const std::string& why, const std::string& fix) {
    auto refused = refusal(facts, said);
    ASSERT_TRUE(refused.has_value()) << why;
    EXPECT_EQ(refused->code, Errc::kHostMissing);
    EXPECT_NE(refused->message.find(why), std::string::npos) << refused->message;
    EXPECT_NE(refused->hint.find(fix), std::string::npos) << refused->hint;
}

TEST(HostJail, AGoodHostIsNotRefused) {
    EXPECT_FALSE(refusal(good_host(), "").has_value());
    auto unlimited_apparmor = good_host();
    unlimited_apparmor.apparmor_restriction = "1";
    unlimited_apparmor.apparmor_label = "caisson (unconfined)";
    EXPECT_FALSE(refusal(unlimited_apparmor, "").has_value()) << "it has its profile";
}

TEST(HostJail, NamesTheSettingThatRefuses) {
    auto facts = good_host();
    facts.unprivileged_userns_clone = "0";
    facts.user_namespace_errno = EPERM;
    expect_refusal(facts, "bwrap: No permissions", "kernel.unprivileged_userns_clone", "sudo sysctl -w kernel.unprivileged_userns_clone=1");
    facts = good_host();
    facts.exhausted = {"user.max_user_namespaces", "user.max_net_namespaces"};
    expect_refusal(facts, "", "user.max_user_namespaces, user.max_net_namespaces = 0",
                   "sudo sysctl -w user.max_user_namespaces=15000 user.max_net_namespaces=15000");
    facts = good_host();
    facts.user_namespace_errno = ENOSPC;
    expect_refusal(facts, "", "a limit", "user.max_user_namespaces=15000");
    facts = good_host();
    facts.user_namespace_errno = EINVAL;
    expect_refusal(facts, "", "built without them", "CONFIG_USER_NS=y");
}

TEST(HostJail, AppArmorIsMendedByTheProfileIfItIsThere) {
    auto facts = good_host();
    facts.apparmor_restriction = "1";
    expect_refusal(facts, "", "AppArmor", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    facts.apparmor_profile = "/usr/share/caisson/apparmor/caisson";
    expect_refusal(facts, "", "AppArmor",
                   "sudo cp /usr/share/caisson/apparmor/caisson /etc/apparmor.d/ && sudo apparmor_parser -r /etc/apparmor.d/caisson");
    // There the kernel lets the namespace be made, under a profile that allows nothing in it.
    facts.apparmor_label = "unprivileged_userns (enforce)";
    expect_refusal(facts, "bwrap: setting up uid map: Permission denied", "AppArmor", "apparmor_parser");
}

TEST(HostJail, AContainersFilterIsToldWithItsOption) {
    auto facts = good_host();
    facts.user_namespace_errno = EPERM;
    facts.filtered = true;
    expect_refusal(facts, "", "a system call filter of whoever started this program", "seccomp=unconfined");
    facts.container = "Docker";
    expect_refusal(facts, "", "the system call filter of Docker", "docker run --security-opt seccomp=unconfined");
    facts.container = "Podman";
    expect_refusal(facts, "", "the system call filter of Podman", "podman run --security-opt seccomp=unconfined");
    // Masked paths of /proc are in the way of the jail's own.
    facts.user_namespace_errno = 0;
    expect_refusal(facts, "bwrap: Can't mount proc on /newroot/proc", "Can't mount proc", "systempaths=unconfined");
}

TEST(HostJail, MissingCallsAreNamed) {
    auto facts = good_host();
    facts.kernel = "5.4.0";
    facts.missing_calls = {"clone3", "openat2"};
    expect_refusal(facts, "", "missing in kernel 5.4.0: clone3, openat2", "Linux 6.1 or newer");
    facts.container = "Docker";
    expect_refusal(facts, "", "refused by a system call filter: clone3, openat2", "seccomp=unconfined");
}

TEST(HostJail, LimitsAndBubblewrapItself) {
    auto facts = good_host();
    facts.bwrap.clear();
    expect_refusal(facts, "", "bubblewrap (bwrap) is not installed", "apt-get install bubblewrap");
    facts = good_host();
    facts.user_namespace_errno = EAGAIN;
    facts.process_limit = 12;
    expect_refusal(facts, "", "no more processes (limit 12)", "ulimit -u");
    facts = good_host();
    facts.process_limit = 12;
    expect_refusal(facts, "bwrap: Can't fork: Resource temporarily unavailable", "12 processes", "ulimit -u");
    facts = good_host();
    facts.bwrap_set_user_id = true;
    expect_refusal(facts, "bwrap: something", "set-user-id", "sudo chmod u-s /usr/bin/bwrap");
    expect_refusal(good_host(), "bwrap: something", "bwrap: something", "caisson doctor");
}

TEST(HostJail, ThisKernelHasAllCalls) { EXPECT_EQ(missing_calls(), std::vector<std::string>()); }

// ---- Real refusals: in a child that makes its own host worse.

// What preflight() and ready() say there: two lines each.
std::string in_worse_host(const std::function<bool()>& spoil) {
    auto pipe = os::make_pipe().value();
    pid_t child = ::fork();
    if (child == 0) {
        std::string text = "could not be spoilt";
        if (spoil()) {
            text.clear();
            for (const auto& result : {preflight(), ready()})
                text += result ? "nothing refused\n" : result.error().to_string() + "\n" + result.error().hint + "\n";
        }
        static_cast<void>(os::write_all(pipe.second.get(), text));
        ::_exit(0);
    }
    pipe.second.reset();
    auto text = os::read_fd(pipe.first.get(), 1 << 16, "the child's words").value();
    ::waitpid(child, nullptr, 0);
    return text;
}

// Refuses one call, or clone with a user namespace, as a container's filter does.
bool refuse_call(unsigned number, unsigned error) {
    std::vector<sock_filter> program{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
    const bool by_flag = number == SYS_clone || number == SYS_unshare;
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, static_cast<unsigned char>(by_flag ? 3 : 1)));
    if (by_flag) {
        program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])));
        program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEWUSER, 0, 1));
    }
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST(HostJailUserns, AFilterThatRefusesUserNamespacesIsNamed) {
    auto text = in_worse_host([] { return refuse_call(SYS_clone, EPERM) && refuse_call(SYS_unshare, EPERM); });
    EXPECT_NE(text.find("user namespaces are refused by"), std::string::npos) << text;
    EXPECT_NE(text.find("system call filter"), std::string::npos) << text;
    EXPECT_NE(text.find("seccomp=unconfined"), std::string::npos) << text;
    EXPECT_EQ(text.find("nothing refused"), std::string::npos) << text;
}

TEST(HostJailUserns, AFilterThatTakesACallOfTheFloorIsNamed) {
    for (unsigned error : {unsigned{ENOSYS}, unsigned{EPERM}}) {
        auto text = in_worse_host([=] { return refuse_call(SYS_clone3, error); });
        EXPECT_NE(text.find("refused by a system call filter: clone3"), std::string::npos) << text;
        EXPECT_EQ(text.find("nothing refused"), std::string::npos) << text;
    }
}

TEST(HostJailUserns, AHostWithoutUserNamespacesLeftIsNamed) {
    auto text = in_worse_host([] {
        auto put = [](const char* path, const std::string& content) {
            os::Fd file(::open(path, O_WRONLY | O_CLOEXEC));
            return file && ::write(file.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size());
        };
        // A user namespace of its own has limits of its own, which its maker may set. Not as root: caisson never works as that.
        auto map = "4321 " + std::to_string(::geteuid()) + " 1";
        return ::unshare(CLONE_NEWUSER) == 0 && put("/proc/self/uid_map", map) &&
               put("/proc/sys/user/max_user_namespaces", "0");
    });
    EXPECT_NE(text.find("the limit user.max_user_namespaces = 0"), std::string::npos) << text;
    EXPECT_NE(text.find("sudo sysctl -w user.max_user_namespaces=15000"), std::string::npos) << text;
    EXPECT_EQ(text.find("nothing refused"), std::string::npos) << text;
}

}  // namespace
}  // namespace caisson::jail
