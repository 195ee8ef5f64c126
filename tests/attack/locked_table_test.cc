// Processes of caisson that lock themselves instead of being started in a jail: the copier, the supervisor of a box, and
// the program in its network's namespace.
// Each attempt of attempts.cc is made in a process of its own that has put on exactly that lock, as an ordinary user (also
// if this runs as root: what root's capabilities would refuse is to be refused by the lock).
// `attack_locked --print` prints the table as it stands in docs/security.md.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "attempt_table.h"
#include "attempts.h"
#include "box/copy_jail.h"
#include "box/shim_lock.h"
#include "host_things.h"
#include "net/space/lock.h"
#include "os/landlock.h"

namespace caisson::attack {
namespace {

enum Locked { kPacker, kExtractor, kSupervisor, kNetns, kLocked };
constexpr const char* kLockedNames[kLocked] = {"copier, packing", "copier, extracting", "supervisor", "namespace of the network"};

// What comes of an attempt of attempt_table.h; see Expected there. Empty: not tried, for it is not the lock that decides.
struct LockedRow {
    const char* id;
    const char* layer;
    const char* expected[kLocked];
};

// The namespace's program opens no file at all, so there the filter comes first; connections it makes, and they stay in its
// namespace.
constexpr const char* kFiles = "Landlock";
constexpr const char* kCalls = "system call filter";

const LockedRow kRows[] = {
    {"host_file", kFiles, {"EACCES", "EACCES", "EACCES", "ENOSYS"}},
    {"host_write", kFiles, {"EACCES", "EACCES", "EACCES", "ENOSYS"}},
    {"host_remove", kFiles, {"EACCES", "EACCES", "EACCES", "ENOSYS"}},
    {"passwd", kFiles, {"EACCES", "EACCES", "EACCES", "ENOSYS"}},
    {"home", kFiles, {"EACCES", "EACCES", "EACCES", "ENOSYS"}},
    {"database", kFiles, {"EACCES", "EACCES", "EACCES", "ENOSYS"}},
    {"other_box", kFiles, {"EACCES", "EACCES", "EACCES", "ENOSYS"}},
    {"secret", kFiles, {"EACCES", "EACCES", "EACCES", "ENOSYS"}},
    {"sys", kFiles, {"EACCES", "EACCES", "EACCES", "ENOSYS"}},
    {"leave_root_directory", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"by_handle", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"loopback", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "ENETUNREACH"}},
    {"outside", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "ENETUNREACH"}},
    {"abstract_socket", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "ENOSYS"}},
    {"path_socket", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "ENOSYS"}},
    {"vsock", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "ENOSYS"}},
    {"kill_other", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"pidfd_other", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"ptrace_other", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"read_other", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"slow_other", kCalls, {"SIGSYS", "SIGSYS", "ENOSYS", "ENOSYS"}},
    {"shared_memory", kCalls, {"SIGSYS", "SIGSYS", "ENOSYS", "ENOSYS"}},
    {"message_queue", kCalls, {"SIGSYS", "SIGSYS", "ENOSYS", "ENOSYS"}},
    {"push_input", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"unshare_user", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"clone_user", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"clone3_user", kCalls, {"SIGSYS", "SIGSYS", "ENOSYS", "ENOSYS"}},
    {"mount_tmpfs", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"new_mount_calls", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"bpf", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"perf", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"userfaultfd", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"io_uring", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"keyring", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"session_keys", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"take_capability", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
    {"more_files", kCalls, {"SIGSYS", "SIGSYS", "ENOSYS", "ENOSYS"}},
    {"core_dumps", kCalls, {"SIGSYS", "SIGSYS", "ENOSYS", "ENOSYS"}},
    {"many_descriptors", kCalls, {"", "", "ENOSYS", "ENOSYS"}},  // copiers are started with a limit
    {"many_processes", kCalls, {"SIGSYS", "SIGSYS", "SIGSYS", "SIGSYS"}},
};

std::string what_is(const std::string& id) {
    const auto rows = attempt_table();
    auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& each) { return each.id == id; });
    return row == rows.end() ? "?" : row->attempt;
}

