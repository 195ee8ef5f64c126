// What making, starting, entering and ending boxes share. Internal to this room.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "box/state.h"

namespace caisson::internal {

Result<store::BoxRecord> find_record(RuntimeState& runtime, const std::string& reference);
Result<store::ExecutionRecord> find_execution(RuntimeState& runtime, const std::string& box_id, const std::string& reference);
// reconcile(), for who does not hold the database.
Result<> reconcile_now(RuntimeState& runtime);
Result<BoxInfo> find_info(RuntimeState& runtime, const std::string& reference);
// The same once nobody is starting it any more, whether it runs then or has failed. Whoever starts it has deadlines.
Result<BoxInfo> wait_until_started(RuntimeState& runtime, const std::string& id);
const char* shown_state(store::BoxState state);

// The lock of a box that does not run. Waits a little for a supervisor that is leaving; kInUse if it stays, or as soon as
// `hopeless` says so.
Result<os::FileLock> lock_patiently(const std::string& box_directory, const std::string& name,
                                    const std::function<bool()>& hopeless = {});

enum class StartMode {
    kAttached,   // its command runs, and ends with the caller
    kDetached,   // its command runs, on its own
    kFilesOnly,  // only so that its files can be reached; the record does not change, and it ends with the caller
};
// Starts a box that has a record and does not run; one that is still in the making by this process, too. Returns when its command (or guest) runs.
Result<std::shared_ptr<BoxState>> start_recorded(std::shared_ptr<RuntimeState> runtime, const store::BoxRecord& record,
                                                 StartMode mode);

// Makes room for a box of this name.
Result<> remove_replaced(RuntimeState& runtime, const std::string& name);
Result<> remove_record(RuntimeState& runtime, store::BoxRecord record, bool force);

// A supervisor answers within the deadlines that it has for its guest, five seconds at most.
inline constexpr std::chrono::milliseconds kAnswerPatience{30000};
// One answer to one request. Errors: kInUse, it is gone; kTimeout; what it refuses.
Result<wire::FromShim> ask(box::ShimClient& shim, const wire::ToShim& request, std::chrono::milliseconds patience = kAnswerPatience);

// A connection to the supervisor of a box that runs. kInUse: it does not, or not yet or any more.
Result<std::unique_ptr<box::ShimClient>> reach(RuntimeState& runtime, const store::BoxRecord& record);

// Asks for an execution; what could not be started is the error that the guest gave.
Result<wire::ExecutionOpen> ask_for_execution(box::ShimClient& shim, const wire::ToShim& request, const std::string& name);
// The same in a box that runs, over a connection of its own.
Result<std::shared_ptr<BoxState>> start_execution(std::shared_ptr<RuntimeState> runtime, const store::BoxRecord& record,
                                                  const wire::ToShim& request);

}  // namespace caisson::internal
