// The database: beside its test, the only file that includes sqlite3.h is database.cc. One connection per Database; not shared between
// threads. Every method is one transaction and, where nothing else is said, durable when it
// returns (WAL, synchronous=FULL).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace caisson::store {

// How far a box's life has come.
enum class BoxState {
    kCreating,  // its record exists, what belongs to it is being made; undone if its owner dies
    kCreated,   // complete, never started
    kStarting,  // these four name a process that answers for the box; reconciling checks that it still lives
    kRunning,
    kPaused,
    kStopping,
    kStopped,
    kFailed,
};
const char* to_string(BoxState state);
// Does a process answer for it?
bool is_live(BoxState state);

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
    std::string spec;              // wire::BoxSpec, serialised: what it was asked to be; empty in records of old homes
    std::string engine;            // how its guest was last run, for people
    std::int64_t started_ms = 0;   // its command, last; 0: never
    std::string outcome;           // of its last life: "exited", "signalled", "timed_out", "failed"; empty: none yet
    std::int64_t restarts = 0;     // by its restart policy, since somebody started it
    std::string health;            // "", "starting", "healthy", "unhealthy"
    bool stop_requested = false;   // somebody ended it: no policy starts it again
};

// How a life of a box, or an execution, ended.
struct EndRecord {
    std::string outcome;
    std::optional<int> exit_code;
    std::string reason;
    std::int64_t finished_ms = 0;
};

// A detached execution: others find it by this record. The box's main command has none, it is the box.
struct ExecutionRecord {
    std::string id;
    std::string box_id;
    std::string command;  // JSON array
    bool running = true;
    std::int64_t started_ms = 0;
    EndRecord end;
};

// A chain of the journal is called "home", by a box's id, or by that and this: what a box's network does has a chain of its
// own, since a guest can make as much of it as it likes.
inline constexpr std::string_view kNetworkChain = ".network";
// The box that a chain is about; empty: the home's own, or no name of a chain.
std::string box_of_chain(std::string_view chain);

// What is known of one chain of the journal, apart from its files; see the audit room.
struct JournalHead {
    std::string chain;            // a box's id, or "home"
    std::int64_t sequence = 0;    // of the last entry that is surely on the disk; 0: none
    std::string hash;
    std::int64_t first = 1;       // the oldest entry that is kept
    std::int64_t closed_ms = 0;   // when it ended; 0: it goes on
};
// Processes other than this one that have the database open, of this version or another.
std::vector<std::int64_t> users_of_database(const std::string& path);

class Database {
  public:
    // Creates or migrates. kUnsupported: written by a newer caisson. kInUse: it has to be migrated, and processes of an
    // older caisson (the message names them) still use it. kCorrupt: not a database.
    static Result<Database> open(const std::string& path);
    // For who only looks: reads the database as it is and changes nothing of it, beside others that use it, on a file system
    // that is read-only, or when its log was left by dead processes. Nothing but the methods that read may be called.
    // kNotFound: there is none; kCorrupt; kUnsupported: of a newer caisson; kInUse: of an older one, to be migrated by open().
    static Result<Database> open_to_look(const std::string& path);
    Database(Database&&) noexcept;
    Database& operator=(Database&&) noexcept;
    ~Database();

