// Boots a machine, waits until its agent has answered once, freezes it.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "jail/unfinished.h"
#include "os/file.h"
#include "os/host.h"
#include "os/loop.h"
#include "vmm/qcow2.h"
#include "vmm/qmp.h"
#include "vmm/template.h"
#include "vmm/vm.h"
#include "wire/connection.h"
#include "wire/control.h"

namespace caisson::vmm {

using base::failure;

namespace {

using std::chrono::milliseconds;

// How long something is worth waiting for: until its deadline, and as long as whoever asked for it lives.
class Patience {
  public:
    Patience(std::chrono::seconds limit, int owner_gone_fd)
        : end_(std::chrono::steady_clock::now() + limit), owner_gone_fd_(owner_gone_fd) {}
    // Sleeps at most `time`. Errors: kCancelled, kTimeout with `what` as its message.
    Result<> wait(milliseconds time, const std::string& what) const {
        auto left = std::chrono::duration_cast<milliseconds>(end_ - std::chrono::steady_clock::now());
        if (left.count() <= 0) return failure(Errc::kTimeout, what);
        struct pollfd gone {owner_gone_fd_, POLLIN | POLLRDHUP, 0};
        if (::poll(&gone, 1, static_cast<int>(std::min(left, time).count())) > 0)
            return failure(Errc::kCancelled, "the caller of a template's making went away");
        return {};
    }

  private:
    std::chrono::steady_clock::time_point end_;
    int owner_gone_fd_;
};

// One boot from start to frozen. Runs its own loop on the calling thread.
class Freezer {
  public:
    Freezer(os::Loop loop, Listening listening)
        : loop_(std::move(loop)), vm_(std::move(listening)), agent_(vm_.agent.get()) {}
    // The machine has failed without having said anything.
    bool no_answer() const { return no_answer_; }

    Result<> run() {
        const auto deadline = vm_.deadline;
        const int owner_gone_fd = vm_.owner_gone_fd;
        CAISSON_TRY(greet(agent_));
        CAISSON_TRY(agent_.flush());

        CAISSON_TRY(loop_.watch(vm_.console.get(), EPOLLIN, [this](std::uint32_t) { on_console(); }));
        CAISSON_TRY(loop_.watch(vm_.agent.get(), agent_.wanted_events(true), [this](std::uint32_t) { on_agent(); }));
        CAISSON_TRY(loop_.watch(vm_.qmp.get(), EPOLLIN, [this](std::uint32_t) { on_qmp(); }));
        CAISSON_TRY(loop_.watch(vm_.exited.get(), EPOLLIN, [this](std::uint32_t) { on_exit(); }));
        if (owner_gone_fd >= 0)
            CAISSON_TRY(loop_.watch(owner_gone_fd, EPOLLIN | EPOLLRDHUP, [this](std::uint32_t) {
                finish(failure(Errc::kCancelled, "the caller of a template's making went away"));
            }));
        loop_.after(deadline, [this, deadline] {
            Error error;
            error.code = Errc::kGuest;
            error.message = "the guest did not answer within " + std::to_string(deadline.count()) + " s";
            no_answer_ = !greeted_;
            explain(error, false);
        });
        CAISSON_TRY(loop_.run());
        return result_;
    }

