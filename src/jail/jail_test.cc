#include "jail/jail.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "jail/sandbox.h"
#include "os/file.h"

namespace caisson::jail {
namespace {

Description example() {
    Description description;
    description.name = "vmm";
    description.root = "/assets/vmm";
    description.mounts = {{Mount::Kind::kReadOnly, "/home/t", "/template"}, {Mount::Kind::kReadWrite, "/home/b", "/box"}};
    description.environment = {"PATH=/usr/bin"};
    description.arguments = {"/usr/bin/qemu", "-M", "microvm"};
    return description;
}

TEST(Jail, RendersTheGoldenCommandLine) {
    EXPECT_EQ(base::join(bwrap_arguments(example(), "/usr/bin/bwrap", true), " "),
              "/usr/bin/bwrap --unshare-user --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup --unshare-net "
              "--uid 1000 --gid 1000 --hostname caisson-jail --new-session --cap-drop ALL --clearenv --disable-userns --die-with-parent "
              "--ro-bind /assets/vmm / --ro-bind /home/t /template --bind /home/b /box --setenv PATH /usr/bin "
              "--chdir / -- /usr/bin/qemu -M microvm");
}

TEST(Jail, AsksBubblewrapForItsFirstProcessOnlyWhereThatIsRead) {
    auto description = example();
    EXPECT_EQ(base::join(bwrap_arguments(description, "bwrap", false), " ").find("--info-fd"), std::string::npos);
    description.info_fd = 7;
    EXPECT_NE(base::join(bwrap_arguments(description, "bwrap", false), " ").find("--info-fd 7 "), std::string::npos);
}

TEST(Jail, ForbidsUserNamespacesWhereBubblewrapCan) {
    auto directory = os::TemporaryDirectory::create("/tmp", "caisson-jail-").value();
    const auto bwrap = directory.path() + "/bwrap";
    EXPECT_FALSE(can_forbid_user_namespaces(bwrap));
    ASSERT_TRUE(os::write_file_atomic(bwrap, std::string("\x7f" "ELF\0--unshare-user\0", 20), 0755).has_value());
    EXPECT_FALSE(can_forbid_user_namespaces(bwrap));
    ASSERT_TRUE(os::write_file_atomic(bwrap, std::string("\x7f" "ELF\0--disable-userns\0", 22), 0755).has_value());
    EXPECT_TRUE(can_forbid_user_namespaces(bwrap));
    ASSERT_EQ(::chmod(bwrap.c_str(), 04755), 0);
    EXPECT_FALSE(can_forbid_user_namespaces(bwrap));
    EXPECT_EQ(base::join(bwrap_arguments(example(), bwrap, false), " ").find("--disable-userns"), std::string::npos);
}

TEST(Jail, EmptyDirectoriesCannotBeWrittenTo) {
    auto description = example();
    description.mounts = {{Mount::Kind::kTmpfs, "", "/box"}, {Mount::Kind::kReadWrite, "/home/b", "/box/disk"}};
    EXPECT_NE(base::join(bwrap_arguments(description, "bwrap", false), " ").find("--tmpfs /box --bind /home/b /box/disk --remount-ro /box "),
              std::string::npos);
}

TEST(Jail, WithoutARootTheJailIsEmptyAndReadOnly) {
    Description description;
    description.arguments = {"/x"};
    auto line = base::join(bwrap_arguments(description, "bwrap", false), " ");
    EXPECT_NE(line.find("--tmpfs / "), std::string::npos);
    EXPECT_NE(line.find("--remount-ro / --chdir"), std::string::npos);
}

TEST(NoJail, IsChosenByItsWordAlone) {
    EXPECT_EQ(sandbox_named("").value(), &bubblewrap());
    EXPECT_EQ(sandbox_named("jailed").value(), &bubblewrap());
    EXPECT_EQ(sandbox_named("none").value(), &no_jail());
    for (const char* word : {"None", "off", "no", "0", "jailed ", "none,jailed"}) EXPECT_EQ(sandbox_named(word).error().code, Errc::kUsage) << word;
}

TEST(NoJail, RefusesWhatOnlyAJailCanDo) {
    Description plain;
    plain.arguments = {"/bin/true"};
    EXPECT_TRUE(command(plain, no_jail()));
    auto refuses = [&](auto change) {
        auto description = plain;
        change(description);
        return !command(description, no_jail());
    };
    EXPECT_TRUE(refuses([](Description& it) { it.filter = Filter(); }));
    EXPECT_TRUE(refuses([](Description& it) { it.root = "/x"; }));
    EXPECT_TRUE(refuses([](Description& it) { it.mounts = {{Mount::Kind::kReadOnly, "/a", "/b"}}; }));
    EXPECT_TRUE(refuses([](Description& it) { it.enter = "/run/caisson-enter"; }));
}

TEST(NoJail, KeepsEnvironmentLimitsAndUserAndEndsByItsDescriptor) {
    auto pipe = os::make_pipe().value();
    Description description;
    description.name = "test";
    description.environment = {"A=b"};
    description.arguments = {"/bin/sh", "-c", "tr '\\0' '\\n' < /proc/self/environ; id -u; ulimit -n; echo; sleep 100"};
    description.descriptors = {{pipe.second.get(), 1}};
    description.resource_limits = {{RLIMIT_NOFILE, 64}};
    auto alone = start(description, no_jail());
    ASSERT_TRUE(alone) << alone.error().to_string();
    pipe.second.reset();
    std::string said;
    for (char c; said.find("\n\n") == std::string::npos && ::read(pipe.first.get(), &c, 1) == 1;) said += c;
    EXPECT_NE(said.find("A=b\n"), std::string::npos) << said;
    EXPECT_EQ(said.find("HOME="), std::string::npos) << said;
    EXPECT_NE(said.find("\n64\n"), std::string::npos) << said;
    EXPECT_EQ(said.find("\n0\n"), std::string::npos) << said;
    EXPECT_TRUE(alone->init.known());
    EXPECT_FALSE(alone->init.gone());
    alone->init.kill();
    auto ended = alone->process.wait(std::chrono::milliseconds(5000));
    ASSERT_TRUE(ended);
    EXPECT_TRUE(ended->signalled && ended->code == SIGKILL);
    EXPECT_TRUE(alone->init.gone());
}

// The rest needs user namespaces: ring `userns`.
class JailUserns : public testing::Test {
  protected:
    void SetUp() override {
        auto ready = preflight();
        ASSERT_TRUE(ready.has_value()) << ready.error().to_string() << "; " << ready.error().hint;
    }
    static std::string run(const std::string& script) {
        Description description;
        description.name = "test";
        description.root = "/";
        description.proc = true;
        description.minimal_dev = true;
        description.environment = {"PATH=/usr/bin:/bin"};
        description.arguments = {"/bin/sh", "-c", script};
        auto pipe = os::make_pipe().value();
        description.descriptors = {{pipe.second.get(), 1}, {pipe.second.get(), 2}};
        auto process = os::spawn(command(description).value()).value();
        pipe.second.reset();
        auto text = os::read_fd(pipe.first.get(), 1 << 20, "output").value();
        EXPECT_TRUE(process.wait().has_value());
        return text;
    }
};

// A jail that its owner's death does not end, with processes that hold the writing end of a pipe.
Jailed start_lasting_jail(const os::FdPair& pipe, const std::string& script) {
    Description description;
    description.name = "test";
    description.root = "/";
    description.proc = true;
    description.minimal_dev = true;
    description.environment = {"PATH=/usr/bin:/bin"};
    description.arguments = {"/bin/sh", "-c", script};
    description.descriptors = {{pipe.second.get(), 1}};
    description.die_with_parent = false;
    return start(description).value();
}

bool ends_within(const os::Fd& pipe, std::chrono::milliseconds limit) {
    const auto end = std::chrono::steady_clock::now() + limit;
    for (;;) {
        auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
        struct pollfd readable {pipe.get(), POLLIN, 0};
        if (left <= 0 || ::poll(&readable, 1, static_cast<int>(left)) <= 0) return false;
        char byte = 0;
        if (::read(pipe.get(), &byte, 1) == 0) return true;
    }
}

void expect_line(const os::Fd& pipe) {
    char byte = 0;
    while (byte != '\n') ASSERT_EQ(::read(pipe.get(), &byte, 1), 1);
}

TEST_F(JailUserns, DestroyingItEndsWhatOutlivesBubblewrap) {
    auto pipe = os::make_pipe().value();
    {
        auto jailed = start_lasting_jail(pipe, "trap '' HUP TERM; (sleep 100 &); echo ready; sleep 100; :");
        pipe.second.reset();
        expect_line(pipe.first);
        jailed.init.learn();
        EXPECT_TRUE(jailed.init.known());
        EXPECT_FALSE(jailed.init.gone());
        ASSERT_TRUE(jailed.process.send_signal(SIGKILL).has_value());
        ASSERT_TRUE(jailed.process.wait().has_value());
        EXPECT_FALSE(ends_within(pipe.first, std::chrono::milliseconds(100))) << "the jail ended by itself";
    }
    EXPECT_TRUE(ends_within(pipe.first, std::chrono::seconds(2)));
}

TEST_F(JailUserns, KillingItIsPossibleRightAfterItsStart) {
    for (int attempt = 0; attempt < 10; ++attempt) {
        auto pipe = os::make_pipe().value();
        auto jailed = start_lasting_jail(pipe, "sleep 100; :");
        pipe.second.reset();
        jailed.init.kill();
        EXPECT_TRUE(jailed.init.known());
        EXPECT_TRUE(ends_within(pipe.first, std::chrono::seconds(2)));
        auto ended = jailed.process.wait(std::chrono::seconds(2));
        EXPECT_TRUE(ended.has_value()) << ended.error().to_string();
        EXPECT_TRUE(jailed.init.gone());
    }
}

TEST_F(JailUserns, BubblewrapKilledBeforeItSaidAnythingIsNotWaitedFor) {
    auto pipe = os::make_pipe().value();
    auto jailed = start_lasting_jail(pipe, "sleep 100; :");
    ASSERT_TRUE(jailed.process.send_signal(SIGKILL).has_value());
    auto began = std::chrono::steady_clock::now();
    jailed.init.kill();
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(1));
    EXPECT_TRUE(jailed.init.known() || jailed.init.gone());
}

TEST_F(JailUserns, HasNoCapabilityAndNoNewPrivileges) {
    auto status = run("cat /proc/self/status");
    for (auto line : {"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000",
                      "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"})
        EXPECT_NE(status.find(line), std::string::npos) << line << " in\n" << status;
}

TEST_F(JailUserns, EveryNamespaceIsItsOwn) {
    for (const std::string kind : {"user", "mnt", "pid", "ipc", "uts", "cgroup", "net"}) {
        char outside[64] = {};
        ASSERT_GT(::readlink(("/proc/self/ns/" + kind).c_str(), outside, sizeof outside - 1), 0);
        auto inside = run("readlink /proc/self/ns/" + kind);
        EXPECT_EQ(inside.find(kind + ":["), 0u) << inside;
        EXPECT_NE(std::string(base::trim(inside)), outside) << kind;
    }
}

TEST_F(JailUserns, IsNeverRootOnTheHost) {
    // Seen from outside, where this test runs: the owner of the jailed process's /proc entry is its host uid.
    Description description;
    description.name = "test";
    description.root = "/";
    description.proc = true;
    description.arguments = {"/bin/sleep", "100"};
    auto process = os::spawn(command(description).value()).value();
    auto status = os::read_file("/proc/" + std::to_string(process.pid()) + "/status").value();
    auto at = status.find("\nUid:");
    ASSERT_NE(at, std::string::npos);
    unsigned real = 0;
    unsigned effective = 0;
    ASSERT_EQ(std::sscanf(status.c_str() + at, "\nUid:\t%u\t%u", &real, &effective), 2) << status;
    EXPECT_NE(real, 0u);
    EXPECT_NE(effective, 0u);
}

TEST_F(JailUserns, CannotMakeAUserNamespace) {
    if (!can_forbid_user_namespaces(find_bwrap().value())) GTEST_SKIP() << "bubblewrap is older than 0.8.0";
    EXPECT_EQ(run("unshare -U true || echo refused").find("unshare failed"), 9U);
}

TEST_F(JailUserns, HasNoNetworkButItsOwnLoopback) {
    EXPECT_EQ(run("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '"), "lo\n");
}

TEST_F(JailUserns, RootIsReadOnlyAndEnvironmentIsTheListedOne) {
    EXPECT_NE(run("echo x > /var/tmp/caisson-jail-test").find("Read-only file system"), std::string::npos);
    EXPECT_EQ(run("env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD="), "PATH=/usr/bin:/bin\n");
}

}  // namespace
}  // namespace caisson::jail
