#include "box/engine.h"

#include <fcntl.h>
#include <unistd.h>

#include "box/convert.h"
#include "net/space/tun.h"
#include "store/reserve.h"

namespace caisson::box {

namespace {
// Generous: a loaded two-core host without hardware virtualisation needs a few seconds, KVM less than one; KVM inside
// an emulated machine, as in tests/nested, ten and more.
constexpr std::uint32_t kBootDeadlineMs = 120000;
constexpr std::uint32_t kKvmBootDeadlineMs = 60000;

// A machine whose memory file cannot grow is killed (SIGBUS) without a word.
bool lacks_room(const std::string& templates, vmm::Shape shape) {
    const auto room = store::file_system_of(templates);
    return room && room->free_bytes < std::uint64_t{shape.memory_mib} << 20;
}
}  // namespace

std::string Engine::describe() const {
    return choice.reason + "; QEMU " + assets.vmm_version + ", guest kernel " + assets.kernel_version;
}

Result<Engine> choose_engine(const internal::RuntimeState& runtime) {
    Engine engine;
    engine.assets = CAISSON_TRY(runtime.assets());
    engine.host = CAISSON_TRY(vmm::host_profile(runtime.home.templates()));
    engine.choice = CAISSON_TRY(
        vmm::choose_accelerator(vmm::gather_host_facts(runtime.options.accelerator, engine.host.kvm_failed, runtime.options.kvm_fd)));
    return engine;
}

Result<os::Fd> open_kvm(const internal::RuntimeState& runtime, vmm::Accelerator accelerator) {
    if (accelerator != vmm::Accelerator::kKvm) return os::Fd();
    if (runtime.options.kvm_fd < 0) return os::open_file("/dev/kvm", O_RDWR);
    int copy = ::fcntl(runtime.options.kvm_fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return base::failure_errno("cannot keep /dev/kvm open");
    return os::Fd(copy);
}

Result<os::Fd> open_tun(const internal::RuntimeState& runtime, vmm::Shape shape) {
    if (!shape.network) return os::Fd();
    if (runtime.options.tun_fd < 0) return net::open_tun_node(::geteuid());
    const int copy = ::fcntl(runtime.options.tun_fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return base::failure_errno("cannot keep the tun device open");
    return os::Fd(copy);
}

bool condemns_kvm(vmm::Accelerator accelerator, const wire::ShimError& error) {
    return accelerator == vmm::Accelerator::kKvm && error.code() == static_cast<int>(Errc::kGuest) && error.no_answer();
}

Result<Template> ensure_template(const internal::RuntimeState& runtime, Engine& engine, vmm::Shape shape,
                                 const TemplateImage& image) {
    const auto accelerator = engine.choice.accelerator;
    auto key = CAISSON_TRY(vmm::template_key(shape, accelerator, engine.assets, engine.host, image.base_disk_path));
    if (auto directory = vmm::find_template(runtime.home.templates(), key)) {
        vmm::mark_template_used(*directory);
        return Template{key, *directory, false};
    }

    runtime.progress("making the template of " + image.name + " for " + shape.to_string() + " (once per host boot)");
    auto kvm = CAISSON_TRY(open_kvm(runtime, accelerator));
    auto tun = CAISSON_TRY(open_tun(runtime, shape));
    auto shim = CAISSON_TRY(ShimClient::start(runtime.shim_program(), {.kvm = kvm.get(), .tun = tun.get()}, runtime.home.templates() + "/shim.log"));
    wire::ToShim request;
    auto* build = request.mutable_build_template();
    to_message(engine.assets, *build->mutable_assets());
    to_message(shape, accelerator, engine.host.tsc_khz, *build->mutable_shape());
    build->set_templates(runtime.home.templates());
    build->set_key(key);
    build->set_base_disk_path(image.base_disk_path);
    build->set_disk_bytes(image.disk_bytes);
    build->set_image(image.name);
    build->set_netns_program(runtime.libexec + "/caisson-netns");
    for (const auto& path : image.warm) build->add_warm(path);
    build->set_deadline_ms(accelerator == vmm::Accelerator::kKvm ? kKvmBootDeadlineMs : kBootDeadlineMs);
    CAISSON_TRY(shim->send(request));
    auto answer = CAISSON_TRY(shim->receive());
    shim->close();
    runtime.progress("");
    if (!answer)
        return base::failure(Errc::kInternal, "the process that makes the template died",
                             "see " + runtime.home.templates() + "/shim.log");
    if (answer->has_template_built()) {
        // The moment to look after the others: something new is here, and time was spent anyway.
        if (auto collected = vmm::collect_templates(runtime.home.templates(), vmm::kTemplatesKept); !collected)
            runtime.notice("old templates could not be removed: " + collected.error().to_string());
        return Template{key, answer->template_built().directory(), true};
    }
    if (!answer->has_error()) return base::failure(Errc::kProtocol, "the supervisor answered something else");
    auto error = from_message(answer->error());
    if (error.code == Errc::kGuest && lacks_room(runtime.home.templates(), shape)) {
        error.code = Errc::kNoSpace;
        return base::failure(std::move(error).with_context("the file system of the home is (almost) full, and a template takes up to " +
                                                           std::to_string(shape.memory_mib) + " MiB"));
    }
    if (condemns_kvm(accelerator, answer->error()) && runtime.options.accelerator.empty()) {
        runtime.notice("no guest starts under KVM here (" + error.to_string() + "); using software emulation");
        CAISSON_TRY(vmm::remember_kvm_failure(runtime.home.templates(), engine.host));
        engine.host.kvm_failed = true;
        engine.choice = CAISSON_TRY(vmm::choose_accelerator(vmm::gather_host_facts("", true, runtime.options.kvm_fd)));
        return ensure_template(runtime, engine, shape, image);
    }
    return base::failure(std::move(error));
}

}  // namespace caisson::box