  private:
    void finish(Result<> result) {
        if (done_) return;
        done_ = true;
        result_ = std::move(result);
        loop_.stop();
    }
    void explain(Error error, bool ended) {
        on_console();
        finish(base::failure(console_.explain(std::move(error), ended)));
    }
    void on_console() {
        if (!console_.read_from(vm_.console.get())) loop_.unwatch(vm_.console.get());
    }
    void on_exit() {
        if (frozen_) return finish({});
        Error error;
        error.code = Errc::kGuest;
        error.message = "the virtual machine ended before it was ready";
        no_answer_ = !greeted_;
        explain(std::move(error), true);
    }
    void on_agent() {
        auto step = [&]() -> Result<> {
            if (!CAISSON_TRY(agent_.fill())) {
                loop_.unwatch(vm_.agent.get());
                return {};
            }
            while (auto frame = CAISSON_TRY(agent_.next())) {
                if (frame->type != wire::FrameType::kControl) continue;
                auto message = CAISSON_TRY(wire::parse_from_agent(frame->payload));
                if (message.has_hello()) {
                    if (greeted_) return failure(Errc::kProtocol, "the guest broke the protocol: it greeted twice");
                    greeted_ = true;
                    if (message.hello().version_major() != wire::kVersionMajor)
                        return failure(Errc::kProtocol, "the guest agent speaks another protocol version");
                    if (vm_.only_answer) {
                        finish({});
                        return {};
                    }
                    if (!vm_.prepare) save();
                    else CAISSON_TRY(send_prepare());
                }
                if (message.has_configure_failed())
                    return failure(Errc::kGuest, "the guest could not be prepared: " +
                                                     base::printable(message.configure_failed().message(), 1000));
                if (message.has_prepared() && greeted_ && !saving_) save();
            }
            CAISSON_TRY(agent_.flush());
            return loop_.modify(vm_.agent.get(), agent_.wanted_events(true));
        }();
        if (!step) finish(base::failure(step.error()));
    }
    void save() {
        saving_ = true;
        send_qmp(qmp_migrate_to_file(std::string(kTemplateInJail) + "/state"));
        poll_migration();
    }
    Result<> send_prepare() {
        wire::ToAgent message;
        auto* prepare = message.mutable_prepare();
        prepare->mutable_root()->set_device("/dev/vda");
        prepare->mutable_root()->set_type("ext4");
        prepare->mutable_root()->set_size_bytes(vm_.disk_bytes);
        for (const auto& path : vm_.warm) prepare->add_warm(path);
        return wire::append_control(agent_.out(), message);
    }
    void send_qmp(const std::string& command) {
        // A few hundred bytes into an empty socket buffer: it takes them whole or the VMM is gone.
        auto sent = os::write_all(vm_.qmp.get(), command);
        if (!sent) finish(base::failure(sent.error()));
    }
    void poll_migration() {
        loop_.after(std::chrono::milliseconds(10), [this] {
            if (frozen_ || done_) return;
            send_qmp(qmp_command("query-migrate"));
            poll_migration();
        });
    }
    void on_qmp() {
        auto step = [&]() -> Result<> {
            std::uint8_t buffer[16384];
            ssize_t got = ::read(vm_.qmp.get(), buffer, sizeof buffer);
            if (got <= 0) {
                if (got == 0) loop_.unwatch(vm_.qmp.get());
                return {};
            }
            CAISSON_TRY(qmp_.feed({buffer, static_cast<std::size_t>(got)}));
            while (auto message = CAISSON_TRY(qmp_.next())) {
                if (message->kind == QmpMessage::Kind::kError)
                    return failure(Errc::kGuest, "the VMM refused to freeze the machine: " + message->reason);
                if (!saving_ || frozen_) continue;
                if (message->status == "failed")
                    return failure(Errc::kGuest, "the VMM could not write the frozen machine's state",
                                   "is the disk of the home full? see: df -h");
                if (message->status == "completed") {
                    frozen_ = true;
                    send_qmp(qmp_command("quit"));
                }
            }
            return qmp_rate_.check(qmp_.lines(), std::chrono::steady_clock::now());
        }();
        if (!step) finish(base::failure(step.error()));
    }