    // kAlreadyExists: the name is taken (the message names its holder).
    Result<> insert_box(const BoxRecord& record);
    // Everything of the box is there now: kCreating becomes kCreated.
    Result<> set_box_created(const std::string& id);
    // kCreated, kStopped or kFailed becomes kStarting, answered for by `owner`; kInUse in any other state. Its last
    // life's end and `restarts` are forgotten.
    Result<> begin_start(const std::string& id, const ProcessIdentity& owner);
    // A live box's supervisor tells how it goes. Not durable before the next method that is: after a crash of the host
    // these states mean the same.
    Result<> set_box_owner(const std::string& id, const ProcessIdentity& shim, const std::string& engine);
    // `health` is what its check says at first; empty: it has none.
    Result<> set_box_running(const std::string& id, std::int64_t started_ms, const std::string& health);
    Result<> set_box_state(const std::string& id, BoxState state, const std::string& reason);
    Result<> set_box_health(const std::string& id, const std::string& health);
    // Durable: whoever starts boxes by their policies must know.
    Result<> set_stop_requested(const std::string& id);
    // Its policy starts it again: kStarting, with `restarts` counted up and its last end kept; its executions are over.
    Result<> restart_box(const std::string& id, const EndRecord& end);
    // kStopped or kFailed; whatever executions of it still run are over with it.
    Result<> finish_box(const std::string& id, BoxState state, const EndRecord& end);
    Result<> rename_box(const std::string& id, const std::string& name);
    // What the box was asked to be, if that is still `expected`; kInUse if somebody changed it meanwhile.
    Result<> change_box_spec(const std::string& id, const std::string& expected, const std::string& spec);
    Result<> remove_box(const std::string& id);  // removing what is gone is fine
    // By name, id, or unique prefix of an id. kNotFound; kUsage if a prefix fits several.
    Result<BoxRecord> find_box(const std::string& reference) const;
    // Records that make no sense are left out.
    Result<std::vector<BoxRecord>> boxes() const;
    // Also of those.
    Result<std::vector<std::string>> box_ids() const;
    // Boxes whose state names a process.
    Result<std::vector<BoxRecord>> live_boxes() const;

    Result<> insert_execution(const ExecutionRecord& record);
    Result<> finish_execution(const std::string& id, const EndRecord& end);
    // By id or unique prefix of an id; kNotFound, kUsage.
    Result<ExecutionRecord> find_execution(const std::string& box_id, const std::string& reference) const;
    Result<std::vector<ExecutionRecord>> executions(const std::string& box_id) const;

    // A box's chain is known from the moment that its record is inserted. Of one that is not: an empty head.
    Result<JournalHead> journal_head(const std::string& chain) const;
    Result<std::vector<JournalHead>> journal_heads() const;
    // Never backwards. Not durable before the next method that is: after a crash of the host an older head is true as well.
    Result<> acknowledge_journal(const std::string& chain, std::int64_t sequence, const std::string& hash);
    // Of a chain that has none of its own by its box's record: so that it is closed even if nothing of it is acknowledged.
    Result<> begin_journal(const std::string& chain);
    Result<> keep_journal_from(const std::string& chain, std::int64_t first);
    // Of boxes that have no record any more, and that nobody has closed.
    Result<std::vector<std::string>> journals_to_close() const;
    // Only one of several processes does it: what `write` does happens before it is recorded, and before the next one looks.
    Result<> close_journal(const std::string& chain, std::int64_t closed_ms, std::uint64_t bytes, const std::function<Result<>()>& write);
    // If more than `most` chains are closed, or they have more than `most_bytes`: forgets those closed first until an eighth
    // less is left, and returns them.
    Result<std::vector<std::string>> forget_journals(std::uint64_t most, std::uint64_t most_bytes);
    // What is wrong with the database itself: SQLite's own check, references to nothing, rows that make no sense.
    struct Flaw {
        enum class Kind {
            kDamaged,    // nobody knows what else is wrong
            kReference,  // `id` is the row of executions
            kRecord,     // a box's row that makes no sense; `id` as it is there
            kExecution,  // the same, or one that runs in a box that does not
        };
        Kind kind = Kind::kDamaged;
        std::string id, what;
    };
    Result<std::vector<Flaw>> flaws() const;
    // Takes the row of a flaw out of the database; a text for people with all that was in it. Not for kDamaged.
    Result<std::string> take_out(const Flaw& flaw);
    // Writes every row that can still be read into a new database at `path`, which must not be there. Returns how many
    // boxes were saved.
    Result<std::size_t> salvage(const std::string& path) const;

  private:
    struct Connection;
    explicit Database(std::unique_ptr<Connection> connection);
    static Result<Database> open_once(const std::string& path);
    static Result<Database> to_look(std::unique_ptr<Connection> connection);
    base::Failure name_taken(const std::string& name) const;
    Result<> end_life(const std::string& id, const EndRecord& end, const std::string& state);
    template <typename... Values>
    Result<> update(const std::string& sql, const std::string& doing, const Values&... values);
    std::unique_ptr<Connection> connection_;
};

}  // namespace caisson::store
