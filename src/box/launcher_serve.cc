// The launcher's own end, see launcher.h.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/text.h"
#include "box/convert.h"
#include "box/launcher.h"
#include "box/network_request.h"
#include "box/shim.h"
#include "box/strays.h"
#include "os/cgroup.h"
#include "net/host.h"
#include "os/file.h"
#include "vmm/template.h"
#include "vmm/vm.h"
#include "volume/disk.h"
#include "volume/host.h"

namespace caisson::box {

using base::failure;
using base::failure_errno;

namespace {

class Server {
  public:
    Server(os::Fd socket, wire::Launch launch) : socket_(std::move(socket)), launch_(std::move(launch)), network_spec_(launch_.spec().network()) {}
    // Returns when the shim is gone.
    Result<> run();

  private:
    Result<> on_verb(char verb);
    Result<> start();
    Result<> start_machine();
    Result<> attach();
    Result<> open_catalogue();
    Result<> read_mounts();
    Result<> release_volumes();
    Result<> take_disks(vmm::MachinePlan& plan);
    Result<> serve_shares();
    template <typename Told>
    Result<> tell_of(LauncherNews::Kind kind, const wire::BoxMount& mount, Told told);
    Result<> on_share_exit();
    void explain_share_exit(os::ExitStatus status);
    void end_shares();
    Result<> start_connected(vmm::MachinePlan& plan, const vmm::Assets& assets, bool tap_follows);
    Result<> begin_network();
    Result<> let_in();
    Result<> on_network_exit(os::Process& process);
    Result<> change_network(bool anew);
    Result<> take_network(bool anew);
    Result<> tell_ports();
    Result<> on_exit();
    Result<> end();
    Result<> answer_ends();
    std::string why_killed() const;
    Result<> tell(LauncherNews::Kind kind) { return send_news(socket_.get(), LauncherNews{.kind = kind}); }
    Result<> refuse(const Error& error);

