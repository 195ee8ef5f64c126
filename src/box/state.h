// What the public handles point at. Internal to this room.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

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

struct RuntimeState {
    RuntimeOptions options;
    store::Home home;
    std::string libexec;
    // Threads of an embedding program share the runtime; SQLite connections are for one thread at a time.
    std::mutex database_mutex;
    std::optional<store::Database> database;
    std::optional<image::Store> images;

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
};

// What another thread asks of the one that waits. Written to a pipe whole, since it is far below PIPE_BUF.
struct Order {
    std::int32_t signal = 0;  // 0: a new size of the terminal instead
    std::uint16_t rows = 0;
    std::uint16_t columns = 0;
};

struct BoxState {
    std::shared_ptr<RuntimeState> runtime;
    std::string id;
    std::string name;
    std::string engine;
    bool auto_remove = true;
    bool stdin_open = false;
    std::optional<os::FileLock> lock;
    std::unique_ptr<box::ShimClient> shim;
    os::Fd order_read, order_write;  // Order after Order
    std::vector<Stage> stages;
    bool ended = false;

    ~BoxState();
    // The shim is dead without having said how the box ended: removes or records what is left.
    void clean_after_shim(const std::string& reason);
};

// Brings the image of `options` into the store if its pull policy says so.
Result<> ensure_image(RuntimeState& runtime, const BoxOptions& options);

// Removes what dead processes left in the home. Called when a home is opened.
Result<> reconcile(const store::Home& home, store::Database& database);

}  // namespace caisson::internal
