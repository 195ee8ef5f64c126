#include "store/database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <thread>

#include "base/id.h"
#include "base/text.h"
#include "os/file.h"
#include "store/reserve.h"

namespace caisson::store {

using base::failure;

namespace {

constexpr int kBusyTimeoutMs = 15000;
// How long other processes may take to let go of a database that has to be migrated. Those of this version, which only
// opened it at the same time, take no time at all.
constexpr std::chrono::milliseconds kMigrationPatience{2000};
constexpr std::chrono::milliseconds kRetryInterval{5};

// What takes a database from each version to the next, beginning with an empty one. Never changed, only added to.
constexpr const char* kMigrations[] = {
    R"(
CREATE TABLE boxes(
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  image TEXT NOT NULL,
  image_digest TEXT NOT NULL,
  command TEXT NOT NULL,
  state TEXT NOT NULL,
  auto_remove INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  finished_ms INTEGER NOT NULL DEFAULT 0,
  owner_pid INTEGER NOT NULL,
  owner_start INTEGER NOT NULL,
  owner_boot TEXT NOT NULL,
  exit_code INTEGER,
  reason TEXT NOT NULL DEFAULT ''
) STRICT;
PRAGMA user_version = 1;
)",
    R"(
ALTER TABLE boxes ADD COLUMN base_disk TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 2;
)",
    R"(
ALTER TABLE boxes ADD COLUMN spec BLOB NOT NULL DEFAULT x'';
ALTER TABLE boxes ADD COLUMN engine TEXT NOT NULL DEFAULT '';
ALTER TABLE boxes ADD COLUMN started_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE boxes ADD COLUMN outcome TEXT NOT NULL DEFAULT '';
ALTER TABLE boxes ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE boxes ADD COLUMN health TEXT NOT NULL DEFAULT '';
ALTER TABLE boxes ADD COLUMN stop_requested INTEGER NOT NULL DEFAULT 0;
CREATE TABLE executions(
  id TEXT PRIMARY KEY,
  box_id TEXT NOT NULL REFERENCES boxes(id) ON DELETE CASCADE,
  command TEXT NOT NULL,
  running INTEGER NOT NULL,
  started_ms INTEGER NOT NULL,
  finished_ms INTEGER NOT NULL DEFAULT 0,
  outcome TEXT NOT NULL DEFAULT '',
  exit_code INTEGER,
  reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX executions_of_box ON executions(box_id);
PRAGMA user_version = 3;
)",
    // A box has a journal as soon as it has a record, and keeps it after that.
    R"(
CREATE TABLE journal_heads(
  chain TEXT PRIMARY KEY,
  sequence INTEGER NOT NULL DEFAULT 0,
  hash TEXT NOT NULL DEFAULT '',
  first INTEGER NOT NULL DEFAULT 1,
  closed_ms INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO journal_heads(chain) VALUES('home');
INSERT INTO journal_heads(chain) SELECT id FROM boxes;
CREATE TRIGGER journal_of_box AFTER INSERT ON boxes BEGIN
  INSERT OR IGNORE INTO journal_heads(chain) VALUES(NEW.id);
END;
PRAGMA user_version = 4;
)"};
constexpr std::int64_t kSchemaVersion = std::size(kMigrations);

constexpr const char* kColumns =
    "id,name,image,image_digest,command,state,auto_remove,created_ms,finished_ms,owner_pid,owner_start,owner_boot,"
    "exit_code,reason,base_disk,spec,engine,started_ms,outcome,restarts,health,stop_requested";
constexpr const char* kExecutionColumns =
    "id,box_id,command,running,started_ms,finished_ms,outcome,exit_code,reason";
constexpr const char* kLiveStates = "('creating','starting','running','paused','stopping')";

base::Failure sqlite_failure(sqlite3* handle, const std::string& doing) {
    int code = sqlite3_extended_errcode(handle);
    int primary = code & 0xff;
    Error error;
    error.message = doing + ": " + sqlite3_errmsg(handle);
    error.sys_errno = sqlite3_system_errno(handle);
    if (primary == SQLITE_FULL || error.sys_errno == ENOSPC || error.sys_errno == EDQUOT) error.code = Errc::kNoSpace;
    else if (primary == SQLITE_BUSY) error.code = Errc::kInUse;
    else if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB) error.code = Errc::kCorrupt;
    else if (primary == SQLITE_READONLY || primary == SQLITE_PERM || primary == SQLITE_CANTOPEN)
        error.code = Errc::kPermission;
    else error.code = Errc::kIo;
    return base::failure(std::move(error));
}

constexpr BoxState kStates[] = {BoxState::kCreating, BoxState::kCreated,  BoxState::kStarting, BoxState::kRunning,
                                BoxState::kPaused,   BoxState::kStopping, BoxState::kStopped,  BoxState::kFailed};

std::optional<BoxState> state_from(std::string_view text) {
    for (auto state : kStates)
        if (text == to_string(state)) return state;
    return std::nullopt;
}

}  // namespace

const char* to_string(BoxState state) {
    switch (state) {
        case BoxState::kCreating: return "creating";
        case BoxState::kCreated: return "created";
        case BoxState::kStarting: return "starting";
        case BoxState::kRunning: return "running";
        case BoxState::kPaused: return "paused";
        case BoxState::kStopping: return "stopping";
        case BoxState::kStopped: return "stopped";
        case BoxState::kFailed: return "failed";
    }
    return "failed";
}

