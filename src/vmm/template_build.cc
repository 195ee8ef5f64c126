// Boots a machine, waits until its agent has answered once, freezes it.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
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

// One boot from start to frozen. Runs its own loop on the calling thread.
class Freezer {
  public:
    Freezer(os::Loop loop, Vm vm, const BuildRequest& request)
        : loop_(std::move(loop)), vm_(std::move(vm)), agent_(vm_.agent.get()), request_(request) {}

    Result<> run(std::chrono::seconds deadline, int owner_gone_fd) {
        CAISSON_TRY(greet(agent_));
        CAISSON_TRY(agent_.flush());

        CAISSON_TRY(loop_.watch(vm_.console.get(), EPOLLIN, [this](std::uint32_t) { on_console(); }));
        CAISSON_TRY(loop_.watch(vm_.agent.get(), agent_.wanted_events(true), [this](std::uint32_t) { on_agent(); }));
        CAISSON_TRY(loop_.watch(vm_.qmp.get(), EPOLLIN, [this](std::uint32_t) { on_qmp(); }));
        CAISSON_TRY(loop_.watch(vm_.process.pidfd().get(), EPOLLIN, [this](std::uint32_t) { on_exit(); }));
        if (owner_gone_fd >= 0)
            CAISSON_TRY(loop_.watch(owner_gone_fd, EPOLLIN | EPOLLRDHUP, [this](std::uint32_t) {
                finish(failure(Errc::kCancelled, "the caller of a template's making went away"));
            }));
        loop_.after(deadline, [this, deadline] {
            Error error;
            error.code = Errc::kGuest;
            error.message = "the guest did not answer within " + std::to_string(deadline.count()) + " s";
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
                    if (message.hello().version_major() != wire::kVersionMajor)
                        return failure(Errc::kProtocol, "the guest agent speaks another protocol version");
                    vm_.init.learn();  // before the guest reads anything of the image
                    CAISSON_TRY(send_prepare());
                }
                if (message.has_configure_failed())
                    return failure(Errc::kGuest, "the guest could not be prepared: " +
                                                     base::printable(message.configure_failed().message(), 1000));
                if (message.has_prepared() && !saving_) {
                    saving_ = true;
                    send_qmp(qmp_migrate_to_file(std::string(kTemplateInJail) + "/state"));
                    poll_migration();
                }
            }
            CAISSON_TRY(agent_.flush());
            return loop_.modify(vm_.agent.get(), agent_.wanted_events(true));
        }();
        if (!step) finish(base::failure(step.error()));
    }
    Result<> send_prepare() {
        wire::ToAgent message;
        auto* prepare = message.mutable_prepare();
        prepare->mutable_root()->set_device("/dev/vda");
        prepare->mutable_root()->set_type("ext4");
        prepare->mutable_root()->set_size_bytes(request_.disk_bytes);
        for (const auto& path : request_.warm) prepare->add_warm(path);
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
            return {};
        }();
        if (!step) finish(base::failure(step.error()));
    }

    os::Loop loop_;
    Vm vm_;
    wire::Connection agent_;
    const BuildRequest& request_;
    QmpParser qmp_;
    ConsoleTail console_;
    bool saving_ = false;
    bool frozen_ = false;
    bool done_ = false;
    Result<> result_;
};

Result<> seal_file(const std::string& path) {
    auto fd = CAISSON_TRY(os::open_file(path, O_RDONLY | O_NOFOLLOW));
    if (::fchmod(fd.get(), 0444) != 0) return base::failure_errno("cannot make " + path + " read-only");
    if (::fsync(fd.get()) != 0) return base::failure_errno("cannot sync " + path);
    return {};
}

}  // namespace

Result<std::string> build_template(const BuildRequest& request, int owner_gone_fd) {
    const std::string target = request.templates + "/" + request.key;
    auto lock = CAISSON_TRY(os::FileLock::acquire(target + ".lock"));
    if (auto made = find_template(request.templates, request.key)) return *made;
    CAISSON_TRY(os::remove_tree(target));  // too old to be used

    // Under this template's lock every earlier attempt is dead, whatever killed it.
    const std::string prefix = ".new-" + request.key + "-";
    for (const auto& name : CAISSON_TRY(os::list_directory(request.templates)))
        if (base::starts_with(name, prefix)) CAISSON_TRY(os::remove_tree(request.templates + "/" + name));
    auto work = CAISSON_TRY(os::TemporaryDirectory::create(request.templates, prefix));
    CAISSON_TRY(write_initramfs(request.assets, work.path()));
    MachinePlan plan;
    plan.start = MachinePlan::Start::kTemplate;
    plan.shape = request.shape;
    plan.accelerator = request.accelerator;
    plan.tsc_khz = request.tsc_khz;
    plan.kvm_source_fd = request.kvm_fd;
    plan.template_directory = work.path();
    plan.disk = Disk{work.path() + "/disk.qcow2", request.base_disk_path, request.disk_bytes};
    CAISSON_TRY(create_overlay(plan.disk->overlay_path, request.disk_bytes));
    {
        auto vm = CAISSON_TRY(start_vm(plan, request.assets));
        Freezer freezer(CAISSON_TRY(os::Loop::create()), std::move(vm), request);
        CAISSON_TRY_CTX(freezer.run(request.deadline, owner_gone_fd), "making the template " + request.shape.to_string());
    }
    for (const char* file : {"/mem", "/state", "/initramfs", "/disk.qcow2"}) CAISSON_TRY(seal_file(work.path() + file));
    auto boot_id = CAISSON_TRY(os::boot_id());
    nlohmann::json info{{"cpus", request.shape.cpus},
                        {"memory_mib", request.shape.memory_mib},
                        {"image", request.image},
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