    os::Loop loop_;
    Listening vm_;
    wire::Connection agent_;
    QmpParser qmp_;
    QmpRate qmp_rate_;
    ConsoleTail console_;
    bool greeted_ = false;
    bool no_answer_ = false;
    bool saving_ = false;
    bool frozen_ = false;
    bool done_ = false;
    Result<> result_;
};

// A file that QEMU has written becomes part of the template. It was made by us and QEMU cannot replace it; this is
// where one would notice if it could.
Result<> seal_file(const std::string& path) {
    auto fd = CAISSON_TRY(os::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return base::failure_errno("cannot look at " + path);
    if (!S_ISREG(info.st_mode) || info.st_nlink != 1 || info.st_uid != ::geteuid())
        return failure(Errc::kCorrupt, path + " is not the file that was made for the machine");
    if (::fchmod(fd.get(), 0444) != 0) return base::failure_errno("cannot make " + path + " read-only");
    if (::fsync(fd.get()) != 0) return base::failure_errno("cannot sync " + path);
    return {};
}

// flock(2) tells nobody when it could be had, so it is tried again and again; the owner's end is noticed at once.
Result<os::FileLock> lock_patiently(const std::string& path, const Patience& patience) {
    constexpr milliseconds kInterval{50};
    for (;;) {
        auto lock = os::FileLock::try_acquire(path);
        if (lock || lock.error().code != Errc::kInUse) return lock;
        CAISSON_TRY(patience.wait(kInterval, "another process has been making the same template for too long"));
    }
}

MachinePlan plan_for(const BuildRequest& request, MachinePlan::Start start, const std::string& directory) {
    MachinePlan plan;
    plan.start = start;
    plan.shape = request.shape;
    plan.accelerator = request.accelerator;
    plan.tsc_khz = request.tsc_khz;
    plan.kvm_source_fd = request.kvm_fd;
    plan.tap_source_fd = request.tap_fd;
    plan.template_directory = directory;
    return plan;
}

// Starts the machine and has it listened to; it ends before this returns.
tl::expected<void, BuildFailure> boot(const MachinePlan& plan, const BuildRequest& request, bool only_answer, int owner_gone_fd) {
    auto vm = CAISSON_TRY(start_vm(plan, request.assets));
    vm.init.learn();  // long before the guest reads anything of the image
    Listening listening;
    listening.only_answer = only_answer;
    listening.prepare = !request.base_disk_path.empty();
    listening.disk_bytes = request.disk_bytes;
    listening.warm = request.warm;
    listening.deadline = request.deadline;
    listening.qmp = std::move(vm.qmp);
    listening.agent = std::move(vm.agent);
    listening.console = std::move(vm.console);
    listening.exited = CAISSON_TRY(vm.process.pidfd().duplicate());
    listening.owner_gone_fd = owner_gone_fd;
    auto heard = request.listen ? request.listen(std::move(listening)) : listen_to_machine(std::move(listening));
    // Only its parent, which this is, learns how it ended.
    if (auto status = heard ? Result<os::ExitStatus>() : vm.process.wait(milliseconds(0)); !heard && status && jail::killed_by_filter(*status))
        heard.error().error = killed_by_filter();
    const bool known = vm.init.known();
    vm = Vm();
    // bubblewrap was killed before it could say what it had started, and what runs under no name does so for ever.
    if (!known) jail::kill_unfinished_jails(plan.template_directory + "/");
    return heard;
}

// Does a machine that has nothing of the image speak at all?
tl::expected<void, BuildFailure> try_bare_machine(const BuildRequest& request, const std::string& directory, int owner_gone_fd) {
    return boot(plan_for(request, MachinePlan::Start::kCold, directory), request, true, owner_gone_fd);
}

tl::expected<void, BuildFailure> freeze(const BuildRequest& request, const std::string& directory, int owner_gone_fd) {
    auto plan = plan_for(request, MachinePlan::Start::kTemplate, directory);
    if (!request.base_disk_path.empty()) {
        plan.disk = Disk{directory + "/disk.qcow2", request.base_disk_path, request.disk_bytes};
        CAISSON_TRY(create_overlay(plan.disk->overlay_path, request.disk_bytes));
    }
    for (const char* file : {"/mem", "/state"})
        CAISSON_TRY(os::open_file(directory + file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
    auto frozen = boot(plan, request, false, owner_gone_fd);
    if (frozen) return {};
    auto failed = std::move(frozen).error();
    failed.error = std::move(failed.error).with_context("making the template " + request.shape.to_string());
    // Much is concluded from a silent machine under KVM, so another one has to confirm it.
    if (failed.no_answer && request.accelerator == Accelerator::kKvm) {
        auto bare = try_bare_machine(request, directory, owner_gone_fd);
        failed.no_answer = !bare && bare.error().error.code == Errc::kGuest;
    }
    return tl::unexpected(std::move(failed));
}

}  // namespace

tl::expected<void, BuildFailure> listen_to_machine(Listening listening) {
    Freezer freezer(CAISSON_TRY(os::Loop::create()), std::move(listening));
    auto done = freezer.run();
    if (done) return {};
    return tl::unexpected(BuildFailure(std::move(done).error(), freezer.no_answer()));
}

tl::expected<std::string, BuildFailure> build_template(const BuildRequest& request, int owner_gone_fd) {
    const std::string target = request.templates + "/" + request.key;
    // Twice, since whoever makes it has one deadline for the machine and one for the rest.
    auto lock = CAISSON_TRY(lock_patiently(target + ".lock", Patience(2 * request.deadline, owner_gone_fd)));
    if (auto made = find_template(request.templates, request.key)) return *made;
    CAISSON_TRY(os::remove_tree(target));  // too old to be used

    // Under this template's lock every earlier attempt is dead, whatever killed it. One that cannot be removed takes
    // room and nothing else.
    const std::string prefix = std::string(kUnfinishedTemplate) + request.key + "-";
    for (const auto& name : CAISSON_TRY(os::list_directory(request.templates)))
        if (base::starts_with(name, prefix)) {
            jail::kill_unfinished_jails(request.templates + "/" + name + "/");
            if (auto removed = os::remove_tree(request.templates + "/" + name); !removed)
                std::fprintf(stderr, "caisson-shim: %s\n", removed.error().to_string().c_str());
        }
    auto work = CAISSON_TRY(os::TemporaryDirectory::create(request.templates, prefix));
    CAISSON_TRY(write_initramfs(request.assets, work.path()));
    if (auto frozen = freeze(request, work.path(), owner_gone_fd); !frozen) return tl::unexpected(std::move(frozen).error());

    const Patience patience(request.deadline, owner_gone_fd);
    std::vector<const char*> files{"/mem", "/state", "/initramfs"};
    if (!request.base_disk_path.empty()) files.push_back("/disk.qcow2");
    for (const char* file : files) {
        CAISSON_TRY(seal_file(work.path() + file));
        CAISSON_TRY(patience.wait(milliseconds(0), "writing the template to the disk took too long"));
    }
    auto boot_id = CAISSON_TRY(os::boot_id());
    nlohmann::json info{{"cpus", request.shape.cpus},
                        {"memory_mib", request.shape.memory_mib},
                        {"disks", request.shape.disks},
                        {"network", request.shape.network},
                        {"image", request.image},
                        {"base_disk", request.base_disk_path},
                        {"accelerator", request.accelerator == Accelerator::kKvm ? "kvm" : "tcg"},
                        {"vmm_version", request.assets.vmm_version},
                        {"kernel_version", request.assets.kernel_version},
                        {"boot_id", boot_id},
                        {"created_unix", static_cast<std::int64_t>(::time(nullptr))}};
    CAISSON_TRY(os::write_file_atomic(work.path() + "/info.json", info.dump() + "\n", 0444));
    if (::rename(work.path().c_str(), target.c_str()) != 0) return base::failure_errno("cannot place " + target);
    static_cast<void>(work.release());
    CAISSON_TRY(os::fsync_directory(request.templates));
    return target;
}

}  // namespace caisson::vmm
