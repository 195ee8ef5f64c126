// Reading the journal of a home: of one box or of everything, by time, and as it comes. Internal to this room.
#pragma once

#include <functional>
#include <memory>
#include <thread>

#include "box/state.h"

namespace caisson::internal {

// What Runtime::audit() does. Uses nothing of `runtime` but its home and, for a query with a box, its database. `stop`, if it
// is not negative, ends following when it becomes readable.
Result<> read_journal(RuntimeState& runtime, const AuditQuery& query, const std::function<Result<bool>(const AuditEvent&)>& sink, int stop = -1);

// Tells RuntimeOptions::on_event of what comes, until it is destroyed.
class EventThread {
  public:
    // `runtime` outlives it.
    static Result<std::unique_ptr<EventThread>> start(RuntimeState& runtime);
    ~EventThread();

  private:
    EventThread() = default;
    os::Fd stop_read_, stop_write_;
    std::thread thread_;
};

}  // namespace caisson::internal
