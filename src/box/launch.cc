// Making boxes and starting them.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/id.h"
#include "base/text.h"
#include "box/convert.h"
#include "box/decision.h"
#include "box/disks.h"
#include "box/events.h"
#include "box/host_limits.h"
#include "box/lifecycle.h"
#include "box/limits.h"
#include "box/mounts.h"
#include "box/new_copies.h"
#include "box/owner.h"
#include "box/network.h"
#include "box/network_request.h"
#include "box/plan.h"
#include "box/recorder.h"
#include "box/state.h"
#include "jail/host.h"
#include "jail/sandbox.h"
#include "net/host.h"
#include "os/host.h"
#include "os/random.h"
#include "vmm/qcow2.h"
#include "vmm/template.h"

namespace caisson {

using base::failure;
using internal::BoxState;
using internal::RuntimeState;

namespace {

// How a start goes about its machine.
struct Start {
    std::string template_directory;  // empty: cold
    std::string restart_template;    // see Launch
    std::string base_disk;
    box::Engine engine;
    vmm::Shape shape;
    wire::HostLimits limits;         // without the figures
    std::vector<wire::BoxMount> disks;  // volumes that are disks
};

// Writes the record. What it describes is made after this, and undone by whoever finds that this process died.
Result<store::BoxRecord> insert_record(RuntimeState& runtime, const BoxOptions& options, const box::Decision& decision,
                                       const std::string& base_disk, const std::vector<std::string>& warm) {
    store::BoxRecord record;
    record.image = decision.image.name;
    record.image_digest = decision.image.manifest_digest;
    record.command = box::command_json({decision.exec.arguments().begin(), decision.exec.arguments().end()});
    record.auto_remove = options.auto_remove;
    record.base_disk = base_disk;
    record.created_ms = os::unix_ms();
    record.owner = CAISSON_TRY(box::this_process());
    box::SpecParts parts;
    parts.machine_id = CAISSON_TRY(os::random_hex(16));
    parts.base_disk_bytes = decision.base_disk_bytes;
    parts.warm = warm;
    parts.network = decision.network;
    constexpr int kNameTries = 8;
    for (int attempt = 0;; ++attempt) {
        std::uint8_t random[8];
        CAISSON_TRY(os::fill_random(random));
        record.id = CAISSON_TRY(os::new_ulid());
        record.name = options.name.empty()
                          ? base::make_box_name(base::load_le64(random))
                          : options.name;
        parts.box_id = record.id;
        if (!box::plan_spec(options, decision.image.config, decision.exec, parts).SerializeToString(&record.spec))
            return failure(Errc::kInternal, "the box's record could not be packed");
        std::scoped_lock guard(runtime.database_mutex);
        auto inserted = runtime.database->insert_box(record);
        if (inserted) return record;
        bool again = inserted.error().code == Errc::kAlreadyExists && options.name.empty() && attempt < kNameTries;
        if (!again) return base::failure(std::move(inserted.error()));
    }
}

// The record first, as in a removal: it may say by now that the box failed, and a record like that whose files are gone
// would be damage for good if this process died in between. Files without a record go when the home is opened next.
void undo_record(RuntimeState& runtime, const std::string& id) {
    {
        std::scoped_lock guard(runtime.database_mutex);
        if (!runtime.database->remove_box(id)) return;
    }
    static_cast<void>(internal::release_volumes(runtime.home, id));
    static_cast<void>(os::remove_tree(runtime.home.box(id)));
}

// Its volumes. undo_record() takes them from the box, undo_mounts() removes those that were made for it after that. A box
// without any needs no catalogue.
Result<wire::BoxMounts> give_mounts(const RuntimeState& runtime, const std::string& id, const std::vector<MountOption>& mounts) {
    if (mounts.empty()) return wire::BoxMounts();
    return CAISSON_TRY(volume::Catalogue::open(runtime.home.volumes())).give(id, box::requests_of(mounts));
}

void undo_mounts(const RuntimeState& runtime, const wire::BoxMounts& given) {
    if (given.mounts().empty()) return;
    if (auto catalogue = volume::Catalogue::open(runtime.home.volumes())) static_cast<void>(catalogue->undo(given));
}

// A box begins in the journal before anything of it can run. One whose walls are lowered does not begin without that.
Result<> record_creation(RuntimeState& runtime, const store::BoxRecord& record, const BoxOptions& options, const wire::BoxMounts& given) {
    for (const auto& mount : given.mounts())
        if (mount.made()) internal::record(runtime, internal::volume_event("volume_created", mount.volume()));
    auto lowered = internal::record_lowering(runtime, record.id, record.name, internal::lowered_by(options));
    internal::record(runtime, internal::created_event(record, options));
    return lowered;
}

// What can be said of a request without its image.
Result<> check_request(const RuntimeState& runtime, const BoxOptions& options) {
    CAISSON_TRY(box::validate(options));
    return box::check_parts(runtime.home, options.mounts);
}

std::shared_ptr<BoxState> state_of(std::shared_ptr<RuntimeState> runtime, const store::BoxRecord& record,
                                   const wire::BoxSpec& spec) {
    auto box = std::make_shared<BoxState>();
    box->runtime = std::move(runtime);
    box->id = record.id;
    box->name = record.name;
    box->auto_remove = record.auto_remove;
    box->stdin_open = spec.exec().stdin_open();
    box->terminal = spec.exec().terminal();
    return box;
}

// A restored machine goes on with what its template has written; only a cold one begins on an empty overlay.
// A part of one, of somebody who was killed over it, is never taken for a box's disk. The disk of a box that is kept is
// still there after a power failure.
Result<> make_overlay(const BoxState& box, const std::string& template_directory, std::uint64_t disk_bytes) {
    const auto directory = box.runtime->home.box(box.id);
    const auto unfinished = directory + "/disk.new", overlay = directory + "/disk.qcow2";
    CAISSON_TRY(os::remove_tree(unfinished));
    if (!template_directory.empty()) CAISSON_TRY(vmm::copy_overlay(template_directory + "/disk.qcow2", unfinished, disk_bytes));
    else CAISSON_TRY(vmm::create_overlay(unfinished, disk_bytes));
    if (!box.auto_remove) {
        auto file = CAISSON_TRY(os::open_file(unfinished, O_RDONLY | O_NOFOLLOW));
        if (::fsync(file.get()) != 0) return base::failure_errno("cannot write the box's disk to the host's");
    }
    if (::rename(unfinished.c_str(), overlay.c_str()) != 0) return base::failure_errno("cannot make " + overlay);
    if (box.auto_remove) return {};
    CAISSON_TRY(os::fsync_directory(directory));
    return os::fsync_directory(box.runtime->home.boxes());
}

// What the box may take on the host: told to the supervisor, and written down for whoever asks later.
Result<> set_limits(const BoxState& box, const wire::BoxSpec& spec, const Start& start, wire::HostLimits& limits) {
    auto& runtime = *box.runtime;
    limits = start.limits;
    box::set_figures(limits, box.id, box::host_figures(start.shape, start.engine.choice.accelerator, spec.cpu_millis(),
                                                       box::disk_in_memory_bytes(runtime.home.boxes(), spec.disk_bytes() + box::bytes_of(start.disks))));
    std::string text;
    if (!limits.SerializeToString(&text)) return failure(Errc::kInternal, "the box's limits could not be packed");
    auto file = CAISSON_TRY(os::open_file(runtime.home.box(box.id) + "/" + box::kLimitsFile, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
    return os::write_all(file.get(), text);
}

// The caller hears of a host that cannot limit the box that is made or started now.
void tell_limits(const RuntimeState& runtime, const wire::HostLimits& limits) {
    if (!limits.reason().empty())
        runtime.notice((limits.applied() ? "the host does not limit all of this box: " : "the host does not limit this box: ") + limits.reason() +
                       "; " + limits.fix());
}

// What stands between this box and the host: a jail that can be made, or the caller's word that there is to be none.
Result<> check_security(const RuntimeState& runtime, const std::string& word, bool silent = false) {
    if (CAISSON_TRY(jail::sandbox_named(word)) != &jail::no_jail()) return jail::ready();
    if (!silent)
        runtime.notice("this box's VMM runs without a jail (--security none): whoever breaks out of the guest has all that its "
                       "user has on this host");
    return {};
}

// Whatever it is: a link that leads nowhere is a disk that was tampered with, and not a box without one.
bool has_disk(const std::string& directory) {
    struct stat info {};
    return ::lstat((directory + "/disk.qcow2").c_str(), &info) == 0;
}

void tell_network(const RuntimeState& runtime, const wire::NetworkSpec& spec, wire::Launch& launch) {
    launch.set_netns_program(runtime.libexec + "/caisson-netns");
    launch.set_netd_program(runtime.libexec + "/caisson-netd");
    std::vector<std::string> servers(spec.servers().begin(), spec.servers().end());
    for (auto& server : servers.empty() ? net::host_name_servers() : servers) launch.add_name_servers(server);
    // Those that are left out are found when something is sent there.
    for (const auto& address : net::host_addresses()) {
        if (launch.host_addresses_size() >= box::limits::kMostToldAddresses) break;
        launch.add_host_addresses(address.to_string());
    }
}

// Starts the supervisor of the box, whose lock `box` holds, and tells it what to do.
Result<> start_shim(BoxState& box, const wire::BoxSpec& spec, const Start& start, bool detached, bool fresh, bool without_command) {
    auto& runtime = *box.runtime;
    const auto directory = runtime.home.box(box.id);
    auto kvm = CAISSON_TRY(box::open_kvm(runtime, start.engine.choice.accelerator));
    auto tun = CAISSON_TRY(box::open_tun(runtime, start.shape));
    box.engine = start.engine.describe();
    box.shim = CAISSON_TRY(box::ShimClient::start(runtime.shim_program(),
                                                  {.lock = box.lock->fd().get(), .kvm = kvm.get(), .tun = tun.get(), .group = start.limits.applied() ? runtime.options.cgroup_fd : -1},
                                                  directory + "/shim.log"));
    wire::ToShim request;
    auto* launch = request.mutable_launch();
    launch->set_box_id(box.id);
    launch->set_box_directory(directory);
    launch->set_database(runtime.home.database());
    *launch->mutable_spec() = spec;
    box::to_message(start.engine.assets, *launch->mutable_assets());
    box::to_message(start.shape, start.engine.choice.accelerator, start.engine.host.tsc_khz, *launch->mutable_shape());
    launch->set_template_directory(start.template_directory);
    launch->set_restart_template_directory(start.restart_template);
    launch->set_overlay_path(directory + "/disk.qcow2");
    launch->set_base_disk_path(start.base_disk);
    launch->set_start_deadline_ms(start.template_directory.empty() ? box::limits::kColdDeadlineMs : box::limits::kRestoreDeadlineMs);
    launch->set_engine(box.engine);
    launch->set_detached(detached);
    launch->set_fresh(fresh);
    launch->set_without_command(without_command);
    launch->set_volumes(runtime.home.volumes());
    launch->set_share_program(runtime.libexec + "/caisson-share");
    if (start.shape.network) tell_network(runtime, spec.network(), *launch);
    launch->set_audit(runtime.home.audit());
    launch->set_name(box.name);
    launch->set_caller_uid(runtime.recorder->actor().uid);
    launch->set_caller_pid(runtime.recorder->actor().pid);
    launch->set_caller_process(runtime.recorder->actor().process);
    CAISSON_TRY(set_limits(box, spec, start, *launch->mutable_limits()));
    if (without_command) launch->mutable_spec()->set_auto_remove(false);  // it is the box that goes on
    return box.shim->send(request);
}

struct LaunchFailure {
    Error error;
    bool no_answer = false;
};

// Waits until the command runs. The box has ended when this fails.
tl::expected<void, LaunchFailure> wait_until_launched(BoxState& box) {
    std::optional<Error> start_failed;
    for (;;) {
        auto message = box.shim->receive();
        if (!message) return tl::unexpected(LaunchFailure{message.error()});
        if (!*message) {
            box.shim->close();
            box.clean_after_shim(box::kSupervisorDied);
            box.ended = true;
            Error error;
            error.code = Errc::kInternal;
            error.message = "the box's supervisor died while it started the box";
            return tl::unexpected(LaunchFailure{error});
        }
        const auto& content = **message;
        if (content.has_launched()) return {};
        if (content.has_start_failed()) start_failed = box::from_message(content.start_failed());
        if (content.has_error() || content.has_ended()) {
            box.shim->close();
            box.ended = true;
            if (start_failed) return tl::unexpected(LaunchFailure{*start_failed});
            if (content.has_error())
                return tl::unexpected(LaunchFailure{box::from_message(content.error()), content.error().no_answer()});
            Error error;
            error.code = Errc::kCancelled;
            error.message = "the box ended before its command ran: " + content.ended().reason();
            return tl::unexpected(LaunchFailure{error});
        }
    }
}

// A supervisor that could not begin may have left the record as its starter's: then it says what became of it.
// Of a box that was made for this start nothing stays.
void settle(RuntimeState& runtime, const std::string& id, const Error& error, bool made_for_it) {
    auto self = box::this_process();
    auto record = internal::find_record(runtime, id);
    if (!self || !record || !store::is_live(record->state) || record->owner.pid != self->pid || record->owner.start_time != self->start_time)
        return;
    if (made_for_it) return undo_record(runtime, id);
    std::scoped_lock guard(runtime.database_mutex);
    static_cast<void>(runtime.database->finish_box(id, store::BoxState::kFailed, {"failed", 125, error.to_string(), os::unix_ms()}));
}

// A template that did not come back to life is made again, once.
void discard_template(const RuntimeState& runtime, const std::string& directory, const Error& why) {
    runtime.notice("the template did not come back to life (" + why.to_string() + "); making it again");
    static_cast<void>(vmm::remove_template(runtime.home.templates(), directory.substr(directory.rfind('/') + 1)));
}

// A template of this shape that has nothing of an image, for disks that were written to.
Result<std::string> bare_template(const RuntimeState& runtime, box::Engine& engine, vmm::Shape shape) {
    return CAISSON_TRY(box::ensure_template(runtime, engine, shape, {})).directory;
}

// A box that has all that it is made of, and is still in the making: whoever finds that this process died removes it.
struct NewBox {
    store::BoxRecord record;
    wire::BoxMounts given;
};

void undo_new(RuntimeState& runtime, const NewBox& made) {
    undo_record(runtime, made.record.id);
    undo_mounts(runtime, made.given);
}

// Nothing stays of one that cannot be made.
Result<NewBox> make_new(std::shared_ptr<RuntimeState> runtime, const BoxOptions& options) {
    CAISSON_TRY(check_request(*runtime, options));
    CAISSON_TRY(check_security(*runtime, options.security));
    const auto opened = CAISSON_TRY(internal::open_copies(*runtime, options.copies));
    tell_limits(*runtime, CAISSON_TRY(box::decide_limits(*runtime, options.require_limits)));
    CAISSON_TRY(internal::ensure_image(*runtime, options));
    auto decision = CAISSON_TRY(box::decide(*runtime, options));
    if (options.replace) CAISSON_TRY(internal::remove_replaced(*runtime, options.name));
    auto base_disk = CAISSON_TRY(box::ensure_base_disk(*runtime, decision, options.disk_bytes));
    auto frozen = box::template_image(decision.image, base_disk, decision.base_disk_bytes);
    NewBox box;
    box.record = CAISSON_TRY(insert_record(*runtime, options, decision, base_disk, frozen.warm));
    const auto directory = runtime->home.box(box.record.id);
    auto made = [&]() -> Result<> {
        box.given = CAISSON_TRY(give_mounts(*runtime, box.record.id, decision.mounts));
        CAISSON_TRY(record_creation(*runtime, box.record, options, box.given));
        CAISSON_TRY(os::make_directories(directory, 0700));
        CAISSON_TRY(os::FileLock::acquire(directory + "/lock"));
        if (!options.copies.empty()) CAISSON_TRY(internal::copy_into_new(runtime, box.record, options.copies, opened));
        return os::fsync_directory(runtime->home.boxes());
    }();
    if (made) return box;
    undo_new(*runtime, box);
    return base::failure(std::move(made.error()).with_context("creating the box"));
}

// One whose disk is written to before it starts: made as by create(), then started.
Result<std::shared_ptr<BoxState>> launch_with_copies(std::shared_ptr<RuntimeState> runtime, const BoxOptions& options, bool detached) {
    const auto made = CAISSON_TRY(make_new(runtime, options));
    auto box = internal::start_recorded(runtime, made.record, detached ? internal::StartMode::kDetached : internal::StartMode::kAttached);
    if (box) return box;
    // A box whose command could not be started stays, as without copies; of one that did not start nothing does.
    auto now = internal::find_record(*runtime, made.record.id);
    if (!now || now->state != store::BoxState::kStopped) undo_new(*runtime, made);
    return box;
}

// Makes a box from its options and starts it at once.
Result<std::shared_ptr<BoxState>> launch_new(std::shared_ptr<RuntimeState> runtime, const BoxOptions& options, bool detached) {
    CAISSON_TRY(check_request(*runtime, options));
    CAISSON_TRY(check_security(*runtime, options.security));
    if (!detached && options.restart != RestartPolicy::kNo)
        return failure(Errc::kUsage, "a box that ends with its caller cannot be started again by a policy",
                       "run it detached (-d), or leave out --restart");
    if (!options.copies.empty()) return launch_with_copies(std::move(runtime), options, detached);
    Start start;
    start.limits = CAISSON_TRY(box::decide_limits(*runtime, options.require_limits));
    tell_limits(*runtime, start.limits);
    const auto keeper = box::hasten_entry(start.limits, runtime->options.cgroup_fd);
    CAISSON_TRY(internal::ensure_image(*runtime, options));
    auto decision = CAISSON_TRY(box::decide(*runtime, options));
    if (options.replace) CAISSON_TRY(internal::remove_replaced(*runtime, options.name));
    CAISSON_TRY(box::check_disks_free(*runtime, "", decision.disks));
    start.disks = decision.disks;
    start.base_disk = CAISSON_TRY(box::ensure_base_disk(*runtime, decision, options.disk_bytes));
    auto frozen = box::template_image(decision.image, start.base_disk, decision.base_disk_bytes);
    for (int attempt = 0;; ++attempt) {
        if (!options.cold)
            start.template_directory = CAISSON_TRY(box::ensure_template(*runtime, decision.engine, decision.shape, frozen)).directory;
        if (options.restart != RestartPolicy::kNo && !options.cold)
            start.restart_template = CAISSON_TRY(bare_template(*runtime, decision.engine, decision.shape));
        start.engine = decision.engine;
        start.shape = decision.shape;
        auto record = CAISSON_TRY(insert_record(*runtime, options, decision, start.base_disk, frozen.warm));
        auto spec = CAISSON_TRY(internal::spec_of(record));
        auto box = state_of(runtime, record, spec);
        box->owner = !detached;
        wire::BoxMounts given;
        auto started = [&]() -> Result<> {
            const auto directory = runtime->home.box(box->id);
            given = CAISSON_TRY(give_mounts(*runtime, box->id, decision.mounts));
            CAISSON_TRY(record_creation(*runtime, record, options, given));
            CAISSON_TRY(os::make_directories(directory, 0700));
            box->lock = CAISSON_TRY(os::FileLock::acquire(directory + "/lock"));
            CAISSON_TRY(box->make_order_pipe());
            CAISSON_TRY(make_overlay(*box, start.template_directory, options.disk_bytes));
            return start_shim(*box, spec, start, detached, true, false);
        }();
        if (!started) {
            box->shim.reset();
            undo_new(*runtime, {record, given});
            return base::failure(std::move(started.error()).with_context("creating the box"));
        }
        auto launched = wait_until_launched(*box);
        if (launched) return box;
        settle(*runtime, box->id, launched.error().error, true);
        if (!given.mounts().empty() && !internal::find_record(*runtime, box->id)) {
            static_cast<void>(internal::release_volumes(runtime->home, box->id));
            undo_mounts(*runtime, given);
        }
        if (!launched.error().no_answer || options.cold || attempt > 0) return base::failure(launched.error().error);
        box.reset();
        discard_template(*runtime, start.template_directory, launched.error().error);
    }
}

// What a start of a recorded box needs of the host as it is now.
Result<Start> decide_start(const RuntimeState& runtime, const store::BoxRecord& record, const wire::BoxSpec& spec, bool fresh,
                           bool silent) {
    Start start;
    CAISSON_TRY(check_security(runtime, spec.security(), silent));
    // Also of one whose files only are wanted; it starts without a word about what the host cannot do.
    start.limits = CAISSON_TRY(box::decide_limits(runtime, spec.require_limits()));
    start.base_disk = CAISSON_TRY(box::recorded_base_disk(runtime.home, record));
    if (!os::exists(start.base_disk))
        return failure(Errc::kNotFound, "the root disk that box " + record.name + " was made from is gone (" + start.base_disk + ")");
    start.engine = CAISSON_TRY(box::choose_engine(runtime));
    start.shape = CAISSON_TRY(vmm::shape_for(spec.cpu_millis(), spec.memory_bytes()));
    start.disks = CAISSON_TRY(box::disks_of(runtime.home, record.id));
    start.shape.disks = box::places_for(start.disks.size());
    start.shape.network = spec.has_network();
    if (spec.cold()) return start;
    const auto bare = [&] { return bare_template(runtime, start.engine, start.shape); };
    if (!fresh) start.template_directory = CAISSON_TRY(bare());
    else {
        box::TemplateImage image{record.image, start.base_disk, spec.base_disk_bytes(), {spec.warm().begin(), spec.warm().end()}};
        start.template_directory = CAISSON_TRY(box::ensure_template(runtime, start.engine, start.shape, image)).directory;
    }
    if (spec.restart() != wire::BoxSpec::NO) start.restart_template = CAISSON_TRY(bare());
    return start;
}

// What is recorded comes into force with the start. Whoever had died over recording it has told nobody.
void settle_network(RuntimeState& runtime, const store::BoxRecord& record, const wire::BoxSpec& spec, box::NetworkRequest turn) {
    if (!turn.unsettled()) return;
    turn.settle();
    for (auto& [kind, details] : box::network_changes({}, spec.network())) internal::record(runtime, {kind, record.id, record.name, std::move(details)});
}

}  // namespace

namespace internal {

Result<std::shared_ptr<BoxState>> start_recorded(std::shared_ptr<RuntimeState> runtime, const store::BoxRecord& record,
                                                 StartMode mode) {
    const auto directory = runtime->home.box(record.id);
    const bool in_the_making = record.state == store::BoxState::kCreating;  // by the caller, who says what there is to say
    const bool files_only = mode == StartMode::kFilesOnly;
    // Its last supervisor may just be leaving; or somebody else starts it.
    auto lock = lock_patiently(directory, record.name, [&] {
        auto now = find_record(*runtime, record.id);
        return !now || (store::is_live(now->state) && !in_the_making);
    });
    if (!lock && lock.error().sys_errno == ENOENT) {
        if (!find_record(*runtime, record.id)) return failure(Errc::kNotFound, "box " + record.name + " was removed meanwhile");
        return failure(Errc::kNotFound, "the files of box " + record.name + " are gone (" + directory + ")",
                       "only its record is left; remove it: caisson rm " + record.name);
    }
    auto held = CAISSON_TRY(std::move(lock));
    // Nobody changes what is recorded between now, when it is read, and the record of the start.
    std::optional<box::NetworkRequest> turn;
    if (!in_the_making && !files_only) turn.emplace(CAISSON_TRY(box::NetworkRequest::wait(directory, box::limits::kUpdateTurn)));
    auto spec = CAISSON_TRY(spec_of(turn ? CAISSON_TRY(find_record(*runtime, record.id)) : record));
    // Read-only is what it is for its command, and that does not run yet. Nor is anybody behind its ports.
    if (in_the_making && files_only) spec.mutable_configure()->mutable_root()->set_read_only(false);
    if (files_only && spec.has_network()) spec.mutable_network()->clear_ports();
    auto box = state_of(runtime, record, spec);
    box->owner = mode == StartMode::kAttached;
    box->lock = std::move(held);
    for (int attempt = 0;; ++attempt) {
        const bool fresh = !has_disk(directory);
        const bool silent = files_only || in_the_making || attempt > 0;
        auto start = CAISSON_TRY(decide_start(*runtime, record, spec, fresh, silent));
        CAISSON_TRY_CTX(box::check_disks_free(*runtime, record.id, start.disks), "starting box " + record.name);
        const auto keeper = box::hasten_entry(start.limits, runtime->options.cgroup_fd);
        if (!silent) tell_limits(*runtime, start.limits);
        if (!files_only && !(in_the_making && attempt == 0)) {
            std::scoped_lock guard(runtime->database_mutex);
            CAISSON_TRY(runtime->database->begin_start(record.id, CAISSON_TRY(box::this_process())));
        }
        if (turn) settle_network(*runtime, record, spec, *std::exchange(turn, std::nullopt));
        auto started = [&]() -> Result<> {
            CAISSON_TRY(box->make_order_pipe());
            if (fresh) CAISSON_TRY(make_overlay(*box, start.template_directory, spec.disk_bytes()));
            return start_shim(*box, spec, start, mode == StartMode::kDetached, false, files_only);
        }();
        if (!started) {
            box->shim.reset();
            if (fresh) static_cast<void>(os::remove_tree(directory + "/disk.qcow2"));
            std::scoped_lock guard(runtime->database_mutex);
            if (!files_only)
                static_cast<void>(runtime->database->finish_box(record.id, store::BoxState::kFailed,
                                                                {"failed", 125, started.error().to_string(), os::unix_ms()}));
            return base::failure(std::move(started.error()).with_context("starting box " + record.name));
        }
        auto launched = wait_until_launched(*box);
        if (launched) return box;
        if (!files_only) settle(*runtime, record.id, launched.error().error, false);
        if (!launched.error().no_answer || spec.cold() || attempt > 0) return base::failure(launched.error().error);
        // Nothing of the guest ever ran, so a disk that was made for it is as good as none.
        if (fresh) static_cast<void>(os::remove_tree(directory + "/disk.qcow2"));
        box->shim.reset();
        box->ended = false;
        discard_template(*runtime, start.template_directory, launched.error().error);
    }
}

}  // namespace internal

Result<Box> Runtime::run(const BoxOptions& options) { return Box(CAISSON_TRY(launch_new(state_, options, false))); }

Result<BoxInfo> Runtime::run_detached(const BoxOptions& options) {
    auto box = CAISSON_TRY(launch_new(state_, options, true));
    box->shim->leave();
    box->ended = true;
    auto info = internal::find_info(*state_, box->id);
    if (info || info.error().code != Errc::kNotFound) return info;
    // It has ended and been removed already.
    BoxInfo gone;
    gone.id = box->id;
    gone.name = box->name;
    return gone;
}

Result<BoxInfo> Runtime::create(const BoxOptions& options) {
    const auto made = CAISSON_TRY(make_new(state_, options));
    auto recorded = [&] {
        std::scoped_lock guard(state_->database_mutex);
        return state_->database->set_box_created(made.record.id);
    }();
    if (!recorded) {
        undo_new(*state_, made);
        return base::failure(std::move(recorded.error()).with_context("creating the box"));
    }
    return internal::find_info(*state_, made.record.id);
}

Result<BoxInfo> Runtime::start(const std::string& reference) {
    auto record = CAISSON_TRY(internal::find_record(*state_, reference));
    if (store::is_live(record.state)) return internal::wait_until_started(*state_, record.id);
    auto box = internal::start_recorded(state_, record, internal::StartMode::kDetached);
    if (!box) {
        auto now = box.error().code == Errc::kInUse ? internal::find_record(*state_, record.id) : Result<store::BoxRecord>(record);
        if (now && store::is_live(now->state)) return internal::wait_until_started(*state_, record.id);  // somebody was faster
        return base::failure(std::move(box.error()));
    }
    (*box)->shim->leave();
    (*box)->ended = true;
    return internal::find_info(*state_, record.id);
}

}  // namespace caisson
