#include "share/bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "agent/share_pump.h"
#include "vmm/vm.h"
#include "volume/share/control.h"
#include "wire/share.h"

namespace caisson::volume::share {

using base::failure_errno;

namespace {
constexpr char kPump[] = "--carry-messages";
constexpr std::chrono::seconds kLongest{30};
}  // namespace

std::string Bench::missing() {
    if (::geteuid() != 0) return "mounting needs root";
    if (!os::Fd(::open("/dev/fuse", O_RDWR | O_CLOEXEC))) return std::string("/dev/fuse cannot be opened: ") + std::strerror(errno);
    // Mounts are this process's and its children's, and go with them.
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        return std::string("no mount namespace can be made: ") + std::strerror(errno);
    return "";
}

void Bench::be_pump(int count, char** words) {
    if (count != 2 || std::strcmp(words[1], kPump) != 0) return;
    auto pumped = agent::pump_share(3, 4, os::Fd(5));
    if (!pumped) std::fprintf(stderr, "pump: %s\n", pumped.error().to_string().c_str());
    ::_exit(pumped ? 0 : 1);
}

Result<std::unique_ptr<Bench>> Bench::start(const Options& options) {
    std::unique_ptr<Bench> bench(new Bench);
    auto orders = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    auto port = CAISSON_TRY(os::make_socketpair(SOCK_STREAM));
    bench->window_ = CAISSON_TRY(vmm::make_window());
    CAISSON_TRY(bench->start_server(options, std::move(orders.second), std::move(port.second)));
    bench->orders_ = std::move(orders.first);
    for (std::size_t i = 0; i < options.volumes.size(); ++i) CAISSON_TRY(bench->add(static_cast<std::uint32_t>(i), options.volumes[i]));
    bench->port_ = std::move(port.first);
    if (options.port == -1) CAISSON_TRY(bench->mount(options, bench->port_));
    return bench;
}

Result<> Bench::start_server(const Options& options, os::Fd orders, os::Fd port) {
    os::Command command;
    command.arguments = {CAISSON_SHARE};
    command.descriptors = {{orders.get(), 0}, {2, 1}, {2, 2}, {port.get(), 3}, {window_.get(), 4}};
    command.die_with_parent = true;
    if (options.descriptors > 0) command.resource_limits = {{RLIMIT_NOFILE, options.descriptors}};
    server_ = CAISSON_TRY(os::spawn(command));
    return {};
}

Result<> Bench::add(std::uint32_t number, const BenchVolume& volume) {
    Order order;
    order.number = number;
    order.read_only = volume.read_only;
    order.limit_bytes = volume.limit_bytes;
    order.descriptors.push_back(CAISSON_TRY(os::open_file(volume.path, O_PATH)));
    if (volume.limit_bytes > 0) {
        os::Fd count(::memfd_create("count", MFD_CLOEXEC));
        if (!count || ::ftruncate(count.get(), sizeof(std::int64_t)) != 0) return failure_errno("no count");
        order.descriptors.push_back(CAISSON_TRY(count.duplicate()));
        counts_[number] = std::move(count);
    }
    if (volume.limit_bytes == 0 && !volume.own_file.empty()) order.descriptors.push_back(CAISSON_TRY(os::open_file(volume.own_file, O_RDWR | O_CREAT, 0600)));
    return give_order(orders_.get(), order);
}

Result<> Bench::mount(const Options& options, const os::Fd& port) {
    place_.emplace(CAISSON_TRY(os::TemporaryDirectory::create("/tmp", "share")));
    auto identity = wire::share_identity(options.user, options.group);
    CAISSON_TRY(os::write_all(port.get(), base::bytes_of(identity)));
    const auto keeps = wire::share_keeps(0);
    if (options.keeps) CAISSON_TRY(os::write_all(port.get(), base::bytes_of(keeps)));
    auto fuse = CAISSON_TRY(os::open_file("/dev/fuse", O_RDWR));
    const std::string words = "fd=" + std::to_string(fuse.get()) + ",rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions";
    if (::mount("caisson", place_->path().c_str(), "fuse.caisson", 0, words.c_str()) != 0) return failure_errno("cannot mount");
    mounted_ = place_->path();
    os::Command command;
    command.arguments = {"/proc/self/exe", kPump};
    command.descriptors = {{2, 2}, {fuse.get(), 3}, {port.get(), 4}, {window_.get(), 5}};
    command.die_with_parent = true;
    pump_ = CAISSON_TRY(os::spawn(command));
    return {};
}

Bench::~Bench() {
    if (!mounted_.empty() && ::umount2(mounted_.c_str(), 0) != 0) {
        std::fprintf(stderr, "%s is still used: %s\n", mounted_.c_str(), std::strerror(errno));
        ::umount2(mounted_.c_str(), MNT_DETACH);
    }
    if (pump_.running()) static_cast<void>(pump_.wait(kLongest));
    orders_.reset();
    port_.reset();
    if (server_.running()) static_cast<void>(server_.wait(kLongest));
}

std::int64_t Bench::used(std::size_t volume) const {
    std::int64_t bytes = -1;
    auto found = counts_.find(volume);
    if (found == counts_.end() || ::pread(found->second.get(), &bytes, sizeof bytes, 0) != sizeof bytes) return -1;
    return bytes;
}

std::size_t Bench::open_descriptors() const {
    DIR* listed = ::opendir(("/proc/" + std::to_string(server_.pid()) + "/fd").c_str());
    std::size_t count = 0;
    while (listed != nullptr && ::readdir(listed) != nullptr) ++count;
    if (listed != nullptr) ::closedir(listed);
    return count;
}

Ran run(const std::vector<std::string>& arguments, const std::string& directory) {
    Ran ran;
    auto pipe = os::make_pipe();
    if (!pipe) return ran;
    os::Command command;
    command.arguments = arguments;
    command.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent", "LC_ALL=C"};
    command.descriptors = {{pipe->second.get(), 1}, {pipe->second.get(), 2}};
    command.working_directory = directory;
    command.die_with_parent = true;
    auto process = os::spawn(command);
    pipe->second.reset();
    if (!process) {
        ran.output = process.error().to_string();
        return ran;
    }
    char text[65536];
    ssize_t got = 0;
    while ((got = ::read(pipe->first.get(), text, sizeof text)) > 0) ran.output.append(text, static_cast<std::size_t>(got));
    auto status = process->wait();
    if (status) ran.code = status->signalled ? 128 + status->code : status->code;
    return ran;
}

}  // namespace caisson::volume::share
