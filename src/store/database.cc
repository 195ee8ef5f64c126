#include "store/database.h"

#include <fcntl.h>
#include <sqlite3.h>

#include <array>

#include "base/text.h"
#include "os/file.h"

namespace caisson::store {

using base::failure;

namespace {

constexpr int kBusyTimeoutMs = 15000;

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
)"};
constexpr std::int64_t kSchemaVersion = std::size(kMigrations);

constexpr const char* kColumns =
    "id,name,image,image_digest,command,state,auto_remove,created_ms,finished_ms,owner_pid,owner_start,owner_boot,"
    "exit_code,reason,base_disk";

base::Failure sqlite_failure(sqlite3* handle, const std::string& doing) {
    int code = sqlite3_extended_errcode(handle);
    int primary = code & 0xff;
    Error error;
    error.message = doing + ": " + sqlite3_errmsg(handle);
    error.sys_errno = sqlite3_system_errno(handle);
    if (primary == SQLITE_FULL || error.sys_errno == ENOSPC) error.code = Errc::kNoSpace;
    else if (primary == SQLITE_BUSY) error.code = Errc::kInUse;
    else if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB) error.code = Errc::kCorrupt;
    else if (primary == SQLITE_READONLY || primary == SQLITE_PERM || primary == SQLITE_CANTOPEN)
        error.code = Errc::kPermission;
    else error.code = Errc::kIo;
    return base::failure(std::move(error));
}

std::optional<BoxState> state_from(std::string_view text) {
    for (auto state : {BoxState::kCreating, BoxState::kRunning, BoxState::kStopped, BoxState::kFailed})
        if (text == to_string(state)) return state;
    return std::nullopt;
}

}  // namespace

const char* to_string(BoxState state) {
    switch (state) {
        case BoxState::kCreating: return "creating";
        case BoxState::kRunning: return "running";
        case BoxState::kStopped: return "stopped";
        case BoxState::kFailed: return "failed";
    }
    return "failed";
}

struct Database::Connection {
    sqlite3* handle = nullptr;
    ~Connection() { sqlite3_close(handle); }

