#include "caisson/runtime.h"

#include <unistd.h>

#include "base/id.h"
#include "box/decision.h"
#include "box/audit_log.h"
#include "box/place.h"
#include "box/recorder.h"
#include "box/state.h"
#include "net/policy/policy.h"
#include "store/reserve.h"
#include "vmm/template.h"

namespace caisson {

using base::failure;
using internal::RuntimeState;

namespace {

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

// A new database would say that there are no boxes, and all their directories would be removed as leftovers of dead processes.
Result<> check_database(const store::Home& home) {
    if (os::exists(home.database())) return {};
    for (const auto& name : CAISSON_TRY(os::list_directory(home.boxes())))
        // Looked for again: of two processes that begin with a new home, one is faster.
        if (base::is_ulid(name) && !os::exists(home.database()))
            return failure(Errc::kCorrupt, "the database of the home is missing (" + home.database() + "), but there are boxes",
                           "put it back, or go on without these boxes, whose files are moved aside: caisson check --repair");
    return {};
}

}  // namespace

namespace internal {

RuntimeState::RuntimeState() = default;
RuntimeState::~RuntimeState() {
    listener.reset();
    recorder.reset();
}

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

image::Store::Options internal::RuntimeState::image_options() const {
    image::Store::Options made;
    made.images_directory = home.images();
    made.disks_directory = home.disks();
    made.unpack_program = libexec + "/caisson-unpack";
    made.enter_program = libexec + "/caisson-enter";
    made.fetch_program = libexec + "/caisson-fetch";
    made.registries_file = home.root + "/registries.json";
    return made;
}

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
    if (auto warning = store::keep_reserve(home); !warning.empty()) state->notice(warning);
    state->libexec = box::prefix_of(state->options.program_directory) + "/libexec/caisson";
    // Programs that this user cannot reach were copied by leave_root().
    if (::access(state->shim_program().c_str(), X_OK) != 0 && os::exists(home + "/programs/caisson-shim"))
        state->libexec = home + "/programs";
    if (::access(state->shim_program().c_str(), X_OK) != 0)
        return failure(Errc::kHostMissing, "caisson's own program " + state->shim_program() + " is missing",
                       "install caisson again, or in its source tree: make build");
    CAISSON_TRY(check_database(state->home));
    state->database = CAISSON_TRY(store::Database::open(state->home.database()));
    store::hold_database_log(state->home.database());
    store::hold_index_room(state->home.database());
    auto tidied = internal::reconcile(state->home, *state->database);
    // On a full disk whoever wants to clean up has to get in: what could not be written down now is written down later.
    if (!tidied && tidied.error().code == Errc::kNoSpace)
        state->notice("not all that earlier processes left could be tidied up: " + tidied.error().to_string());
    else CAISSON_TRY_CTX(std::move(tidied), "tidying up after earlier processes");
    state->recorder = std::make_unique<internal::Recorder>(*state);
    internal::close_journals(*state, true);
    state->images = CAISSON_TRY(image::Store::open(state->image_options()));
    if (state->options.on_event) state->listener = CAISSON_TRY(internal::EventThread::start(*state));
    return Runtime(std::move(state));
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
    if (!shape.network) options.network = net::to_string(net::Mode::kNone);
    auto decision = CAISSON_TRY(box::decide(*state_, options));
    auto base_disk = CAISSON_TRY(box::ensure_base_disk(*state_, decision, options.disk_bytes));
    auto made = CAISSON_TRY(box::ensure_template(*state_, decision.engine, decision.shape,
                                                 box::template_image(decision.image, base_disk, decision.base_disk_bytes)));
    for (const auto& info : CAISSON_TRY(vmm::list_templates(state_->home.templates())))
        if (info.key == made.key) return info_of(info);
    return failure(Errc::kNotFound, "the template was removed while it was made");
}

Result<> Runtime::remove_template(const std::string& key) {
    return vmm::remove_template(state_->home.templates(), key);
}

}  // namespace caisson