bool is_live(BoxState state) {
    return state != BoxState::kCreated && state != BoxState::kStopped && state != BoxState::kFailed;
}

struct Database::Connection {
    std::optional<os::TemporaryDirectory> copy;  // that was opened in the database's stead; goes after it is closed
    sqlite3* handle = nullptr;
    ~Connection() { sqlite3_close(handle); }

    Result<> execute(const char* sql, const std::string& doing) {
        if (sqlite3_exec(handle, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return sqlite_failure(handle, doing);
        return {};
    }
    Result<> use_wal(const std::string& doing);
    Result<std::int64_t> version();
    // Other processes that use the database, because of whom nothing was done; none if it is of this version now.
    Result<std::vector<std::int64_t>> migrate(const std::string& path);
    // What is written while this lives reaches the disk with the next durable transaction.
    class Lazily {
      public:
        explicit Lazily(Connection& connection) : connection_(connection) {
            static_cast<void>(connection.execute("PRAGMA synchronous=NORMAL", "writing"));
        }
        ~Lazily() { static_cast<void>(connection_.execute("PRAGMA synchronous=FULL", "writing")); }
        Lazily(const Lazily&) = delete;
        Lazily& operator=(const Lazily&) = delete;

      private:
        Connection& connection_;
    };
};

namespace {

// One prepared statement, finalised with its owner.
class Statement {
  public:
    static Result<Statement> prepare(sqlite3* handle, const std::string& sql) {
        sqlite3_stmt* statement = nullptr;
        if (sqlite3_prepare_v2(handle, sql.c_str(), static_cast<int>(sql.size()), &statement, nullptr) != SQLITE_OK)
            return sqlite_failure(handle, "preparing a database statement");
        return Statement(handle, statement);
    }
    Statement(Statement&& other) noexcept
        : handle_(other.handle_), statement_(std::exchange(other.statement_, nullptr)) {}
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    Statement& operator=(Statement&&) = delete;
    ~Statement() { sqlite3_finalize(statement_); }

    void bind(const std::string& text) {
        sqlite3_bind_text(statement_, ++bound_, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
    }
    void bind(std::int64_t number) { sqlite3_bind_int64(statement_, ++bound_, number); }
    void bind_null() { sqlite3_bind_null(statement_, ++bound_); }
    void bind(const std::optional<int>& number) {
        if (number) bind(std::int64_t{*number});
        else bind_null();
    }
    void bind_blob(const std::string& bytes) {
        sqlite3_bind_blob(statement_, ++bound_, bytes.data(), static_cast<int>(bytes.size()), SQLITE_TRANSIENT);
    }
    // true: a row is there.
    Result<bool> step(const std::string& doing) {
        int code = sqlite3_step(statement_);
        if (code == SQLITE_ROW) return true;
        if (code == SQLITE_DONE) return false;
        return sqlite_failure(handle_, doing);
    }
    std::string text(int column) const {
        auto data = sqlite3_column_text(statement_, column);
        auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
        return data == nullptr ? std::string() : std::string(reinterpret_cast<const char*>(data), size);
    }
    std::string blob(int column) const {
        auto data = sqlite3_column_blob(statement_, column);
        auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
        return data == nullptr ? std::string() : std::string(static_cast<const char*>(data), size);
    }
    std::optional<int> optional_number(int column) const {
        if (is_null(column)) return std::nullopt;
        return static_cast<int>(number(column));
    }
    std::int64_t number(int column) const { return sqlite3_column_int64(statement_, column); }
    // The whole row for people, "column: value" a line; bytes as hexadecimal digits.
    std::string everything() const {
        std::string all;
        for (int column = 0; column < sqlite3_column_count(statement_); ++column) {
            const bool bytes = sqlite3_column_type(statement_, column) == SQLITE_BLOB;
            const auto value = blob(column);
            all += std::string(sqlite3_column_name(statement_, column)) + ": " + (bytes ? base::to_hex(base::as_bytes(value)) : text(column)) + "\n";
        }
        return all + "\n";
    }
    bool is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

  private:
    Statement(sqlite3* handle, sqlite3_stmt* statement) : handle_(handle), statement_(statement) {}
    sqlite3* handle_;
    sqlite3_stmt* statement_;
    int bound_ = 0;
};

// Ids become parts of paths. A supervisor that was taken over can write anything into the database (see security.md).
Result<> check_id(const std::string& id) {
    if (base::is_ulid(id)) return {};
    return failure(Errc::kCorrupt, "the database holds '" + base::printable(id, 100) + "', which is no id");
}

Result<BoxRecord> read_record(const Statement& row) {
    BoxRecord record;
    record.id = row.text(0);
    CAISSON_TRY(check_id(record.id));
    record.name = row.text(1);
    record.image = row.text(2);
    record.image_digest = row.text(3);
    record.command = row.text(4);
    auto state = state_from(row.text(5));
    if (!state) return failure(Errc::kCorrupt, "the database holds the unknown box state '" + base::printable(row.text(5), 100) + "'");
    record.state = *state;
    record.auto_remove = row.number(6) != 0;
    record.created_ms = row.number(7);
    record.finished_ms = row.number(8);
    record.owner = {row.number(9), row.number(10), row.text(11)};
    record.exit_code = row.optional_number(12);
    record.reason = row.text(13);
    record.base_disk = row.text(14);
    record.spec = row.blob(15);
    record.engine = row.text(16);
    record.started_ms = row.number(17);
    record.outcome = row.text(18);
    record.restarts = row.number(19);
    record.health = row.text(20);
    record.stop_requested = row.number(21) != 0;
    return record;
}

Result<ExecutionRecord> read_execution(const Statement& row) {
    ExecutionRecord record;
    record.id = row.text(0);
    record.box_id = row.text(1);
    CAISSON_TRY(check_id(record.id));
    record.command = row.text(2);
    record.running = row.number(3) != 0;
    record.started_ms = row.number(4);
    record.end.finished_ms = row.number(5);
    record.end.outcome = row.text(6);
    record.end.exit_code = row.optional_number(7);
    record.end.reason = row.text(8);
    return record;
}

Result<std::vector<BoxRecord>> read_all(Statement statement) {
    std::vector<BoxRecord> records;
    while (CAISSON_TRY(statement.step("reading the boxes"))) {
        // One that makes no sense must not keep anybody from the others.
        if (auto record = read_record(statement)) records.push_back(std::move(*record));
    }
    return records;
}

}  // namespace

// In WAL mode each connection holds a lock on the -shm file
// for its whole life, whatever its version; /proc/locks shows them to everybody. Source: proc(5), SQLite's walformat.
std::vector<std::int64_t> users_of_database(const std::string& path) {
    struct stat shared {};
    auto locks = os::read_file("/proc/locks", 16 << 20);
    std::vector<std::int64_t> pids;
    if (!locks || ::stat((path + "-shm").c_str(), &shared) != 0) return pids;
    const std::string inode = ":" + std::to_string(shared.st_ino) + " ";
    for (const auto& line : base::split(*locks, '\n')) {
        // "1: POSIX  ADVISORY  READ 4242 08:01:131 128 128"
        auto at = line.find(inode);
        if (at == std::string::npos) continue;
        auto device = line.rfind(' ', at);
        auto pid = device == std::string::npos || device == 0 ? device : line.rfind(' ', device - 1);
        if (pid == std::string::npos) continue;
        auto number = base::parse_u64(std::string_view(line).substr(pid + 1, device - pid - 1));
        if (!number) continue;
        auto value = static_cast<std::int64_t>(*number);
        if (value != ::getpid() && std::find(pids.begin(), pids.end(), value) == pids.end()) pids.push_back(value);
    }
    return pids;
}

// A database is changed to WAL once in its life. Of two processes that try, SQLite lets one fail at once instead of
// waiting, since waiting could be for ever; here it cannot be.
Result<> Database::Connection::use_wal(const std::string& doing) {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::milliseconds(kBusyTimeoutMs);
    for (;;) {
        auto changed = execute("PRAGMA journal_mode=WAL", doing);
        if (changed || changed.error().code != Errc::kInUse || std::chrono::steady_clock::now() > give_up) return changed;
        std::this_thread::sleep_for(kRetryInterval);
    }
}

Result<std::int64_t> Database::Connection::version() {
    auto statement = CAISSON_TRY(Statement::prepare(handle, "PRAGMA user_version"));
    CAISSON_TRY(statement.step("reading the database's version"));
    return statement.number(0);
}

Result<std::vector<std::int64_t>> Database::Connection::migrate(const std::string& path) {
    std::vector<std::int64_t> users;
    CAISSON_TRY(execute("BEGIN IMMEDIATE", "making the database"));
    auto migrated = [&]() -> Result<> {
        // Somebody else may have been first while we waited for the lock. Who opens the database from now on finds it
        // locked, and then of this version.
        auto next = CAISSON_TRY(version());
        if (next > 0 && next < kSchemaVersion) users = users_of_database(path);
        if (!users.empty()) return execute("ROLLBACK", "leaving the database as it is");
        for (; next < kSchemaVersion; ++next) CAISSON_TRY(execute(kMigrations[next], "making the database"));
        return execute("COMMIT", "making the database");
    }();
    if (!migrated) {
        static_cast<void>(execute("ROLLBACK", "giving up"));
        return base::failure(migrated.error());
    }
    return users;
}

Database::Database(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
Database::Database(Database&&) noexcept = default;
Database& Database::operator=(Database&&) noexcept = default;
Database::~Database() = default;

Result<Database> Database::open(const std::string& path) {
    if (index_lacks_room(path)) static_cast<void>(lend_index_room(path));
    auto opened = open_once(path);
    // Somebody else was quicker.
    if (!opened && opened.error().code == Errc::kNoSpace && lend_index_room(path)) return open_once(path);
    return opened;
}

Result<Database> Database::open_once(const std::string& path) {
    // SQLite would make it readable for everybody; its other files take this one's mode. Only if it is missing: closing
    // a descriptor of a database drops the locks that other connections of this process hold on it (fcntl(2)).
    if (auto made = os::open_file(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600); !made && made.error().sys_errno != EEXIST)
        return base::failure(std::move(made.error()));
    auto connection = std::make_unique<Connection>();
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW;
    if (sqlite3_open_v2(path.c_str(), &connection->handle, flags, nullptr) != SQLITE_OK)
        return sqlite_failure(connection->handle, "cannot open the database " + path);
    sqlite3_busy_timeout(connection->handle, kBusyTimeoutMs);
    sqlite3_extended_result_codes(connection->handle, 1);
    // A short-lived process must not pay for a checkpoint when it closes; the thousandth page pays for all.
    sqlite3_db_config(connection->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    sqlite3_db_config(connection->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    sqlite3_db_config(connection->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    CAISSON_TRY(connection->use_wal("opening the database " + path));
    // No temporary file: a supervisor that has locked itself could make none.
    CAISSON_TRY(connection->execute("PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY;", "opening the database " + path));
    const auto give_up = std::chrono::steady_clock::now() + kMigrationPatience;
    for (;;) {
        auto version = CAISSON_TRY(connection->version());
        if (version > kSchemaVersion)
            return failure(Errc::kUnsupported,
                           "the home was written by a newer caisson (database version " + std::to_string(version) +
                               ", this one knows " + std::to_string(kSchemaVersion) + ")",
                           "use that newer caisson, or another CAISSON_HOME");
        if (version == kSchemaVersion) return Database(std::move(connection));
        auto users = CAISSON_TRY(connection->migrate(path));
        if (users.empty()) continue;
        if (std::chrono::steady_clock::now() > give_up) {
            std::vector<std::string> pids;
            for (auto pid : users) pids.push_back(std::to_string(pid));
            return failure(Errc::kInUse,
                           "the home was written by an older caisson, of which processes still run: " + base::join(pids, ", "),
                           "let their boxes end, or end these processes, and try again");
        }
        std::this_thread::sleep_for(kRetryInterval * 20);
    }
}

Result<> Database::insert_box(const BoxRecord& record) {
    auto statement = CAISSON_TRY(Statement::prepare(
        connection_->handle, std::string("INSERT INTO boxes(") + kColumns + ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"));
    statement.bind(record.id);
    statement.bind(record.name);
    statement.bind(record.image);
    statement.bind(record.image_digest);
    statement.bind(record.command);
    statement.bind(std::string(to_string(record.state)));
    statement.bind(std::int64_t{record.auto_remove});
    statement.bind(record.created_ms);
    statement.bind(record.finished_ms);
    statement.bind(record.owner.pid);
    statement.bind(record.owner.start_time);
    statement.bind(record.owner.boot_id);
    statement.bind(record.exit_code);
    statement.bind(record.reason);
    statement.bind(record.base_disk);
    statement.bind_blob(record.spec);
    statement.bind(record.engine);
    statement.bind(record.started_ms);
    statement.bind(record.outcome);
    statement.bind(record.restarts);
    statement.bind(record.health);
    statement.bind(std::int64_t{record.stop_requested});
    auto inserted = statement.step("recording box " + record.name);
    if (!inserted) {
        if (sqlite3_extended_errcode(connection_->handle) == SQLITE_CONSTRAINT_UNIQUE) {
            return name_taken(record.name);
        }
        return base::failure(inserted.error());
    }
    return {};
}

base::Failure Database::name_taken(const std::string& name) const {
    auto holder = find_box(name);
    return failure(Errc::kAlreadyExists, "the name '" + name + "' is taken" + (holder ? " by box " + holder->id : ""),
                   "choose another name, or remove that box: caisson rm " + name);
}

template <typename... Values>
Result<> Database::update(const std::string& sql, const std::string& doing, const Values&... values) {
    auto statement = CAISSON_TRY(Statement::prepare(connection_->handle, sql));
    (statement.bind(values), ...);
    CAISSON_TRY(statement.step(doing));
    return {};
}

Result<> Database::set_box_created(const std::string& id) {
    return update("UPDATE boxes SET state='created' WHERE id=? AND state='creating'", "recording box " + id, id);
}

Result<> Database::begin_start(const std::string& id, const ProcessIdentity& owner) {
    CAISSON_TRY(update("UPDATE boxes SET state='starting',owner_pid=?,owner_start=?,owner_boot=?,exit_code=NULL,outcome='',"
                       "reason='',finished_ms=0,restarts=0,health='',stop_requested=0 "
                       "WHERE id=? AND state IN ('created','stopped','failed')",
                       "recording that box " + id + " starts", owner.pid, owner.start_time, owner.boot_id, id));
    if (sqlite3_changes(connection_->handle) == 1) return {};
    auto record = CAISSON_TRY(find_box(id));
    return failure(Errc::kInUse, "box " + record.name + " is " + to_string(record.state));
}

Result<> Database::set_box_owner(const std::string& id, const ProcessIdentity& shim, const std::string& engine) {
    Connection::Lazily lazily(*connection_);
    return update("UPDATE boxes SET state='starting',owner_pid=?,owner_start=?,owner_boot=?,engine=? WHERE id=?",
                  "recording who supervises box " + id, shim.pid, shim.start_time, shim.boot_id, engine, id);
}

Result<> Database::set_box_running(const std::string& id, std::int64_t started_ms, const std::string& health) {
    // Whoever made a box that is kept is told next that it is there, and may rely on that. The others go with the power.
    std::optional<Connection::Lazily> lazily;
    if (CAISSON_TRY(find_box(id)).auto_remove) lazily.emplace(*connection_);
    return update("UPDATE boxes SET state='running',started_ms=?,health=? WHERE id=?", "recording that box " + id + " runs", started_ms,
                  health, id);
}

Result<> Database::set_box_state(const std::string& id, BoxState state, const std::string& reason) {
    Connection::Lazily lazily(*connection_);
    return update("UPDATE boxes SET state=?,reason=? WHERE id=?", "recording how box " + id + " goes",
                  std::string(to_string(state)), reason, id);
}

Result<> Database::set_box_health(const std::string& id, const std::string& health) {
    Connection::Lazily lazily(*connection_);
    return update("UPDATE boxes SET health=? WHERE id=?", "recording the health of box " + id, health, id);
}

Result<> Database::set_stop_requested(const std::string& id) {
    return update("UPDATE boxes SET stop_requested=1 WHERE id=?", "recording that box " + id + " is stopped", id);
}

Result<> Database::restart_box(const std::string& id, const EndRecord& end) {
    return end_life(id, end, "state='starting',restarts=restarts+1");
}

Result<> Database::finish_box(const std::string& id, BoxState state, const EndRecord& end) {
    return end_life(id, end, state == BoxState::kFailed ? "state='failed'" : "state='stopped'");
}

// What runs in a box ends with each of its lives.
Result<> Database::end_life(const std::string& id, const EndRecord& end, const std::string& state) {
    const std::string doing = "recording the end of box " + id;
    CAISSON_TRY(connection_->execute("BEGIN IMMEDIATE", doing));
    auto ended = [&]() -> Result<> {
        CAISSON_TRY(update("UPDATE boxes SET " + state + ",outcome=?,exit_code=?,reason=?,finished_ms=?,health='' WHERE id=?", doing,
                           end.outcome, end.exit_code, end.reason, end.finished_ms, id));
        CAISSON_TRY(update("UPDATE executions SET running=0,outcome='failed',exit_code=125,reason='the box ended',finished_ms=? "
                           "WHERE box_id=? AND running=1",
                           doing, end.finished_ms, id));
        return connection_->execute("COMMIT", doing);
    }();
    if (!ended) static_cast<void>(connection_->execute("ROLLBACK", "giving up"));
    return ended;
}

Result<> Database::rename_box(const std::string& id, const std::string& name) {
    auto renamed = update("UPDATE boxes SET name=? WHERE id=?", "renaming box " + id, name, id);
    if (!renamed && sqlite3_extended_errcode(connection_->handle) == SQLITE_CONSTRAINT_UNIQUE) return name_taken(name);
    return renamed;
}

Result<> Database::change_box_spec(const std::string& id, const std::string& expected, const std::string& spec) {
    auto statement = CAISSON_TRY(Statement::prepare(connection_->handle, "UPDATE boxes SET spec=? WHERE id=? AND spec=?"));
    statement.bind_blob(spec);
    statement.bind(id);
    statement.bind_blob(expected);
    CAISSON_TRY(statement.step("recording what box " + id + " is to be"));
    if (sqlite3_changes(connection_->handle) == 1) return {};
    auto record = CAISSON_TRY(find_box(id));
    return failure(Errc::kInUse, "box " + record.name + " was changed by somebody else meanwhile");
}

Result<> Database::remove_box(const std::string& id) {
    auto statement = CAISSON_TRY(Statement::prepare(connection_->handle, "DELETE FROM boxes WHERE id=?"));
    statement.bind(id);
    CAISSON_TRY(statement.step("removing box " + id));
    return {};
}

Result<BoxRecord> Database::find_box(const std::string& reference) const {
    auto exact = CAISSON_TRY(Statement::prepare(
        connection_->handle, std::string("SELECT ") + kColumns + " FROM boxes WHERE name=?1 OR id=?1"));
    exact.bind(reference);
    if (CAISSON_TRY(exact.step("looking for a box"))) return read_record(exact);
    std::vector<BoxRecord> fitting;
    if (!reference.empty()) {
        auto prefix = CAISSON_TRY(Statement::prepare(
            connection_->handle,
            std::string("SELECT ") + kColumns + " FROM boxes WHERE substr(id,1,length(?1))=?1 LIMIT 2"));
        prefix.bind(reference);
        fitting = CAISSON_TRY(read_all(std::move(prefix)));
    }
    if (fitting.size() == 1) return fitting[0];
    if (fitting.size() > 1)
        return failure(Errc::kUsage, "'" + base::printable(reference, 64) + "' fits several boxes", "write more of the id");
    return failure(Errc::kNotFound, "there is no box '" + base::printable(reference, 64) + "'", "see: caisson ls");
}

Result<std::vector<BoxRecord>> Database::boxes() const {
    return read_all(CAISSON_TRY(Statement::prepare(
        connection_->handle, std::string("SELECT ") + kColumns + " FROM boxes ORDER BY created_ms, id")));
}

Result<std::vector<std::string>> Database::box_ids() const {
    auto statement = CAISSON_TRY(Statement::prepare(connection_->handle, "SELECT id FROM boxes"));
    std::vector<std::string> ids;
    while (CAISSON_TRY(statement.step("reading the boxes"))) ids.push_back(statement.text(0));
    return ids;
}

Result<std::vector<BoxRecord>> Database::live_boxes() const {
    return read_all(CAISSON_TRY(Statement::prepare(
        connection_->handle, std::string("SELECT ") + kColumns + " FROM boxes WHERE state IN " + kLiveStates + " ORDER BY id")));
}

Result<> Database::insert_execution(const ExecutionRecord& record) {
    return update(std::string("INSERT INTO executions(") + kExecutionColumns + ") VALUES(?,?,?,?,?,?,?,?,?)",
                  "recording an execution", record.id, record.box_id, record.command, std::int64_t{record.running},
                  record.started_ms, record.end.finished_ms, record.end.outcome, record.end.exit_code, record.end.reason);
}

Result<> Database::finish_execution(const std::string& id, const EndRecord& end) {
    return update("UPDATE executions SET running=0,finished_ms=?,outcome=?,exit_code=?,reason=? WHERE id=? AND running=1",
                  "recording the end of an execution", end.finished_ms, end.outcome, end.exit_code, end.reason, id);
}

Result<ExecutionRecord> Database::find_execution(const std::string& box_id, const std::string& reference) const {
    const auto shown = base::printable(reference, 64);
    auto statement = CAISSON_TRY(Statement::prepare(
        connection_->handle, std::string("SELECT ") + kExecutionColumns +
                                 " FROM executions WHERE box_id=?1 AND ?2<>'' AND substr(id,1,length(?2))=?2 "
                                 "ORDER BY id=?2 DESC LIMIT 2"));
    statement.bind(box_id);
    statement.bind(reference);
    if (!CAISSON_TRY(statement.step("looking for an execution")))
        return failure(Errc::kNotFound, "there is no execution '" + shown + "' in this box", "see: caisson inspect BOX");
    auto found = CAISSON_TRY(read_execution(statement));
    if (found.id != reference && CAISSON_TRY(statement.step("looking for an execution")))
        return failure(Errc::kUsage, "'" + shown + "' fits several executions", "write more of the id");
    return found;
}

Result<std::vector<ExecutionRecord>> Database::executions(const std::string& box_id) const {
    auto statement = CAISSON_TRY(Statement::prepare(
        connection_->handle, std::string("SELECT ") + kExecutionColumns + " FROM executions WHERE box_id=? ORDER BY id"));
    statement.bind(box_id);
    std::vector<ExecutionRecord> records;
    while (CAISSON_TRY(statement.step("reading the executions"))) {
        if (auto record = read_execution(statement)) records.push_back(std::move(*record));
    }
    return records;
}

// ---- the journal's heads ----

namespace {

constexpr const char* kHomeChain = "home";

// Chains become parts of paths, as ids do.
Result<> check_chain(const std::string& chain) {
    if (chain == kHomeChain || !box_of_chain(chain).empty()) return {};
    return check_id(chain);
}

Result<JournalHead> read_head(const Statement& row) {
    JournalHead head{row.text(0), row.number(1), row.text(2), row.number(3), row.number(4)};
    CAISSON_TRY(check_chain(head.chain));
    // What no journal can have come to is as good as nothing: entries go on from what is in the files.
    constexpr std::int64_t kMostEntries = std::int64_t{1} << 53;
    const bool sound = head.sequence >= 0 && head.sequence < kMostEntries && head.first >= 1 && head.first <= head.sequence + 1;
    const bool hashed = head.hash.empty() || (head.hash.size() == 64 && base::is_hex(head.hash));
    if (!sound || !hashed) return JournalHead{head.chain};
    return head;
}

}  // namespace

std::string box_of_chain(std::string_view chain) {
    if (chain.ends_with(kNetworkChain)) chain.remove_suffix(kNetworkChain.size());
    return base::is_ulid(chain) ? std::string(chain) : std::string();
}

Result<JournalHead> Database::journal_head(const std::string& chain) const {
    auto statement = CAISSON_TRY(
        Statement::prepare(connection_->handle, "SELECT chain,sequence,hash,first,closed_ms FROM journal_heads WHERE chain=?"));
    statement.bind(chain);
    if (!CAISSON_TRY(statement.step("looking for the head of a journal"))) return JournalHead{chain};
    return read_head(statement);
}

Result<std::vector<JournalHead>> Database::journal_heads() const {
    auto statement = CAISSON_TRY(Statement::prepare(
        connection_->handle, "SELECT chain,sequence,hash,first,closed_ms FROM journal_heads ORDER BY chain='home' DESC, chain"));
    std::vector<JournalHead> heads;
    while (CAISSON_TRY(statement.step("reading the heads of the journal")))
        if (auto head = read_head(statement)) heads.push_back(std::move(*head));
    return heads;
}

Result<> Database::acknowledge_journal(const std::string& chain, std::int64_t sequence, const std::string& hash) {
    Connection::Lazily lazily(*connection_);
    return update("INSERT INTO journal_heads(chain,sequence,hash) VALUES(?,?,?) ON CONFLICT(chain) DO UPDATE "
                  "SET sequence=excluded.sequence,hash=excluded.hash WHERE sequence<excluded.sequence",
                  "recording the head of a journal", chain, sequence, hash);
}

Result<> Database::begin_journal(const std::string& chain) {
    Connection::Lazily lazily(*connection_);
    return update("INSERT OR IGNORE INTO journal_heads(chain) VALUES(?)", "beginning a journal", chain);
}

Result<> Database::keep_journal_from(const std::string& chain, std::int64_t first) {
    return update("UPDATE journal_heads SET first=?1 WHERE chain=?2 AND first<?1", "recording where a journal begins", first, chain);
}

Result<std::vector<std::string>> Database::journals_to_close() const {
    auto statement = CAISSON_TRY(Statement::prepare(connection_->handle,
                                                    "SELECT chain FROM journal_heads WHERE closed_ms=0 AND chain<>'home' AND "
                                                    "substr(chain,1,26) NOT IN (SELECT id FROM boxes) ORDER BY chain"));
    std::vector<std::string> chains;
    while (CAISSON_TRY(statement.step("looking for journals of boxes that are gone")))
        if (check_chain(statement.text(0))) chains.push_back(statement.text(0));
    return chains;
}

Result<> Database::close_journal(const std::string& chain, std::int64_t closed_ms, std::uint64_t bytes,
                                 const std::function<Result<>()>& write) {
    Connection::Lazily lazily(*connection_);
    CAISSON_TRY(connection_->execute("BEGIN IMMEDIATE", "closing a journal"));
    auto closed = [&]() -> Result<> {
        CAISSON_TRY(update("UPDATE journal_heads SET closed_ms=?,bytes=? WHERE chain=? AND closed_ms=0", "closing a journal", closed_ms,
                           static_cast<std::int64_t>(bytes), chain));
        if (sqlite3_changes(connection_->handle) == 1) CAISSON_TRY(write());
        return connection_->execute("COMMIT", "closing a journal");
    }();
    if (!closed) static_cast<void>(connection_->execute("ROLLBACK", "giving up"));
    return closed;
}

Result<std::vector<std::string>> Database::forget_journals(std::uint64_t most, std::uint64_t most_bytes) {
    std::vector<std::string> gone;
    {
        auto statement = CAISSON_TRY(Statement::prepare(
            connection_->handle, "SELECT count(*),total(bytes) FROM journal_heads WHERE closed_ms>0"));
        CAISSON_TRY(statement.step("counting journals"));
        auto count = static_cast<std::uint64_t>(statement.number(0)), bytes = static_cast<std::uint64_t>(statement.number(1));
        if (count <= most && bytes <= most_bytes) return gone;
        auto oldest = CAISSON_TRY(Statement::prepare(
            connection_->handle, "SELECT chain,bytes FROM journal_heads WHERE closed_ms>0 ORDER BY closed_ms,chain"));
        while ((count > most - most / 8 || bytes > most_bytes - most_bytes / 8) && CAISSON_TRY(oldest.step("looking for the oldest journals"))) {
            --count;
            bytes -= std::min(bytes, static_cast<std::uint64_t>(oldest.number(1)));
            if (check_chain(oldest.text(0))) gone.push_back(oldest.text(0));
        }
    }
    // Nothing is read any more: who reads and then writes is refused at once, and not waited for, if others wrote meanwhile.
    // Those may have forgotten the same ones.
    for (const auto& chain : gone) CAISSON_TRY(update("DELETE FROM journal_heads WHERE chain=? AND closed_ms>0", "forgetting a journal", chain));
    return gone;
}

// --- looking at a database without touching it

namespace {

// A path as part of a URI (sqlite.org/uri.html).
std::string uri_of(const std::string& path, const std::string& parameters) {
    std::string uri = "file:";
    for (char c : path) {
        if (c == '%' || c == '?' || c == '#') uri += c == '%' ? "%25" : c == '?' ? "%3f" : "%23";
        else uri += c;
    }
    return uri + "?" + parameters;
}

bool holds_something(const std::string& path) {
    struct stat info {};
    return ::stat(path.c_str(), &info) == 0 && info.st_size > 0;
}

// Opening reads nothing yet; this does.
Result<> first_read(sqlite3* handle, const std::string& doing) {
    sqlite3_extended_result_codes(handle, 1);
    sqlite3_busy_timeout(handle, kBusyTimeoutMs);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    if (sqlite3_exec(handle, "PRAGMA temp_store=MEMORY; SELECT count(*) FROM sqlite_schema;", nullptr, nullptr, nullptr) != SQLITE_OK)
        return sqlite_failure(handle, doing);
    return {};
}

Result<> copy_file(const std::string& from, const std::string& to) {
    constexpr std::size_t kMostBytes = 1 << 30;
    auto text = CAISSON_TRY(os::read_file(from, kMostBytes));
    auto file = CAISSON_TRY(os::open_file(to, O_WRONLY | O_CREAT | O_EXCL, 0600));
    return os::write_all(file.get(), text);
}

}  // namespace

// A database that nobody has open consists of the file alone, or of the file and a log of dead processes. With the log, SQLite
// wants its third file, the index of the log, which it would make: so that one is read where it is, and written for a copy
// elsewhere if it is missing. Source: sqlite.org/wal.html, "Read-Only Databases"; os_unix.c on readonly_shm.
Result<Database> Database::open_to_look(const std::string& path) {
    const std::string doing = "cannot read the database " + path;
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) return base::failure_errno(doing);
    if (!S_ISREG(info.st_mode)) return failure(Errc::kCorrupt, "the database " + path + " is no plain file");
    const bool logged = holds_something(path + "-wal");
    if (!logged || os::exists(path + "-shm")) {
        auto connection = std::make_unique<Connection>();
        const auto uri = uri_of(path, logged ? "mode=ro&readonly_shm=1" : "mode=ro&immutable=1");
        const int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI | SQLITE_OPEN_NOFOLLOW;
        Result<> read;
        if (sqlite3_open_v2(uri.c_str(), &connection->handle, flags, nullptr) != SQLITE_OK) read = sqlite_failure(connection->handle, doing);
        else read = first_read(connection->handle, doing);
        if (read) return to_look(std::move(connection));
        if (!logged) return failure(std::move(read).error());
    }
    auto connection = std::make_unique<Connection>();
    connection->copy.emplace(CAISSON_TRY_CTX(os::TemporaryDirectory::create("/tmp", "caisson-look-"), doing));
    const auto copy = connection->copy->path() + "/caisson.db";
    CAISSON_TRY_CTX(copy_file(path, copy), doing);
    CAISSON_TRY_CTX(copy_file(path + "-wal", copy + "-wal"), doing);
    if (sqlite3_open_v2(copy.c_str(), &connection->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr) != SQLITE_OK)
        return sqlite_failure(connection->handle, doing);
    CAISSON_TRY(first_read(connection->handle, doing));
    return to_look(std::move(connection));
}

Result<Database> Database::to_look(std::unique_ptr<Connection> connection) {
    const auto version = CAISSON_TRY(connection->version());
    if (version > kSchemaVersion)
        return failure(Errc::kUnsupported, "the home was written by a newer caisson (database version " + std::to_string(version) +
                                               ", this one knows " + std::to_string(kSchemaVersion) + ")",
                       "use that newer caisson");
    if (version < kSchemaVersion)
        return failure(Errc::kInUse, "the home was written by an older caisson (database version " + std::to_string(version) + ")",
                       "any other command brings it up to date, for example: caisson ls");
    return Database(std::move(connection));
}

Result<std::vector<Database::Flaw>> Database::flaws() const {
    std::vector<Flaw> found;
    auto* handle = connection_->handle;
    auto whole = CAISSON_TRY(Statement::prepare(handle, "PRAGMA integrity_check(20)"));
    for (;;) {
        auto row = whole.step("checking the database");
        if (!row) {
            found.push_back({Flaw::Kind::kDamaged, "", row.error().message});
            return found;
        }
        if (!*row) break;
        if (whole.text(0) != "ok") found.push_back({Flaw::Kind::kDamaged, "", base::printable(whole.text(0), 300)});
    }
    if (!found.empty()) return found;
    auto records = CAISSON_TRY(Statement::prepare(handle, std::string("SELECT ") + kColumns + " FROM boxes ORDER BY id"));
    while (CAISSON_TRY(records.step("reading the boxes")))
        if (auto record = read_record(records); !record) found.push_back({Flaw::Kind::kRecord, records.text(0), record.error().message});
    // Also of what belongs to a box without a row: the reference is what is wrong then.
    auto executions = CAISSON_TRY(Statement::prepare(
        handle, "SELECT e.id,e.running,b.id,b.state FROM executions e LEFT JOIN boxes b ON b.id=e.box_id ORDER BY e.id"));
    while (CAISSON_TRY(executions.step("reading the executions"))) {
        const auto id = executions.text(0);
        const auto state = state_from(executions.text(3));
        if (!base::is_ulid(id)) found.push_back({Flaw::Kind::kExecution, id, "the database holds '" + base::printable(id, 100) + "', which is no id"});
        else if (executions.is_null(2)) found.push_back({Flaw::Kind::kReference, id, "execution " + id + " belongs to a box that there is not"});
        else if (executions.number(1) != 0 && state && !is_live(*state))
            found.push_back({Flaw::Kind::kExecution, id, "execution " + id + " is recorded to run in a box that is " + to_string(*state)});
    }
    return found;
}

Result<std::string> Database::take_out(const Flaw& flaw) {
    CAISSON_CHECK(flaw.kind != Flaw::Kind::kDamaged);
    const std::string table = flaw.kind == Flaw::Kind::kRecord ? "boxes" : "executions";
    auto row = CAISSON_TRY(Statement::prepare(connection_->handle, "SELECT * FROM " + table + " WHERE id=?"));
    row.bind(flaw.id);
    std::string text;
    while (CAISSON_TRY(row.step("reading a row of " + table))) text += row.everything();
    CAISSON_TRY(update("DELETE FROM " + table + " WHERE id=?", "taking a row out of " + table, flaw.id));
    return text;
}

Result<std::size_t> Database::salvage(const std::string& path) const {
    std::map<std::string, BoxRecord> boxes;
    // From both ends: what is behind a damaged page is reached from the other side.
    for (const char* order : {"ASC", "DESC"}) {
        auto rows = Statement::prepare(connection_->handle, std::string("SELECT ") + kColumns + " FROM boxes ORDER BY rowid " + order);
        if (!rows) continue;
        for (auto row = rows->step("reading the boxes"); row && *row; row = rows->step("reading the boxes"))
            if (auto record = read_record(*rows)) boxes.emplace(record->id, std::move(*record));
    }
    auto made = CAISSON_TRY(open(path));
    std::size_t saved = 0;
    for (const auto& [id, record] : boxes) {
        if (!made.insert_box(record)) continue;
        ++saved;
        if (auto all = executions(id))
            for (const auto& execution : *all) static_cast<void>(made.insert_execution(execution));
    }
    // The journal is checked against its heads: without them its end could be cut off unnoticed.
    if (auto heads = journal_heads())
        for (const auto& head : *heads) {
            static_cast<void>(made.acknowledge_journal(head.chain, head.sequence, head.hash));
            static_cast<void>(made.keep_journal_from(head.chain, head.first));
        }
    return saved;
}

}  // namespace caisson::store
