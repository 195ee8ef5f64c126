// What the public handles point at. Internal to this room.
#pragma once

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "audit/event.h"
#include "box/shim.h"
#include "box/shim_client.h"
#include "caisson/runtime.h"
#include "image/store.h"
#include "os/file.h"
#include "store/database.h"
#include "store/home.h"
#include "vmm/accelerator.h"
#include "vmm/assets.h"
#include "vmm/template.h"

namespace caisson::internal {

class Recorder;
class EventThread;

struct RuntimeState {
    RuntimeState();
    ~RuntimeState();  // ends what the last two members run
    RuntimeOptions options;
    store::Home home;
    std::string libexec;
    // Threads of an embedding program share the runtime; SQLite connections are for one thread at a time.
    std::mutex database_mutex;
    std::optional<store::Database> database;
    std::optional<image::Store> images;
    std::unique_ptr<Recorder> recorder;     // of the journal, see recorder.h
    std::unique_ptr<EventThread> listener;  // for RuntimeOptions::on_event
    std::set<std::string> told_full;  // boxes of which the caller has heard that they wait for room; with the database

    std::string shim_program() const { return libexec + "/caisson-shim"; }
    void progress(std::string step, std::uint64_t done = 0, std::uint64_t total = 0) const {
        if (options.on_progress) options.on_progress({std::move(step), done, total});
    }
    void notice(const std::string& text) const {
        if (options.on_notice) options.on_notice(text);
    }
    // How the image store's progress reaches the caller; empty if nobody listens.
    image::ProgressCallback image_progress() const {
        if (!options.on_progress) return {};
        return [this](const image::Progress& said) { progress(said.step, said.done_bytes, said.total_bytes); };
    }
    Result<vmm::Assets> assets() const;
    image::Store::Options image_options() const;
};

// What another thread asks of the one that waits. Written to a pipe whole, since it is far below PIPE_BUF.
struct Order {
    std::int32_t signal = 0;  // 0: a new size of the terminal instead
    std::uint16_t rows = 0;
    std::uint16_t columns = 0;
};

// One execution that this process is connected to, and for a box's own command the box. The same struct serves
// Box, its main Execution, and the Executions of exec() and attach().
struct BoxState {
    std::shared_ptr<RuntimeState> runtime;
    std::string id;
    std::string name;
    std::string engine;
    bool owner = false;      // this process started the box, which ends with it
    bool auto_remove = true;
    std::uint32_t number = box::kMainExecution;
    bool stdin_open = false;
    bool terminal = false;
    std::uint32_t input_credit = wire::kInitialCredit;
    std::uint64_t log_position = 0;
    std::optional<os::FileLock> lock;
    std::unique_ptr<box::ShimClient> shim;
    os::Fd order_read, order_write;  // Order after Order
    std::vector<Stage> stages;
    std::optional<audit::Event> copy;       // of a copy: what is recorded when it has ended
    std::uint64_t bytes_in = 0, bytes_out = 0;  // of its input, and of its standard output
    bool ended = false;
    bool goes_on = false;    // the box was left: it is nobody's here any more

    ~BoxState();
    // The supervisor is dead without having said how the box ended: removes or records what is left.
    void clean_after_shim(const std::string& reason);
    // How it ended, if its supervisor is gone and did not tell us: it leaves without a client that does not listen for
    // seconds, and has recorded the end then. Else it died; of the owner's box nothing stays.
    Outcome end_without_a_word();
    Result<> make_order_pipe();
};

// Brings the image of `options` into the store if its pull policy says so.
Result<> ensure_image(RuntimeState& runtime, const BoxOptions& options);

BoxInfo info_of(const store::BoxRecord& record);
// How a recorded life or execution ended.
Outcome outcome_of(const store::EndRecord& end);
// What a box was asked to be; kUnsupported for one that an older caisson made and that has no such record.
Result<wire::BoxSpec> spec_of(const store::BoxRecord& record);

// The box is gone for good, its record and its processes included: its anonymous volumes go, too.
Result<> release_volumes(const store::Home& home, const std::string& box_id);
// Removes what dead processes left of volumes. Cheap if there is nothing.
Result<> sweep_volumes(const store::Home& home, store::Database& database);

// Removes what dead processes left in the home. Called when a home is opened.
Result<> reconcile(const store::Home& home, store::Database& database);

}  // namespace caisson::internal
