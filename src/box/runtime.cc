#include "caisson/runtime.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/id.h"
#include "base/text.h"
#include "box/convert.h"
#include "box/engine.h"
#include "box/owner.h"
#include "box/place.h"
#include "box/plan.h"
#include "box/state.h"
#include "image/host.h"
#include "jail/jail.h"
#include "os/host.h"
#include "os/random.h"
#include "vmm/machine.h"
#include "vmm/qcow2.h"

namespace caisson {

using base::failure;
using internal::BoxState;
using internal::RuntimeState;

namespace {

// Until a restored guest answers; a loaded host needs seconds, an idle one a twentieth.
constexpr std::uint32_t kRestoreDeadlineMs = 20000;
constexpr std::uint32_t kColdDeadlineMs = 120000;
// Until a box that is killed is gone; its guest has a few seconds to write back.
constexpr int kForcedEndMs = 15000;
// Of one word of a plan.
constexpr std::size_t kMostShownBytes = 16 * 1024;

Result<std::string> random_hex(std::size_t bytes) {
    base::Bytes random(bytes);
    CAISSON_TRY(os::fill_random(random));
    return base::to_hex(random);
}

std::string environment_or(const std::string& chosen, const char* name) {
    if (!chosen.empty()) return chosen;
    const char* value = ::getenv(name);
    return value == nullptr ? std::string() : std::string(value);
}

RuntimeOptions complete(RuntimeOptions options) {
    options.assets = environment_or(options.assets, "CAISSON_ASSETS");
    options.accelerator = environment_or(options.accelerator, "CAISSON_ACCEL");
    if (options.program_directory.empty()) options.program_directory = box::own_program_directory();
    return options;
}

// Everything that run() and plan() decide before anything is made.
struct Decision {
    image::Image image;
    wire::Exec exec;
    vmm::Shape shape;
    box::Engine engine;
    std::uint64_t base_disk_bytes = 0;
};

Result<Decision> decide(const RuntimeState& runtime, const BoxOptions& options) {
    CAISSON_TRY(box::validate(options));
    Decision decision;
    decision.image = CAISSON_TRY(runtime.images->find(options.image));
    image::ImageConfig config;
    config.config = decision.image.config;
    CAISSON_TRY_CTX(image::check_platform(config, image::host_architecture()), "image " + decision.image.name);
    decision.exec = CAISSON_TRY(box::plan_exec(options, decision.image.config));
    decision.shape = CAISSON_TRY(vmm::shape_for(options.cpu_millis, options.memory_bytes));
    decision.engine = CAISSON_TRY(box::choose_engine(runtime));
    // A larger disk is the usual base disk grown in the guest; a smaller one needs a base disk of its own.
    decision.base_disk_bytes = std::min(options.disk_bytes, vmm::kDefaultDiskBytes);
    return decision;
}

// The base disk if it is there. An image that is too large for the usual one has one of the box's own size.
Result<std::optional<std::string>> cached_base_disk(const RuntimeState& runtime, Decision& decision,
                                                    std::uint64_t disk_bytes) {
    auto usual = CAISSON_TRY(runtime.images->cached_base_disk(decision.image, decision.base_disk_bytes));
    if (usual || disk_bytes == decision.base_disk_bytes) return usual;
    auto large = CAISSON_TRY(runtime.images->cached_base_disk(decision.image, disk_bytes));
    if (large) decision.base_disk_bytes = disk_bytes;
    return large;
}

Result<std::string> ensure_base_disk(RuntimeState& runtime, Decision& decision, std::uint64_t disk_bytes) {
    auto cached = CAISSON_TRY(cached_base_disk(runtime, decision, disk_bytes));
    if (cached) return *cached;
    auto disk = runtime.images->base_disk(decision.image, decision.base_disk_bytes, runtime.image_progress());
    if (!disk && disk.error().code == Errc::kLimit && disk_bytes > decision.base_disk_bytes) {
        decision.base_disk_bytes = disk_bytes;
        disk = runtime.images->base_disk(decision.image, disk_bytes, runtime.image_progress());
    }
    runtime.progress("");
    if (!disk) return base::failure(std::move(disk.error()).with_context("making the root disk of " + decision.image.name));
    return disk->path;
}

// What a box of this image is likely to touch first: its own command, the loader and C library that nearly every
// program needs, shells, the small commands of scripts, the usual interpreters. A name without a slash is looked up in
// the guest along the usual PATH; what an image lacks costs nothing.
std::vector<std::string> warm_paths(const image::Config& config) {
    std::vector<std::string> paths{"/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6",
                                   "/lib/ld-musl-x86_64.so.1",    "/etc/ld.so.cache",                "/etc/passwd",
                                   "/etc/group",                  "/etc/nsswitch.conf"};
    if (!config.entrypoint.empty()) paths.push_back(config.entrypoint[0]);
    if (!config.cmd.empty()) paths.push_back(config.cmd[0]);
    for (const char* name : {"sh", "bash", "true", "false", "cat", "echo", "env", "id", "ls", "uname", "sleep", "head",
                             "/lib/x86_64-linux-gnu/libtinfo.so.6", "/lib/x86_64-linux-gnu/libselinux.so.1",
                             "python3", "/lib/x86_64-linux-gnu/libm.so.6", "/lib/x86_64-linux-gnu/libz.so.1",
                             "/lib/x86_64-linux-gnu/libexpat.so.1", "node"})
        paths.push_back(name);
    std::erase(paths, std::string());
    return paths;
}

box::TemplateImage template_image(const image::Image& image, const std::string& base_disk, std::uint64_t disk_bytes) {
    return {image.name, base_disk, disk_bytes, warm_paths(image.config)};
}

// Records the box and makes its directory, lock and overlay. Undoes itself on failure.
Result<std::shared_ptr<BoxState>> create_box(std::shared_ptr<RuntimeState> runtime, const BoxOptions& options,
                                             const Decision& decision, const std::string& template_directory,
                                             const std::string& base_disk) {
    auto box = std::make_shared<BoxState>();
    box->runtime = runtime;
    box->auto_remove = options.auto_remove;
    box->stdin_open = options.open_stdin;
    box->engine = decision.engine.describe();

    store::BoxRecord record;
    record.image = decision.image.name;
    record.image_digest = decision.image.manifest_digest;
    record.command = nlohmann::json(std::vector<std::string>(decision.exec.arguments().begin(), decision.exec.arguments().end()))
                         .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    record.auto_remove = options.auto_remove;
    record.base_disk = base_disk;
    record.created_ms = os::unix_ms();
    record.owner = CAISSON_TRY(box::this_process());
    constexpr int kNameTries = 8;
    for (int attempt = 0;; ++attempt) {
        std::uint8_t random[18];
        CAISSON_TRY(os::fill_random(random));
        std::uint8_t id_random[10];
        std::copy(random, random + 10, id_random);
        record.id = base::make_ulid(std::chrono::system_clock::now(), id_random);
        record.name = options.name.empty()
                          ? base::make_box_name(base::load_le32(random + 10) | std::uint64_t{base::load_le32(random + 14)} << 32)
                          : options.name;
        std::scoped_lock guard(runtime->database_mutex);
        auto inserted = runtime->database->insert_box(record);
        if (inserted) break;
        bool again = inserted.error().code == Errc::kAlreadyExists && options.name.empty() && attempt < kNameTries;
        if (!again) return base::failure(std::move(inserted.error()));
    }
    box->id = record.id;
    box->name = record.name;

    auto made = [&]() -> Result<> {
        const auto directory = runtime->home.box(box->id);
        CAISSON_TRY(os::make_directories(directory, 0700));
        box->lock = CAISSON_TRY(os::FileLock::acquire(directory + "/lock"));
        auto orders = CAISSON_TRY(os::make_pipe());
        box->order_read = std::move(orders.first);
        box->order_write = std::move(orders.second);
        CAISSON_TRY(os::set_nonblocking(box->order_read.get(), true));
        // A restored machine goes on with what its template has written; only a cold one begins on an empty overlay.
        if (!template_directory.empty())
            return vmm::copy_overlay(template_directory + "/disk.qcow2", directory + "/disk.qcow2", options.disk_bytes);
        return vmm::create_overlay(directory + "/disk.qcow2", options.disk_bytes);
    }();
    if (!made) {
        static_cast<void>(os::remove_tree(runtime->home.box(box->id)));
        std::scoped_lock guard(runtime->database_mutex);
        static_cast<void>(runtime->database->remove_box(box->id));
        return base::failure(std::move(made.error()).with_context("creating the box"));
    }
    return box;
}

wire::ToShim launch_request(const RuntimeState& runtime, const BoxState& box, const BoxOptions& options,
                            const Decision& decision, const std::string& template_directory,
                            const std::string& base_disk, const std::string& machine_id) {
    wire::ToShim request;
    auto* launch = request.mutable_launch();
    launch->set_box_id(box.id);
    launch->set_box_directory(runtime.home.box(box.id));
    launch->set_database(runtime.home.database());
    launch->set_auto_remove(options.auto_remove);
    box::to_message(decision.engine.assets, *launch->mutable_assets());
    box::to_message(decision.shape, decision.engine.choice.accelerator, decision.engine.host.tsc_khz,
                    *launch->mutable_shape());
    launch->set_template_directory(template_directory);
    launch->set_overlay_path(runtime.home.box(box.id) + "/disk.qcow2");
    launch->set_base_disk_path(base_disk);
    launch->set_disk_bytes(options.disk_bytes);
    *launch->mutable_configure() = box::plan_configure(options, box.id, machine_id);
    *launch->mutable_exec() = decision.exec;
    box::add_hostname(*launch->mutable_exec(), box::hostname_of(options, box.id));
    launch->set_engine(box.engine);
    launch->set_start_deadline_ms(template_directory.empty() ? kColdDeadlineMs : kRestoreDeadlineMs);
    if (options.timeout) launch->set_timeout_ms(static_cast<std::uint32_t>(options.timeout->count()));
    return request;
}

Error start_failure(const wire::StartFailed& failed) {
    Error error;
    error.sys_errno = 0;
    error.message = failed.message();
    switch (failed.kind()) {
        case wire::StartFailed::NOT_FOUND: error.code = Errc::kCommandNotFound; break;
        case wire::StartFailed::NOT_EXECUTABLE:
        case wire::StartFailed::BAD_WORKING_DIRECTORY:
        case wire::StartFailed::UNKNOWN_USER: error.code = Errc::kNotExecutable; break;
        default: error.code = Errc::kGuest; break;
    }
    return error;
}

struct LaunchFailure {
    Error error;
    bool no_answer = false;
};

// Waits until the command runs. The box is gone when this fails.
tl::expected<void, LaunchFailure> wait_until_launched(BoxState& box) {
    std::optional<Error> start_failed;
    for (;;) {
        auto message = box.shim->receive();
        if (!message) return tl::unexpected(LaunchFailure{message.error()});
        if (!*message) {
            box.shim->close();
            box.clean_after_shim("supervisor died");
            box.ended = true;
            Error error;
            error.code = Errc::kInternal;
            error.message = "the box's supervisor died while it started the box";
            return tl::unexpected(LaunchFailure{error});
        }
        const auto& content = **message;
        if (content.has_launched()) return {};
        if (content.has_start_failed()) start_failed = start_failure(content.start_failed());
        if (content.has_error() || content.has_ended()) {
            box.shim->close();
            box.ended = true;
            if (start_failed) return tl::unexpected(LaunchFailure{*start_failed});
            if (content.has_error())
                return tl::unexpected(LaunchFailure{box::from_message(content.error()), content.error().no_answer()});
            Error error;
            error.code = Errc::kCancelled;
            error.message = content.ended().reason();
            return tl::unexpected(LaunchFailure{error});
        }
    }
}

}  // namespace

namespace internal {

Result<vmm::Assets> RuntimeState::assets() const {
    const auto prefix = box::prefix_of(options.program_directory);
    // Of this installation (in a build tree a link to those that all builds share); or those that root's set-up makes
    // for everybody.
    const auto own = prefix + "/lib/caisson/assets";
    const std::string common = "/usr/local/lib/caisson/assets";
    auto candidates = own == common ? std::vector<std::string>{own} : std::vector<std::string>{own, common};
    const auto setup = prefix + "/bin/caisson-setup";
    return vmm::find_assets({options.assets, std::move(candidates), libexec,
                             ::access(setup.c_str(), X_OK) == 0 ? setup : std::string()});
}

}  // namespace internal

std::string_view version() { return CAISSON_VERSION; }

Runtime::Runtime(std::shared_ptr<RuntimeState> state) : state_(std::move(state)) {}
Runtime::Runtime(Runtime&&) noexcept = default;
Runtime& Runtime::operator=(Runtime&&) noexcept = default;
Runtime::~Runtime() = default;

Result<Runtime> Runtime::open(RuntimeOptions options) {
    if (::geteuid() == 0)
        return failure(Errc::kPermission, "caisson does not work as root",
                       "call caisson::leave_root() first, or run as an ordinary user");
    auto state = std::make_shared<RuntimeState>();
    state->options = complete(std::move(options));
    auto home = state->options.home.empty()
                    ? CAISSON_TRY(store::default_home(::getenv("CAISSON_HOME"), ::getenv("HOME"), false))
                    : state->options.home;
    state->home = CAISSON_TRY(store::open_home(home));
    state->libexec = box::prefix_of(state->options.program_directory) + "/libexec/caisson";
    // Programs that this user cannot reach were copied by leave_root().
    if (::access(state->shim_program().c_str(), X_OK) != 0 && os::exists(home + "/programs/caisson-shim"))
        state->libexec = home + "/programs";
    if (::access(state->shim_program().c_str(), X_OK) != 0)
        return failure(Errc::kHostMissing, "caisson's own program " + state->shim_program() + " is missing",
                       "install caisson again, or in its source tree: make build");
    state->database = CAISSON_TRY(store::Database::open(state->home.database()));
    CAISSON_TRY_CTX(internal::reconcile(state->home, *state->database), "tidying up after earlier processes");
    image::Store::Options images;
    images.images_directory = state->home.images();
    images.disks_directory = state->home.disks();
    images.unpack_program = state->libexec + "/caisson-unpack";
    images.fetch_program = state->libexec + "/caisson-fetch";
    images.registries_file = state->home.root + "/registries.json";
    state->images = CAISSON_TRY(image::Store::open(std::move(images)));
    return Runtime(std::move(state));
}

Result<Box> Runtime::run(const BoxOptions& options) {
    CAISSON_TRY(box::validate(options));
    CAISSON_TRY(internal::ensure_image(*state_, options));
    auto decision = CAISSON_TRY(decide(*state_, options));
    CAISSON_TRY(jail::find_bwrap());
    auto base_disk = CAISSON_TRY(ensure_base_disk(*state_, decision, options.disk_bytes));
    auto frozen = template_image(decision.image, base_disk, decision.base_disk_bytes);
    std::string template_directory;
    if (!options.cold)
        template_directory = CAISSON_TRY(box::ensure_template(*state_, decision.engine, decision.shape, frozen)).directory;
    auto machine_id = CAISSON_TRY(random_hex(16));

    for (int attempt = 0;; ++attempt) {
        auto box = CAISSON_TRY(create_box(state_, options, decision, template_directory, base_disk));
        auto started = [&]() -> Result<> {
            auto kvm = CAISSON_TRY(box::open_kvm(*state_, decision.engine.choice.accelerator));
            box->shim = CAISSON_TRY(box::ShimClient::start(state_->shim_program(),
                                                           {.lock = box->lock->fd().get(), .kvm = kvm.get()},
                                                           state_->home.box(box->id) + "/shim.log"));
            return box->shim->send(
                launch_request(*state_, *box, options, decision, template_directory, base_disk, machine_id));
        }();
        if (!started) {
            box->shim.reset();
            static_cast<void>(os::remove_tree(state_->home.box(box->id)));
            std::scoped_lock guard(state_->database_mutex);
            static_cast<void>(state_->database->remove_box(box->id));
            return base::failure(std::move(started.error()));
        }
        auto launched = wait_until_launched(*box);
        if (launched) return Box(std::move(box));
        if (!launched.error().no_answer || options.cold || attempt > 0) return base::failure(launched.error().error);
        state_->notice("the template did not come back to life (" + launched.error().error.to_string() +
                       "); making it again");
        box.reset();
        static_cast<void>(vmm::remove_template(state_->home.templates(),
                                               template_directory.substr(template_directory.rfind('/') + 1)));
        template_directory = CAISSON_TRY(box::ensure_template(*state_, decision.engine, decision.shape, frozen)).directory;
    }
}

Result<std::string> Runtime::plan(const BoxOptions& options) {
    auto decision = CAISSON_TRY(decide(*state_, options));
    auto base_disk = CAISSON_TRY(cached_base_disk(*state_, decision, options.disk_bytes));
    std::string key = "(none yet)";
    if (base_disk)
        key = CAISSON_TRY(vmm::template_key(decision.shape, decision.engine.choice.accelerator, decision.engine.assets,
                                            decision.engine.host, *base_disk));
    const std::string box_directory = state_->home.boxes() + "/ID";
    vmm::MachinePlan machine;
    machine.start = options.cold ? vmm::MachinePlan::Start::kCold : vmm::MachinePlan::Start::kRestore;
    machine.shape = decision.shape;
    machine.accelerator = decision.engine.choice.accelerator;
    machine.tsc_khz = decision.engine.host.tsc_khz;
    machine.template_directory = options.cold ? box_directory + "/boot" : state_->home.templates() + "/" + key;
    machine.disk = vmm::Disk{box_directory + "/disk.qcow2",
                             base_disk.value_or("(root disk of " + decision.image.name + ", not made yet)"),
                             options.disk_bytes};
    box::add_hostname(decision.exec, options.hostname.empty() ? "(the end of ID)" : options.hostname);
    auto jail_plan = vmm::vmm_jail(machine, decision.engine.assets);
    jail_plan.descriptors = {{0, 1}, {0, 2}, {0, machine.qmp_fd}, {0, machine.agent_fd}, {0, machine.console_fd}};

    // Much of it comes from the image, and this is what one looks at before one trusts it.
    auto shown = [](const std::string& word) { return base::printable(base::shell_quote(word), kMostShownBytes); };
    std::string text = "engine     " + decision.engine.describe() + "\n";
    text += "image      " + decision.image.name + " (" + decision.image.manifest_digest + ")\n";
    text += "shape      " + decision.shape.to_string() + (options.cold ? ", cold boot" : ", template " + key) +
            (!options.cold && !vmm::find_template(state_->home.templates(), key) ? " (to be made)" : "") + "\n";
    std::vector<std::string> words;
    for (const auto& word : decision.exec.arguments()) words.push_back(shown(word));
    text += "command    " + base::join(words, " ") + "\n";
    text += "directory  " + shown(decision.exec.working_directory()) + "\n";
    text += "user       " + (decision.exec.user().empty() ? std::string("root (the default)") : shown(decision.exec.user())) + "\n";
    for (const auto& variable : decision.exec.environment()) text += "env        " + shown(variable) + "\n";
    text += "root       " + base::format_size(options.disk_bytes) + (options.read_only ? ", read-only" : ", read-write") + "\n";
    for (const auto& tmpfs : options.tmpfs)
        text += "tmpfs      " + shown(tmpfs.path) + (tmpfs.size_bytes > 0 ? " " + base::format_size(tmpfs.size_bytes) : "") + "\n";
    text += "limits     cpus " + std::to_string(options.cpu_millis) + "/1000, memory " +
            base::format_size(options.memory_bytes) +
            (options.pids_limit > 0 ? ", processes " + std::to_string(options.pids_limit) : "") + "\n";
    text += "network    none\n";
    text += jail::describe(jail_plan);
    words.clear();
    const auto bwrap = CAISSON_TRY(jail::find_bwrap());
    for (const auto& word : jail::bwrap_arguments(jail_plan, bwrap, jail::can_forbid_user_namespaces(bwrap)))
        words.push_back(shown(word));
    text += "command line of the jailed VMM\n  " + base::join(words, " ") + "\n";
    return text;
}

Result<std::vector<BoxInfo>> Runtime::boxes() const {
    std::scoped_lock guard(state_->database_mutex);
    std::vector<BoxInfo> infos;
    for (auto& record : CAISSON_TRY(state_->database->boxes()))
        infos.push_back({record.id, record.name, record.image, record.command, store::to_string(record.state),
                         record.reason, record.created_ms, record.finished_ms, record.exit_code});
    return infos;
}

namespace {

// Tells the supervisor of a running box to end it, and waits until it has. A pid alone may have been given to somebody
// else meanwhile; the descriptor is of the process that was looked at.
Result<> kill_box(const store::BoxRecord& record) {
    os::Fd supervisor(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(record.owner.pid), 0)));
    if (!supervisor || !box::owner_lives(record.owner, CAISSON_TRY(os::boot_id()))) return {};
    if (::syscall(SYS_pidfd_send_signal, supervisor.get(), SIGTERM, nullptr, 0) != 0 && errno != ESRCH)
        return base::failure_errno("cannot end box " + record.name);
    struct pollfd ended {supervisor.get(), POLLIN, 0};
    if (::poll(&ended, 1, kForcedEndMs) == 0)
        return failure(Errc::kTimeout, "box " + record.name + " does not end", "kill its supervisor, process " + std::to_string(record.owner.pid));
    return {};
}

}  // namespace

