// How a network that was changed reaches the launcher of a box that runs: as a file beside the box's directory, where the
// box's supervisor cannot write (see shim_lock.h). It only says that there is one. So whoever takes the supervisor over
// through what a guest says does not choose what the box reaches.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "audit/event.h"
#include "os/file.h"
#include "wire/net.pb.h"

namespace caisson::box {

// The right to change one box, and the file, which is there as long as this is; and longer, if what is recorded of its network
// may not be in force. Any thread.
class NetworkRequest {
  public:
    // Errors: kInUse, somebody else is changing this box; of making the file.
    static Result<NetworkRequest> hold(const std::string& box_directory);
    // The same, waiting for others.
    static Result<NetworkRequest> wait(const std::string& box_directory, std::chrono::milliseconds patience);
    // Whoever had it before died, or did not learn, while he changed the network: what is recorded may not be in force.
    bool unsettled() const { return unsettled_; }
    // From now on it is so, until settle(): to be said before anything of a network is recorded of a box that runs.
    Result<> begin();
    void settle() { unsettled_ = false; }
    // Leaves `spec` for the launcher, in the place of what was left before.
    Result<> write(const wire::NetworkSpec& spec);
    NetworkRequest(NetworkRequest&&) noexcept;
    NetworkRequest& operator=(NetworkRequest&&) = delete;
    ~NetworkRequest();

  private:
    NetworkRequest(std::string path, os::FileLock lock, bool unsettled) : path_(std::move(path)), lock_(std::move(lock)), unsettled_(unsettled) {}
    std::string path_;  // empty: it was moved away
    std::optional<os::FileLock> lock_;
    bool unsettled_ = false;
};

// The launcher's end. kNotFound: nothing was left; kCorrupt: somebody else has put something there, or nobody is changing
// anything any more.
Result<wire::NetworkSpec> read_network_request(const std::string& box_directory);

// What the journal has of such a change: a kind, and its details. Of ports, whoever publishes them tells.
std::vector<std::pair<std::string, std::vector<std::pair<std::string, audit::Value>>>> network_changes(const wire::NetworkSpec& before, const wire::NetworkSpec& now);

// A file with this name in the directory of boxes is one; whoever left it may be dead.
bool is_network_request(const std::string& name);
std::string box_of_network_request(const std::string& name);
// Whose owner is dead, and had begun to change something.
bool is_unsettled_request(const std::string& path);
// Removes one whose owner is dead; of a box that runs only if he had not begun to change anything.
void sweep_network_request(const std::string& path, bool box_runs);

}  // namespace caisson::box
