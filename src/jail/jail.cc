#include "jail/jail.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string_view>

#include "base/text.h"
#include "jail/host.h"
#include "jail/sandbox.h"
#include "os/file.h"
#include "os/user.h"

namespace caisson::jail {

using base::failure;

namespace {

// bwrap --uid alone would leave the *host's* uid 0 to whatever escapes the namespaces.
void leave_root(os::Command& command) {
    if (::geteuid() != 0) return;
    auto identity = os::service_identity();
    command.user = identity.user;
    command.group = identity.group;
}

// What bubblewrap may say about the jail it made, and it says less than 400 bytes.
constexpr std::size_t kMaxInfoBytes = 4096;

// From bwrap --info-fd: {"child-pid": 4711, ...}, the number as bubblewrap sees it. nullopt: it is not there.
std::optional<pid_t> parse_child_pid(std::string_view said) {
    constexpr std::string_view kKey = "\"child-pid\":";
    auto at = said.find(kKey);
    if (at == std::string_view::npos) return std::nullopt;
    auto rest = base::trim(said.substr(at + kKey.size()));
    auto pid = base::parse_u64(rest.substr(0, rest.find_first_not_of("0123456789")));
    constexpr std::uint64_t kMaxPid = 1 << 22;  // PID_MAX_LIMIT
    if (!pid || *pid < 2 || *pid > kMaxPid) return std::nullopt;
    return static_cast<pid_t>(*pid);
}

// What is executed inside: the program, or caisson-enter, which becomes it.
std::vector<std::string> program_words(const Description& description) {
    std::vector<std::string> words;
    if (!description.enter.empty()) {
        words.push_back(description.enter);
        if (description.share_network) words.push_back("--tcp");
        if (description.received >= 0) words.insert(words.end(), {"--receive", std::to_string(description.received)});
        for (const auto& mount : description.mounts)
            if (mount.kind == Mount::Kind::kReadWrite) words.push_back(mount.target);
        words.push_back("--");
    }
    words.insert(words.end(), description.arguments.begin(), description.arguments.end());
    return words;
}

}  // namespace

void enter_by(Description& description, const std::string& program, const std::string& target) {
    if (program.empty()) return;
    description.mounts.push_back({Mount::Kind::kReadOnly, program, target});
    description.enter = target;
}

Result<std::string> find_bwrap() {
    for (const char* path : {"/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"})
        if (::access(path, X_OK) == 0) return std::string(path);
    return failure(Errc::kHostMissing, "bubblewrap (bwrap) is not installed",
                   "install it: sudo apt-get install bubblewrap");
}

int filter_descriptor(const Description& description) {
    int highest = std::max(STDERR_FILENO, description.info_fd);
    for (const auto& descriptor : description.descriptors) highest = std::max(highest, descriptor.target);
    return highest + 1;
}

bool can_forbid_user_namespaces(const std::string& bwrap) {
    struct stat info {};
    if (::stat(bwrap.c_str(), &info) != 0 || (info.st_mode & S_ISUID) != 0) return false;
    // The program holds the names of its options. Reading it takes microseconds, asking it for its version would cost
    // every box a process.
    auto program = os::read_file(bwrap);
    return program && program->find("--disable-userns") != std::string::npos;
}

std::vector<std::string> bwrap_arguments(const Description& description, const std::string& bwrap,
                                         bool forbid_user_namespaces) {
    // The user inside is neither root nor nobody; outside it is whoever started us (never root, see os/user.h).
    std::vector<std::string> arguments{bwrap, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
                                       "--unshare-cgroup"};
    auto add = [&](std::initializer_list<std::string> words) { arguments.insert(arguments.end(), words); };
    if (!description.share_network) add({"--unshare-net"});
    add({"--uid", "1000", "--gid", "1000", "--hostname", "caisson-jail", "--new-session", "--cap-drop", "ALL",
         "--clearenv"});
    // In a user namespace of its own a jailed program would be root over a network stack, mounts and more of the
    // kernel than it can reach otherwise.
    if (forbid_user_namespaces) add({"--disable-userns"});
    if (description.die_with_parent) add({"--die-with-parent"});
    if (description.info_fd >= 0) add({"--info-fd", std::to_string(description.info_fd)});
    if (description.filter) add({"--seccomp", std::to_string(filter_descriptor(description))});
    if (description.root.empty()) add({"--tmpfs", "/"});
    else add({"--ro-bind", description.root, "/"});
    if (description.proc) add({"--proc", "/proc"});
    if (description.minimal_dev) add({"--dev", "/dev"});
    for (const auto& mount : description.mounts) {
        switch (mount.kind) {
            case Mount::Kind::kReadOnly: add({"--ro-bind", mount.source, mount.target}); break;
            case Mount::Kind::kReadWrite: add({"--bind", mount.source, mount.target}); break;
            case Mount::Kind::kTmpfs: add({"--tmpfs", mount.target}); break;
        }
    }
    for (const auto& mount : description.mounts)
        if (mount.kind == Mount::Kind::kTmpfs) add({"--remount-ro", mount.target});
    // bwrap makes an empty root itself; nothing may be added to it afterwards.
    if (description.root.empty()) add({"--remount-ro", "/"});
    for (const auto& variable : description.environment) {
        auto equals = variable.find('=');
        add({"--setenv", variable.substr(0, equals), equals == std::string::npos ? "" : variable.substr(equals + 1)});
    }
    add({"--chdir", "/", "--"});
    const auto words = program_words(description);
    arguments.insert(arguments.end(), words.begin(), words.end());
    return arguments;
}

Result<JailCommand> command(const Description& description, const Sandbox& sandbox) {
    JailCommand command;
    command.arguments = description.arguments;
    command.environment = description.environment;
    command.descriptors = description.descriptors;
    command.resource_limits = description.resource_limits;
    command.resource_limits.push_back({RLIMIT_CORE, 0});  // a core would hold the guest's memory
    command.groups = description.groups;
    command.new_session = true;
    command.new_keyring = true;
    command.die_with_parent = description.die_with_parent;
    leave_root(command);
    SandboxContext context{.description = description};
    CAISSON_TRY(sandbox.setup(context));
    CAISSON_TRY(sandbox.apply(context, command));
    command.filter = std::move(context.filter);
    return command;
}

Result<JailCommand> command(const Description& description) { return command(description, bubblewrap()); }

Init::Init(Init&& other) noexcept
    : bwrap_(other.bwrap_), info_(std::move(other.info_)), pidfd_(std::move(other.pidfd_)) {}

Init& Init::operator=(Init&& other) noexcept {
    if (this != &other) {
        Init old(std::move(*this));
        bwrap_ = other.bwrap_;
        info_ = std::move(other.info_);
        pidfd_ = std::move(other.pidfd_);
    }
    return *this;
}

Init::~Init() {
    kill();
    if (!pidfd_) return;
    struct pollfd ended {pidfd_.get(), POLLIN, 0};
    while (::poll(&ended, 1, static_cast<int>(kEndPatience.count())) < 0 && errno == EINTR) {}
}

void Init::learn() {
    if (!info_) return;
    const auto end = std::chrono::steady_clock::now() + kInfoPatience;
    // Closed only after the last word: bubblewrap would take a reader that left for an error.
    auto info = std::move(info_);
    std::string said;
    while (said.find('}') == std::string::npos) {
        auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
        struct pollfd readable {info.get(), POLLIN, 0};
        int ready = ::poll(&readable, 1, static_cast<int>(std::max<long long>(0, left)));
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) break;
        char buffer[1024];
        ssize_t got = ::read(info.get(), buffer, sizeof buffer);
        if (got <= 0 || said.size() > kMaxInfoBytes) break;
        said.append(buffer, static_cast<std::size_t>(got));
    }
    auto pid = parse_child_pid(said);
    if (!pid) return;
    if (auto pidfd = os::open_child_of(bwrap_, *pid)) pidfd_ = std::move(*pidfd);
}

