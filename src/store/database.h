// The database: beside its test, the only file that includes sqlite3.h is database.cc. One connection per Database; not shared between
// threads. Every method is one transaction and durable when it returns (WAL, synchronous=FULL).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace caisson::store {

// How far a box's life has come. "creating" and "running" name processes; reconciling checks that they still live.
enum class BoxState { kCreating, kRunning, kStopped, kFailed };
const char* to_string(BoxState state);

// A process that cannot be mistaken for a later one with the same number.
struct ProcessIdentity {
    std::int64_t pid = 0;
    std::int64_t start_time = 0;  // clock ticks since boot
    std::string boot_id;
};

struct BoxRecord {
    std::string id;
    std::string name;
    std::string image;
    std::string image_digest;
    std::string command;  // JSON array
    BoxState state = BoxState::kCreating;
    bool auto_remove = false;
    std::int64_t created_ms = 0;   // Unix time
    std::int64_t finished_ms = 0;  // 0: not yet
    ProcessIdentity owner;         // who makes it, later its shim
    std::optional<int> exit_code;  // as a shell sees it
    std::string reason;            // why it ended, for people
    std::string base_disk;         // path of what its overlay lies over; empty in records of old homes
};

class Database {
  public:
    // Creates or migrates. kUnsupported: written by a newer caisson. kCorrupt: not a database.
    static Result<Database> open(const std::string& path);
    Database(Database&&) noexcept;
    Database& operator=(Database&&) noexcept;
    ~Database();

    // kAlreadyExists: the name is taken (the message names its holder).
    Result<> insert_box(const BoxRecord& record);
    Result<> set_box_running(const std::string& id, const ProcessIdentity& shim);
    Result<> finish_box(const std::string& id, BoxState state, std::optional<int> exit_code, const std::string& reason,
                        std::int64_t finished_ms);
    Result<> remove_box(const std::string& id);  // removing what is gone is fine
    // By name, id, or unique prefix of an id. kNotFound; kUsage if a prefix fits several.
    Result<BoxRecord> find_box(const std::string& reference) const;
    Result<std::vector<BoxRecord>> boxes() const;
    // Boxes whose state names a process.
    Result<std::vector<BoxRecord>> live_boxes() const;

  private:
    struct Connection;
    explicit Database(std::unique_ptr<Connection> connection);
    std::unique_ptr<Connection> connection_;
};

}  // namespace caisson::store
