#include "box/recorder.h"

#include "caisson/space.h"
#include "os/host.h"
#include "os/thread.h"

namespace caisson::internal {

namespace {

// After an error: the disk may be full for long.
constexpr std::chrono::milliseconds kRetryDelay{2000};

audit::Actor actor_of(const RuntimeOptions& options) {
    auto actor = audit::this_actor();
    if (options.caller_uid >= 0) actor.uid = options.caller_uid;
    return actor;
}

void tell(const RuntimeState& runtime, const std::string& what, const Result<>& done) {
    if (done) return;
    auto said = what + " could not be recorded: " + done.error().to_string() + (done.error().hint.empty() ? "" : "; " + done.error().hint);
    if (const auto way_out = full_disk_hint(done.error(), runtime.home.root); !way_out.empty()) said += "\n" + way_out;
    runtime.notice(said);
}

}  // namespace

Recorder::Recorder(RuntimeState& runtime)
    : runtime_(runtime), actor_(actor_of(runtime.options)), journal_(runtime.home.audit()) {}

Recorder::~Recorder() {
    {
        std::scoped_lock guard(runtime_.database_mutex);
        stopping_ = true;
        wakeup_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
    else run();
}

void Recorder::wake() {
    if (!journal_.pending() && !closing_) return;
    if (thread_.joinable()) return wakeup_.notify_one();
    // Where there can be no thread the destructor does its work; until then what was written is not acknowledged.
    if (auto thread = os::start_quiet_thread([this] { run(); })) thread_ = std::move(*thread);
}

void Recorder::run() {
    std::unique_lock lock(runtime_.database_mutex);
    for (;;) {
        wakeup_.wait(lock, [this] { return stopping_ || closing_ || journal_.pending(); });
        if (!journal_.pending() && !closing_) return;
        wakeup_.wait_for(lock, audit::limits::kBatchDelay, [this] { return stopping_; });
        const bool last = stopping_;
        // Nobody is told of a failure: this is not the caller's thread, and who opens the home next tries again.
        if (std::exchange(closing_, false)) static_cast<void>(journal_.close_removed(*runtime_.database, actor_, os::unix_ms()));
        if (!commit(lock)) {
            if (last) return;  // what was written is there, and the next writer's batch acknowledges it
            wakeup_.wait_for(lock, kRetryDelay, [this] { return stopping_; });
        }
    }
}

Result<> Recorder::commit(std::unique_lock<std::mutex>& lock) {
    auto batch = journal_.take();
    auto done = [&]() -> Result<> {
        CAISSON_TRY(journal_.leave_out_acknowledged(*runtime_.database, batch));
        lock.unlock();
        auto synced = audit::Journal::sync(journal_.root(), batch);
        lock.lock();
        CAISSON_TRY(std::move(synced));
        return journal_.acknowledge(*runtime_.database, batch);
    }();
    if (!done) journal_.put_back(std::move(batch));
    return done;
}

Result<> Recorder::record(const std::string& chain, const audit::Event& event) {
    std::scoped_lock guard(runtime_.database_mutex);
    CAISSON_TRY(journal_.record(*runtime_.database, chain, event, actor_, os::unix_ms()));
    wake();
    return {};
}

Result<> Recorder::close_removed() {
    std::scoped_lock guard(runtime_.database_mutex);
    auto closed = journal_.close_removed(*runtime_.database, actor_, os::unix_ms());
    wake();
    return closed;
}

Result<> Recorder::close_removed_soon() {
    std::scoped_lock guard(runtime_.database_mutex);
    closing_ = !CAISSON_TRY(runtime_.database->journals_to_close()).empty();
    wake();
    return {};
}

Result<audit::Head> Recorder::acknowledge(const std::string& chain) {
    std::scoped_lock guard(runtime_.database_mutex);
    auto writer = CAISSON_TRY(audit::Writer::open(audit::chain_directory(journal_.root(), chain)));
    auto last = CAISSON_TRY(writer.last());
    if (!last) return audit::Head();
    const audit::Batch batch{{{chain, {last->sequence, last->hash}}}, {}};
    CAISSON_TRY(writer.sync(true));
    CAISSON_TRY(journal_.acknowledge(*runtime_.database, batch));
    return batch.heads.begin()->second;
}

void record(RuntimeState& runtime, const audit::Event& event) {
    tell(runtime, event.kind, runtime.recorder->record(event.box_id.empty() ? audit::kHomeChain : event.box_id, event));
}

Result<> record_in_home(RuntimeState& runtime, const audit::Event& event) { return runtime.recorder->record(audit::kHomeChain, event); }

Result<> record_lowering(RuntimeState& runtime, const std::string& box_id, const std::string& box_name, const std::vector<std::string>& what) {
    if (what.empty()) return {};
    CAISSON_TRY_CTX(record_in_home(runtime, {"security_lowered", box_id, box_name, {{"lowered", what}}}),
                    "security is not lowered without a record of it");
    return {};
}

void close_journals(RuntimeState& runtime, bool soon) {
    tell(runtime, "the end of a box's journal", soon ? runtime.recorder->close_removed_soon() : runtime.recorder->close_removed());
}

}  // namespace caisson::internal