void Init::kill() {
    learn();
    if (pidfd_) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
}

bool Init::gone() const {
    if (!pidfd_) return true;
    struct pollfd ended {pidfd_.get(), POLLIN, 0};
    return ::poll(&ended, 1, 0) > 0;
}

Result<Jailed> start(const Description& description, const Sandbox& sandbox) {
    if (!sandbox.has_init()) {
        Jailed alone;
        alone.process = CAISSON_TRY(os::spawn(CAISSON_TRY(command(description, sandbox))));
        alone.init = Init(CAISSON_TRY(alone.process.pidfd().duplicate()));
        return alone;
    }
    auto info = CAISSON_TRY(os::make_pipe());
    auto asked = description;
    asked.info_fd = STDERR_FILENO + 1;
    for (const auto& descriptor : asked.descriptors) asked.info_fd = std::max(asked.info_fd, descriptor.target + 1);
    asked.descriptors.push_back({info.second.get(), asked.info_fd});
    Jailed jailed;
    jailed.process = CAISSON_TRY(os::spawn(CAISSON_TRY(command(asked, sandbox))));
    jailed.init = Init(jailed.process.pid(), std::move(info.first));
    return jailed;
}

Result<Jailed> start(const Description& description) { return start(description, bubblewrap()); }

bool killed_by_filter(const os::ExitStatus& status) { return status.code == (status.signalled ? SIGSYS : 128 + SIGSYS); }

