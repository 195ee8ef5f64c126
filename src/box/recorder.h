// What this process records in the home's journal, and the thread that brings it to the disk. Internal to this room.
//
// Whoever records waits for one short write. A few milliseconds later the thread writes everything that came meanwhile to
// the disk and then its heads into the database; at the end of the Runtime what is left.
#pragma once

#include <condition_variable>
#include <string>
#include <thread>

#include "audit/journal.h"
#include "box/state.h"

namespace caisson::internal {

class Recorder {
  public:
    // Of `runtime`, which outlives it. Its database_mutex guards everything here.
    explicit Recorder(RuntimeState& runtime);
    ~Recorder();
    Recorder(const Recorder&) = delete;
    Recorder& operator=(const Recorder&) = delete;

    // Safe from any thread that does not hold database_mutex, as all of these.
    Result<> record(const std::string& chain, const audit::Event& event);
    // Chains of boxes that are gone. `soon`: by the thread, so that whoever starts a box does not wait for the last one's end.
    Result<> close_removed();
    Result<> close_removed_soon();
    // The last entry of a chain, acknowledged. A sequence of 0: it has none.
    Result<audit::Head> acknowledge(const std::string& chain);
    const audit::Actor& actor() const { return actor_; }

  private:
    void run();
    // With the lock, which it gives up while the disk works.
    Result<> commit(std::unique_lock<std::mutex>& lock);
    void wake();

    RuntimeState& runtime_;
    audit::Actor actor_;
    audit::Journal journal_;
    std::condition_variable wakeup_;
    bool stopping_ = false, closing_ = false;
    std::thread thread_;  // started with the first entry
};

// In the chain of its box, or of the home if it is about none. What cannot be recorded is told as a notice that names the
// journal; it was done all the same.
void record(RuntimeState& runtime, const audit::Event& event);
// In the home's chain, whatever it is about. For what must not be done unless it is recorded.
Result<> record_in_home(RuntimeState& runtime, const audit::Event& event);
// What lowers the walls around a box; nothing if there is nothing. `what`: each lowering, in words that are stable.
Result<> record_lowering(RuntimeState& runtime, const std::string& box_id, const std::string& box_name, const std::vector<std::string>& what);
// After boxes were removed; `soon` is for those that others have removed.
void close_journals(RuntimeState& runtime, bool soon = false);

}  // namespace caisson::internal