    os::Fd socket_;
    const wire::Launch launch_;
    wire::NetworkSpec network_spec_;  // as it was changed last
    os::Cgroup group_;  // before the machine in it: destroyed after that
    vmm::Vm vm_;
    std::optional<volume::Catalogue> catalogue_;  // none: nothing in the home has volumes
    wire::BoxMounts mounts_;                      // of the box, as they were read last
    volume::ShareHost shares_;
    net::NetworkHost network_;
    std::vector<volume::HeldDisk> disks_;  // locked as long as the machine, or anything of it, is there
    bool network_ended_ = false;  // one of its processes has gone, and the supervisor was told
    std::string shares_ended_;  // why the server of volumes ended by itself
    bool first_ = true;  // life of the box
    unsigned ends_ = 0;  // asked for and not answered
};

Result<> Server::run() {
    for (;;) {
        struct pollfd wanted[] = {{socket_.get(), POLLIN, 0},
                                  {vm_.process.running() ? vm_.process.pidfd().get() : -1, POLLIN, 0},
                                  {ends_ > 0 && vm_.init.known() ? vm_.init.pidfd().get() : -1, POLLIN, 0},
                                  {shares_.process().running() ? shares_.process().pidfd().get() : -1, POLLIN, 0},
                                  {network_.netd().running() ? network_.netd().pidfd().get() : -1, POLLIN, 0},
                                  {network_.netns().running() ? network_.netns().pidfd().get() : -1, POLLIN, 0}};
        if (::poll(wanted, std::size(wanted), -1) < 0) {
            if (errno == EINTR) continue;
            return failure_errno("waiting for the supervisor");
        }
        if (wanted[3].revents != 0) CAISSON_TRY(on_share_exit());
        if (wanted[1].revents != 0) CAISSON_TRY(on_exit());
        // caisson-netd ends when caisson-netns has: so the cause first.
        if (wanted[5].revents != 0) CAISSON_TRY(on_network_exit(network_.netns()));
        if (wanted[4].revents != 0) CAISSON_TRY(on_network_exit(network_.netd()));
        CAISSON_TRY(answer_ends());
        if (wanted[0].revents == 0) continue;
        char verb[2];
        const auto got = ::recv(socket_.get(), verb, sizeof verb, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (got <= 0) return {};
        if (got != 1) return failure(Errc::kProtocol, "the supervisor asked for what there is not");
        CAISSON_TRY(on_verb(verb[0]));
    }
}

Result<> Server::on_verb(char verb) {
    switch (static_cast<LauncherVerb>(verb)) {
        case LauncherVerb::kStart: return start();
        case LauncherVerb::kAttach: return attach();
        case LauncherVerb::kLetIn: return let_in();
        case LauncherVerb::kNetwork: return change_network(false);
        case LauncherVerb::kNetworkAnew: return change_network(true);
        case LauncherVerb::kEnd: return end();
    }
    return failure(Errc::kProtocol, "the supervisor asked for what there is not");
}

Result<> Server::refuse(const Error& error) {
    return send_news(socket_.get(), LauncherNews{.kind = LauncherNews::Kind::kFailed, .error = error});
}

Result<> Server::start() {
    if (vm_.process.running() || ends_ > 0 || !vm_.init.gone()) return refuse(because(Errc::kInUse, "the box's machine runs already"));
    vm_ = vmm::Vm();
    end_shares();
    network_.end_netd();
    network_ = net::NetworkHost();
    network_ended_ = false;
    CAISSON_TRY(group_.remove());
    disks_.clear();
    auto started = read_mounts();
    if (started) started = start_machine();
    first_ = false;
    if (started) started = begin_network();
    if (started) started = serve_shares();
    if (!started) return refuse(started.error());
    LauncherNews news{.kind = LauncherNews::Kind::kStarted, .number = vm_.process.pid()};
    for (auto* socket : {&vm_.qmp, &vm_.agent, &vm_.console}) news.descriptors.push_back(std::move(*socket));
    CAISSON_TRY(send_news(socket_.get(), news));
    // Within milliseconds, and before the guest runs: from now on whatever the machine becomes can be ended.
    vm_.init.learn();
    if (!vm_.init.known()) return {};
    LauncherNews jailed{.kind = LauncherNews::Kind::kJailed};
    jailed.descriptors.push_back(CAISSON_TRY(vm_.init.pidfd().duplicate()));
    return send_news(socket_.get(), jailed);
}

// The shim can write to the box's directory. What it cannot make there (see shim_lock.h) is not followed here either.
Result<> check_own_file(const std::string& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) return failure_errno("cannot look at " + path);
    if (!S_ISREG(info.st_mode) || info.st_nlink != 1 || info.st_uid != ::geteuid())
        return failure(Errc::kCorrupt, path + " is not the file that was made for the box");
    return {};
}

Result<> Server::start_machine() {
    const auto& from = first_ ? launch_.template_directory() : launch_.restart_template_directory();
    vmm::MachinePlan plan;
    plan.start = from.empty() ? vmm::MachinePlan::Start::kCold : vmm::MachinePlan::Start::kRestore;
    plan.shape = shape_from(launch_.shape());
    plan.accelerator = accelerator_from(launch_.shape());
    plan.tsc_khz = launch_.shape().tsc_khz();
    plan.kvm_source_fd = kShimKvmFd;
    plan.template_directory = from;
    plan.disk = vmm::Disk{launch_.overlay_path(), launch_.base_disk_path(), launch_.spec().disk_bytes()};
    CAISSON_TRY(check_own_file(launch_.overlay_path()));
    CAISSON_TRY(take_disks(plan));
    const auto* sandbox = CAISSON_TRY(jail::sandbox_named(launch_.spec().security()));
    auto assets = from_message(launch_.assets());
    if (plan.start == vmm::MachinePlan::Start::kCold) {
        plan.template_directory = launch_.box_directory() + "/boot";
        CAISSON_TRY(os::remove_tree(plan.template_directory));
        CAISSON_TRY(os::make_directories(plan.template_directory, 0700));
        CAISSON_TRY(vmm::write_initramfs(assets, plan.template_directory));
    }
    if (launch_.limits().applied()) {
        group_ = CAISSON_TRY_CTX(os::Cgroup::create(groups_from(launch_.limits())), "limiting the box on the host");
        plan.groups = group_.entry();
    }
    const bool jailed = sandbox != &jail::no_jail();
    if (!jailed) plan = CAISSON_TRY(vmm::without_jail(std::move(plan), assets));
    if (plan.shape.network) CAISSON_TRY(start_connected(plan, assets, jailed && !vmm::enter_program(assets).empty()));
    else vm_ = CAISSON_TRY(vmm::start_vm(plan, assets));
    shares_ = volume::ShareHost({.program = launch_.share_program(), .sandbox = sandbox, .groups = group_.entry()}, std::move(vm_.share), std::move(vm_.window));
    return {};
}

// The machine's card is a tap in its network's namespace. That is made while its jail is, if it can be handed on later; who
// serves it comes after, while the machine begins.
Result<> Server::start_connected(vmm::MachinePlan& plan, const vmm::Assets& assets, bool tap_follows) {
    const net::NetworkHost::Options options{.netns_program = launch_.netns_program(), .netd_program = launch_.netd_program(),
                                            .sandbox = CAISSON_TRY(jail::sandbox_named(launch_.spec().security())),
                                            .groups = group_.entry(), .tun_fd = kShimTunFd};
    if (!tap_follows) {
        network_ = CAISSON_TRY(net::NetworkHost::open(options));
        plan.tap_source_fd = network_.tap().get();
        vm_ = CAISSON_TRY(vmm::start_vm(plan, assets));
        return {};
    }
    auto way = CAISSON_TRY(os::make_socketpair(SOCK_SEQPACKET));
    plan.tap_source_fd = way.second.get();
    plan.tap_follows = true;
    vm_ = CAISSON_TRY(vmm::start_vm(plan, assets));
    way.second.reset();
    auto network = CAISSON_TRY(net::NetworkHost::start(options));
    CAISSON_TRY(network.wait());
    network_ = std::move(network);
    std::vector<os::Fd> tap;
    tap.push_back(CAISSON_TRY(network_.tap().duplicate()));
    // A jail that could not be made tells so itself.
    if (!os::send_packet(way.first.get(), "t", tap) && errno != EPIPE && errno != ECONNRESET) return failure_errno("cannot hand the machine its network card");
    return {};
}

Result<> Server::begin_network() {
    if (!launch_.shape().network()) return {};
    wire::NetworkOrder::Begin begin;
    *begin.mutable_spec() = network_spec_;
    for (const auto& server : launch_.name_servers()) begin.add_servers(server);
    for (const auto& address : launch_.host_addresses()) begin.add_host_addresses(address);
    LauncherNews news{.kind = LauncherNews::Kind::kNetwork};
    news.descriptors.push_back(CAISSON_TRY(network_.begin(std::move(begin))));
    CAISSON_TRY(send_news(socket_.get(), news));
    return tell_ports();
}

Result<> Server::tell_ports() {
    LauncherNews news{.kind = LauncherNews::Kind::kPorts};
    if (!network_.ports().SerializeToString(&news.error.message)) return failure(Errc::kInternal, "a box's ports could not be packed");
    return send_news(socket_.get(), news);
}

// A network that is gone by now has been told of, or will be.
Result<> Server::let_in() {
    if (auto done = network_.let_in(); !done) std::fprintf(stderr, "%s: %s\n", kLauncherName, done.error().to_string().c_str());
    return {};
}

Result<> Server::change_network(bool anew) {
    const bool ran = network_.netd().running();
    auto taken = take_network(anew);
    LauncherNews news{.kind = LauncherNews::Kind::kNetworkChanged};
    if (!taken) news.error = taken.error();
    // One that was to be replaced is gone, and there is no other.
    if (anew && ran && !network_.netd().running() && !std::exchange(network_ended_, true)) {
        network_.died();
        LauncherNews ended{.kind = LauncherNews::Kind::kNetworkEnded};
        ended.error.message = "the box's network process was ended, and no other could be started";
        CAISSON_TRY(send_news(socket_.get(), ended));
    }
    // One that could not be replaced may have its ports open again.
    if (!network_.netd().running()) network_.died();
    return send_news(socket_.get(), news);
}

// The supervisor says only that there is something: what, it has no say in.
Result<> Server::take_network(bool anew) {
    if (!vm_.process.running() || ends_ > 0 || !launch_.shape().network()) return failure(Errc::kInUse, "the box's machine has no network");
    const auto wanted = CAISSON_TRY(read_network_request(launch_.box_directory()));
    if (anew) {
        LauncherNews news{.kind = LauncherNews::Kind::kNetwork};
        news.descriptors.push_back(CAISSON_TRY(network_.restart(wanted)));
        network_ended_ = false;
        CAISSON_TRY(send_news(socket_.get(), news));
    } else {
        CAISSON_TRY(network_.change(wanted));
    }
    network_spec_ = wanted;
    return tell_ports();
}

// The box goes on without: what is open is cut off, and nothing more is reached.
Result<> Server::on_network_exit(os::Process& process) {
    const auto status = CAISSON_TRY(process.wait());
    if (!network_.netd().running()) network_.died();
    if (ends_ > 0 || !vm_.process.running() || std::exchange(network_ended_, true)) return {};
    LauncherNews news{.kind = LauncherNews::Kind::kNetworkEnded};
    news.error.message = status.signalled || status.code > 128 ? "the box's network process died (signal " + std::to_string(status.signalled ? status.code : status.code - 128) + ")"
                                                               : "the box's network process ended";
    if (auto words = network_.last_words(); !words.empty()) news.error.message += ": " + words;
    return send_news(socket_.get(), news);
}

// Volumes that are disks, in the order of the catalogue; the shim, which talks to the guest, learns what that has to know.
// Between this and the jail's mount, which goes by the path again, only processes of this user can put something else
// there: the directory is theirs alone.
Result<> Server::take_disks(vmm::MachinePlan& plan) {
    for (const auto& mount : mounts_.mounts()) {
        if (!mount.disk()) continue;
        if (disks_.size() >= plan.shape.disks) return failure(Errc::kInUse, "the box's volumes changed meanwhile", "try again");
        wire::DiskMount told;
        told.set_place(static_cast<std::uint32_t>(disks_.size()));
        disks_.push_back(CAISSON_TRY(volume::hold_disk(*catalogue_, mount)));
        const auto& held = disks_.back();
        plan.volumes.push_back({held.path, mount.read_only(), held.size_bytes, mount.read_only() ? -1 : held.file.get()});
        told.set_volume(mount.volume());
        told.set_size_bytes(held.size_bytes);
        CAISSON_TRY(tell_of(LauncherNews::Kind::kDisk, mount, std::move(told)));
    }
    return {};
}

// What the guest has to know of any mount, and what `told` has of this one already.
template <typename Told>
Result<> Server::tell_of(LauncherNews::Kind kind, const wire::BoxMount& mount, Told told) {
    told.set_target(mount.target());
    told.set_read_only(mount.read_only());
    told.set_no_exec(mount.no_exec());
    told.set_no_suid(mount.no_suid());
    LauncherNews news{.kind = kind};
    if (!told.SerializeToString(&news.error.message)) return failure(Errc::kInternal, "a volume's place could not be packed");
    return send_news(socket_.get(), news);
}

Result<> Server::attach() {
    if (!vm_.process.running() || ends_ > 0) return refuse(because(Errc::kInUse, "the box's machine does not run"));
    auto served = read_mounts();
    if (served) served = serve_shares();
    if (!served) return refuse(served.error());
    return tell(LauncherNews::Kind::kAttached);
}

// The home's catalogue says what the box has, and not the supervisor. That is told what the guest has to know.
Result<> Server::open_catalogue() {
    if (!catalogue_ && !launch_.volumes().empty() && os::exists(launch_.volumes()))
        catalogue_ = CAISSON_TRY(volume::Catalogue::open(launch_.volumes()));
    return {};
}

Result<> Server::read_mounts() {
    CAISSON_TRY(open_catalogue());
    if (catalogue_) mounts_ = CAISSON_TRY(catalogue_->mounts(launch_.box_id()));
    return {};
}

// Of a box that is gone nothing stays, its anonymous volumes least of all.
Result<> Server::release_volumes() {
    CAISSON_TRY(open_catalogue());
    return catalogue_ ? catalogue_->release(launch_.box_id()) : Result<>();
}

Result<> Server::serve_shares() {
    if (!catalogue_) return {};
    CAISSON_TRY(shares_.serve(*catalogue_, mounts_));
    for (const auto& mount : mounts_.mounts()) {
        if (mount.disk()) continue;
        wire::ShareMount told;
        told.set_entry("m" + std::to_string(mount.number()));
        told.set_directory(mount.directory());
        CAISSON_TRY(tell_of(LauncherNews::Kind::kShare, mount, std::move(told)));
    }
    return {};
}

// A guest whose files no longer answer is of no use to anybody: its box ends, and says why. While the box is being ended
// the server goes as soon as the machine has.
Result<> Server::on_share_exit() {
    explain_share_exit(CAISSON_TRY(shares_.process().wait()));
    if (shares_ended_.empty() || !vm_.process.running()) return {};
    vm_.init.kill();
    static_cast<void>(vm_.process.send_signal(SIGKILL));
    return {};
}

void Server::explain_share_exit(os::ExitStatus status) {
    // It ends well when its other side has hung up, which is the machine's end.
    if (ends_ > 0 || (!status.signalled && status.code == 0)) return;
    // bubblewrap tells of a signal by 128+N.
    if (!status.signalled && status.code > 128) status = {true, status.code - 128};
    shares_ended_ = jail::killed_by_filter(status) ? "the server of the box's volumes was killed by its system call filter: it made a call that an honest one does not make"
                    : status.signalled             ? "the server of the box's volumes was killed by signal " + std::to_string(status.code)
                                                   : "the server of the box's volumes ended";
    if (auto words = shares_.last_words(); !words.empty()) shares_ended_ += ": " + words;
}

void Server::end_shares() {
    shares_ = volume::ShareHost();
    shares_ended_.clear();
}

Result<> Server::on_exit() {
    auto status = CAISSON_TRY(vm_.process.wait());
    vm_.init.kill();
    // bubblewrap was killed before it could say what it had started: that is found by the box's files it was given.
    if (!vm_.init.known()) kill_strays(launch_.box_directory());
    // A machine whose server refuses to go on may end of that, before the server's own end is heard of.
    constexpr std::chrono::milliseconds kShareEndPatience{500};
    if (ends_ == 0 && shares_.process().running())
        if (auto ended = shares_.process().wait(kShareEndPatience)) explain_share_exit(*ended);
    LauncherNews news{.kind = LauncherNews::Kind::kExited, .signalled = status.signalled, .number = status.code};
    news.error.message = why_killed();
    return send_news(socket_.get(), news);
}

// What the limits on the host have to do with the machine's end; empty: nothing.
std::string Server::why_killed() const {
    if (!shares_ended_.empty()) return shares_ended_;
    if (group_.memory_kills() > 0)
        return "the VMM was killed: it reached its memory limit on the host, " + base::format_size(launch_.limits().memory_bytes());
    if (group_.refused_processes() > 0)
        return "the VMM ended after it had reached its limit of " + std::to_string(launch_.limits().pids()) +
               " processes and threads on the host";
    return "";
}

Result<> Server::end() {
    ++ends_;
    vm_.init.kill();
    static_cast<void>(vm_.process.send_signal(SIGKILL));
    return answer_ends();
}

Result<> Server::answer_ends() {
    if (ends_ == 0 || vm_.process.running() || !vm_.init.gone()) return {};
    // Whatever may be left of the machine, before anybody has a say in this box.
    end_shares();
    network_.end_netd();
    network_ = net::NetworkHost();
    disks_.clear();
    if (auto removed = group_.remove(); !removed) std::fprintf(stderr, "%s: %s\n", kLauncherName, removed.error().to_string().c_str());
    // Empty is what the directory of a box becomes that is removed; that of any other holds its lock.
    if (::rmdir(launch_.box_directory().c_str()) == 0)
        if (auto released = release_volumes(); !released) std::fprintf(stderr, "%s: %s\n", kLauncherName, released.error().to_string().c_str());
    for (; ends_ > 0; --ends_) CAISSON_TRY(tell(LauncherNews::Kind::kGone));
    return {};
}

}  // namespace

int serve_as_launcher(os::Fd socket) {
    ::prctl(PR_SET_NAME, "caisson-launch");
    std::string request(kMostLauncherRequest, '\0');
    ssize_t got;
    do got = ::recv(socket.get(), request.data(), request.size(), 0);
    while (got < 0 && errno == EINTR);
    if (got <= 0) return 1;  // the shim is gone already
    wire::Launch launch;
    if (!launch.ParseFromArray(request.data(), static_cast<int>(got))) return 2;
    request = std::string();
    if (auto served = Server(std::move(socket), std::move(launch)).run(); !served) {
        std::fprintf(stderr, "%s: %s\n", kLauncherName, served.error().to_string().c_str());
        return 1;
    }
    return 0;
}

}  // namespace caisson::box