Result<> preflight() {
    // Before anything is spawned, which takes some of them.
    if (auto missing = missing_calls(); !missing.empty()) return base::failure(*refusal(collect_host_facts(), ""));
    auto bwrap = CAISSON_TRY(find_bwrap());
    auto pipe = CAISSON_TRY(os::make_pipe());
    os::Command probe;
    probe.arguments = {bwrap, "--unshare-user", "--unshare-all", "--ro-bind", "/", "/"};
    if (can_forbid_user_namespaces(bwrap)) probe.arguments.push_back("--disable-userns");
    probe.arguments.push_back("/bin/true");
    probe.descriptors = {{pipe.second.get(), 2}};
    leave_root(probe);
    auto process = CAISSON_TRY(os::spawn(probe));
    pipe.second.reset();
    auto text = CAISSON_TRY(os::read_fd(pipe.first.get(), 1 << 16, "bwrap's messages"));
    auto ended = CAISSON_TRY(process.wait(std::chrono::seconds(10)));
    if (!ended.signalled && ended.code == 0) return {};
    std::string said(base::trim(base::printable(base::trim(text))));
    if (said.empty()) said = "bubblewrap ended with code " + std::to_string(ended.code);
    return base::failure(*refusal(collect_host_facts(), said));
}

std::string describe(const Description& description) {
    std::string text = "jail of " + description.name + "\n";
    text += description.share_network ? "  namespaces   user mount pid ipc uts cgroup (its own), the host's net\n"
                                      : "  namespaces   user mount pid ipc uts cgroup net (all its own)\n";
    text += "  root         " + (description.root.empty() ? std::string("empty") : description.root + " (read-only)") + "\n";
    if (description.proc) text += "  /proc        its own\n";
    if (description.minimal_dev) text += "  /dev         null zero full random urandom tty\n";
    for (const auto& mount : description.mounts) {
        const char* kind = mount.kind == Mount::Kind::kReadOnly    ? "read-only "
                           : mount.kind == Mount::Kind::kReadWrite ? "read-write"
                                                                   : "empty     ";
        text += std::string("  ") + kind + "   " + mount.target +
                (mount.source.empty() ? "" : "  from " + mount.source) + "\n";
    }
    text += "  environment  " + (description.environment.empty() ? "empty" : base::join(description.environment, " ")) + "\n";
    text += "  descriptors ";
    for (const auto& descriptor : description.descriptors) text += " " + std::to_string(descriptor.target);
    text += "\n  calls        " + (description.filter ? "those of the list '" + description.filter->name + "'" : std::string("not filtered")) +
            "\n  landlock     " +
            (description.enter.empty() ? std::string("none") : std::string("where the kernel has it: these files, ") + (description.share_network ? "" : "no TCP, ") + "nobody else's signals and abstract sockets") +
            "\n  capabilities none, no_new_privs, no core dumps\n";
    return text;
}

}  // namespace caisson::jail