Result<> Runtime::remove_box(const std::string& reference, bool force) {
    auto find = [&]() {
        std::scoped_lock guard(state_->database_mutex);
        return state_->database->find_box(reference);
    };
    auto record = CAISSON_TRY(find());
    auto lives = [&] { return record.state == store::BoxState::kRunning || record.state == store::BoxState::kCreating; };
    if (force && record.state == store::BoxState::kRunning) {
        CAISSON_TRY(kill_box(record));
        const auto id = record.id;
        auto now = find();
        // Its supervisor has removed it, if it was started with --rm.
        if (!now && now.error().code == Errc::kNotFound) return {};
        record = CAISSON_TRY(std::move(now));
        if (record.id != id) return {};
    }
    if (lives())
        return failure(Errc::kInUse, "box " + record.name + " is running",
                       "end its command first, or kill it: caisson rm --force " + record.name);
    std::scoped_lock guard(state_->database_mutex);
    CAISSON_TRY(os::remove_tree(state_->home.box(record.id)));
    return state_->database->remove_box(record.id);
}

namespace {
TemplateInfo info_of(const vmm::TemplateInfo& info) {
    return {info.key,         info.image,          info.shape.cpus,   info.shape.memory_mib, info.accelerator,
            info.vmm_version, info.kernel_version, info.created_unix, info.disk_bytes,       info.current};
}
}  // namespace

Result<std::vector<TemplateInfo>> Runtime::templates() const {
    std::vector<TemplateInfo> infos;
    for (const auto& info : CAISSON_TRY(vmm::list_templates(state_->home.templates()))) infos.push_back(info_of(info));
    return infos;
}

Result<TemplateInfo> Runtime::build_template(const TemplateShape& shape) {
    BoxOptions options;
    options.image = shape.image;
    options.command = {"true"};
    options.cpu_millis = shape.cpu_millis;
    options.memory_bytes = shape.memory_bytes;
    auto decision = CAISSON_TRY(decide(*state_, options));
    auto base_disk = CAISSON_TRY(ensure_base_disk(*state_, decision, options.disk_bytes));
    auto made = CAISSON_TRY(box::ensure_template(*state_, decision.engine, decision.shape,
                                                 template_image(decision.image, base_disk, decision.base_disk_bytes)));
    for (const auto& info : CAISSON_TRY(vmm::list_templates(state_->home.templates())))
        if (info.key == made.key) return info_of(info);
    return failure(Errc::kNotFound, "the template was removed while it was made");
}

Result<> Runtime::remove_template(const std::string& key) {
    return vmm::remove_template(state_->home.templates(), key);
}

}  // namespace caisson