    Result<> execute(const char* sql, const std::string& doing) {
        if (sqlite3_exec(handle, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return sqlite_failure(handle, doing);
        return {};
    }
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
    std::int64_t number(int column) const { return sqlite3_column_int64(statement_, column); }
    bool is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

  private:
    Statement(sqlite3* handle, sqlite3_stmt* statement) : handle_(handle), statement_(statement) {}
    sqlite3* handle_;
    sqlite3_stmt* statement_;
    int bound_ = 0;
};

Result<BoxRecord> read_record(const Statement& row) {
    BoxRecord record;
    record.id = row.text(0);
    record.name = row.text(1);
    record.image = row.text(2);
    record.image_digest = row.text(3);
    record.command = row.text(4);
    auto state = state_from(row.text(5));
    if (!state) return failure(Errc::kCorrupt, "the database holds the unknown box state '" + row.text(5) + "'");
    record.state = *state;
    record.auto_remove = row.number(6) != 0;
    record.created_ms = row.number(7);
    record.finished_ms = row.number(8);
    record.owner = {row.number(9), row.number(10), row.text(11)};
    if (!row.is_null(12)) record.exit_code = static_cast<int>(row.number(12));
    record.reason = row.text(13);
    record.base_disk = row.text(14);
    return record;
}

Result<std::vector<BoxRecord>> read_all(Statement statement) {
    std::vector<BoxRecord> records;
    while (CAISSON_TRY(statement.step("reading the boxes"))) records.push_back(CAISSON_TRY(read_record(statement)));
    return records;
}

}  // namespace

Database::Database(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
Database::Database(Database&&) noexcept = default;
Database& Database::operator=(Database&&) noexcept = default;
Database::~Database() = default;

Result<Database> Database::open(const std::string& path) {
    // SQLite would make it readable for everybody; its other files take this one's mode.
    CAISSON_TRY(os::open_file(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
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
    CAISSON_TRY(connection->execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
                                    "opening the database " + path));
    auto version_of = [&]() -> Result<std::int64_t> {
        auto statement = CAISSON_TRY(Statement::prepare(connection->handle, "PRAGMA user_version"));
        CAISSON_TRY(statement.step("reading the database's version"));
        return statement.number(0);
    };
    auto version = CAISSON_TRY(version_of());
    if (version > kSchemaVersion)
        return failure(Errc::kUnsupported,
                       "the home was written by a newer caisson (database version " + std::to_string(version) +
                           ", this one knows " + std::to_string(kSchemaVersion) + ")",
                       "use that newer caisson, or another CAISSON_HOME");
    if (version < kSchemaVersion) {
        CAISSON_TRY(connection->execute("BEGIN IMMEDIATE", "making the database"));
        auto migrated = [&]() -> Result<> {
            // Somebody else may have been first while we waited for the lock.
            for (auto next = CAISSON_TRY(version_of()); next < kSchemaVersion; ++next)
                CAISSON_TRY(connection->execute(kMigrations[next], "making the database"));
            return connection->execute("COMMIT", "making the database");
        }();
        if (!migrated) {
            static_cast<void>(connection->execute("ROLLBACK", "giving up"));
            return base::failure(migrated.error());
        }
    }
    return Database(std::move(connection));
}

Result<> Database::insert_box(const BoxRecord& record) {
    auto statement = CAISSON_TRY(Statement::prepare(
        connection_->handle, std::string("INSERT INTO boxes(") + kColumns + ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"));
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
    if (record.exit_code) statement.bind(std::int64_t{*record.exit_code});
    else statement.bind_null();
    statement.bind(record.reason);
    statement.bind(record.base_disk);
    auto inserted = statement.step("recording box " + record.name);
    if (!inserted) {
        if (sqlite3_extended_errcode(connection_->handle) == SQLITE_CONSTRAINT_UNIQUE) {
            auto holder = find_box(record.name);
            return failure(Errc::kAlreadyExists,
                           "the name '" + record.name + "' is taken" + (holder ? " by box " + holder->id : ""),
                           "choose another --name, or remove that box: caisson rm " + record.name);
        }
        return base::failure(inserted.error());
    }
    return {};
}

Result<> Database::set_box_running(const std::string& id, const ProcessIdentity& shim) {
    auto statement = CAISSON_TRY(Statement::prepare(
        connection_->handle, "UPDATE boxes SET state='running',owner_pid=?,owner_start=?,owner_boot=? WHERE id=?"));
    statement.bind(shim.pid);
    statement.bind(shim.start_time);
    statement.bind(shim.boot_id);
    statement.bind(id);
    CAISSON_TRY(statement.step("recording that box " + id + " runs"));
    return {};
}

Result<> Database::finish_box(const std::string& id, BoxState state, std::optional<int> exit_code,
                              const std::string& reason, std::int64_t finished_ms) {
    auto statement = CAISSON_TRY(Statement::prepare(
        connection_->handle, "UPDATE boxes SET state=?,exit_code=?,reason=?,finished_ms=? WHERE id=?"));
    statement.bind(std::string(to_string(state)));
    if (exit_code) statement.bind(std::int64_t{*exit_code});
    else statement.bind_null();
    statement.bind(reason);
    statement.bind(finished_ms);
    statement.bind(id);
    CAISSON_TRY(statement.step("recording the end of box " + id));
    return {};
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

Result<std::vector<BoxRecord>> Database::live_boxes() const {
    return read_all(CAISSON_TRY(Statement::prepare(
        connection_->handle,
        std::string("SELECT ") + kColumns + " FROM boxes WHERE state IN ('creating','running') ORDER BY id")));
}

}  // namespace caisson::store