std::string in_markdown() {
    std::string text = "| attempt | layer that denies |";
    for (const char* name : kLockedNames) text += " " + std::string(name) + " |";
    text += "\n|---|---|---|---|---|---|\n";
    for (const auto& row : kRows) {
        text += "| " + what_is(row.id) + " | " + row.layer + " |";
        for (std::string expected : row.expected) text += " " + (expected.empty() ? "–" : expected) + " |";
        text += "\n";
    }
    return text;
}

const Attempt& attempt_named(const std::string& id) {
    const auto all = attempts();
    auto found = std::find_if(all.begin(), all.end(), [&](const Attempt& each) { return id == each.id; });
    EXPECT_NE(found, all.end()) << id;
    return *found;
}

constexpr int kNotLocked = 254;

class LockedTable : public testing::Test {
  protected:
    void SetUp() override {
        if (os::landlock_version() < 6) GTEST_SKIP() << "the table is that of a kernel with Landlock 6 (Linux 6.12)";
        place_.directory("home/boxes/own");
    }
    Result<> lock(Locked kind) const {
        if (::geteuid() == 0) CAISSON_TRY(os::drop_to(os::service_identity()));
        const auto own = place_.path() + "/home/boxes/own";
        if (kind == kSupervisor) return box::lock_shim(own);
        if (kind == kNetns) {
            if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return base::failure_errno("cannot make namespaces");
            return net::lock_netns();
        }
        auto directory = CAISSON_TRY(os::open_file(own, O_PATH | O_DIRECTORY));
        return box::enter_copy_jail(kind == kPacker ? box::CopyKind::kPack : box::CopyKind::kExtract, directory.get());
    }
    std::string result_of(Locked kind, const char* id) const {
        const auto& attempt = attempt_named(id);
        pid_t child = ::fork();
        if (child == 0) {
            for (const auto& word : host_.arguments()) aim(word.c_str());
            aim("only=");
            if (!lock(kind)) ::_exit(kNotLocked);
            ::_exit(try_once(attempt));
        }
        int status = 0;
        if (child < 0 || ::waitpid(child, &status, 0) != child) return "(no child)";
        if (WIFSIGNALED(status)) return "SIG" + std::string(::sigabbrev_np(WTERMSIG(status)));
        if (WEXITSTATUS(status) == kNotLocked) return "(not locked)";
        return WEXITSTATUS(status) == 0 ? "ok" : ::strerrorname_np(WEXITSTATUS(status));
    }
    void compare(Locked kind) const {
        std::string wrong;
        for (const auto& row : kRows) {
            const std::string wanted = row.expected[kind];
            if (wanted.empty()) continue;
            const auto got = result_of(kind, row.id);
            if (got == wanted) continue;
            wrong += "attempt " + std::string(row.id) + " (" + what_is(row.id) + "): " + got + " instead of " + wanted + "\n";
        }
        EXPECT_EQ(wrong, "") << "in place of the " << kLockedNames[kind];
    }

  private:
    Place place_;
    HostThings host_{place_};
};

TEST_F(LockedTable, InPlaceOfACopierThatPacks) { compare(kPacker); }
TEST_F(LockedTable, InPlaceOfACopierThatExtracts) { compare(kExtractor); }
TEST_F(LockedTable, InPlaceOfTheSupervisor) { compare(kSupervisor); }
TEST_F(LockedTable, InPlaceOfTheNamespaceOfTheNetwork) { compare(kNetns); }

TEST(LockedTableText, IsInTheDocs) {
    auto page = os::read_file(CAISSON_SOURCE "/docs/security.md").value();
    EXPECT_NE(page.find(in_markdown()), std::string::npos)
        << "docs/security.md does not have the table that follows (attack_locked --print):\n"
        << in_markdown();
}

}  // namespace

void print_locked_table() { std::printf("%s", in_markdown().c_str()); }

}  // namespace caisson::attack

int main(int count, char** arguments) {
    if (count == 2 && std::string(arguments[1]) == "--print") {
        caisson::attack::print_locked_table();
        return 0;
    }
    testing::InitGoogleTest(&count, arguments);
    return RUN_ALL_TESTS();
}
