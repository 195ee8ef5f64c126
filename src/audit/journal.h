// The journal of a home: its chains, the batches in which they reach the disk, and their heads in the database.
//
// An entry is *written* when record() returns: every process sees it, and it is there whatever becomes of its writer. It is
// *acknowledged* when its batch is committed, a few milliseconds later: it is on the disk and the database has a head that
// is not before it, so that it survives a power cut and cannot be missing any more without being missed.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "audit/chain.h"
#include "audit/verify.h"
#include "store/database.h"

namespace caisson::audit {

// The chain of what belongs to no box. All others are called by their box's id, or by network_chain() of it.
inline constexpr const char* kHomeChain = "home";

// The chain of what a box's network does.
std::string network_chain(const std::string& box_id);

// Where a chain's files are below `root`, which is <home>/audit.
std::string chain_directory(const std::string& root, const std::string& chain);

// What has been written and not acknowledged yet.
struct Batch {
    std::map<std::string, Head> heads;  // by chain
    std::set<std::string> fresh;        // of them, those of which nothing was acknowledged yet: their directories are new
    bool empty() const { return heads.empty(); }
};

// Not for two threads at once; see Recorder in the box room.
class Journal {
  public:
    explicit Journal(std::string root, ChainLimits limits = {}) : root_(std::move(root)), limits_(limits) {}

    // Opens a chain now, for a process that cannot do so later.
    Result<> open(const std::string& chain);
    // Appends to a chain, which is made if it is missing. After an error nothing of it is there; the next entry that can be
    // written is preceded by one that counts what was lost ("events_lost").
    Result<> record(store::Database& database, const std::string& chain, const Event& event, const Actor& actor, std::int64_t unix_ms);

    bool pending() const { return !batch_.empty(); }
    Batch take() { return std::exchange(batch_, {}); }
    // What of a batch was acknowledged by somebody else already is left out. Before sync().
    Result<> leave_out_acknowledged(const store::Database& database, Batch& batch) const;
    // Brings it to the disk. Others may record meanwhile: it has nothing of an object.
    static Result<> sync(const std::string& root, const Batch& batch);
    // Then its heads go into the database.
    Result<> acknowledge(store::Database& database, const Batch& batch);
    // All three, for who has only one thread. What could not be done is tried again with the next.
    Result<> commit(store::Database& database);
    void put_back(Batch batch);

    // Ends the chains of boxes that are gone: a last entry in each if its box's end left none, and one in the home's chain
    // with its head. The chains of boxes removed longest ago go when there are too many.
    Result<> close_removed(store::Database& database, const Actor& actor, std::int64_t unix_ms);

    const std::string& root() const { return root_; }

  private:
    Result<Writer*> writer(const std::string& chain);
    Result<> close(store::Database& database, const std::string& chain, const Actor& actor, std::int64_t unix_ms);
    Result<> remove_oldest(store::Database& database);

    std::string root_;
    ChainLimits limits_;
    std::map<std::string, Writer> writers_;
    std::map<std::string, std::uint64_t> lost_;  // events, by chain
    Batch batch_;
};

// What the database knows of a chain, for verify_chain().
Known known_of(const store::JournalHead& head);

}  // namespace caisson::audit
