#include "box/network_request.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "box/convert.h"
#include "net/relay/limits.h"

namespace caisson::box {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::string_view kSuffix = ".network";

std::string path_of(const std::string& box_directory) { return box_directory + std::string(kSuffix); }

}  // namespace

Result<NetworkRequest> NetworkRequest::hold(const std::string& box_directory) {
    constexpr int kTries = 8;
    const auto path = path_of(box_directory);
    for (int tried = 1;; ++tried) {
        auto lock = os::FileLock::try_acquire(path);
        if (!lock && lock.error().code == Errc::kInUse) return failure(Errc::kInUse, "somebody else is changing the network of the box", "try again");
        if (!lock) return base::failure(std::move(lock.error()));
        struct stat info {};
        if (::fstat(lock->fd().get(), &info) != 0) return failure_errno("cannot look at " + path);
        // Whoever had it before has removed it meanwhile.
        if (info.st_nlink == 0 && tried < kTries) continue;
        if (info.st_nlink != 1) return failure(Errc::kInUse, "somebody else is changing the network of the box", "try again");
        NetworkRequest request(path, std::move(*lock));
        if (::ftruncate(request.lock_->fd().get(), 0) != 0) return failure_errno("cannot empty " + path);
        return request;
    }
}

Result<> NetworkRequest::write(const wire::NetworkSpec& spec) {
    const int file = lock_->fd().get();
    if (::ftruncate(file, 0) != 0 || ::lseek(file, 0, SEEK_SET) != 0) return failure_errno("cannot empty " + path_);
    return os::write_all(file, std::string_view(spec.SerializeAsString()));
}

NetworkRequest::NetworkRequest(NetworkRequest&& other) noexcept : path_(std::exchange(other.path_, {})), lock_(std::exchange(other.lock_, std::nullopt)) {}

NetworkRequest::~NetworkRequest() {
    if (!path_.empty()) ::unlink(path_.c_str());
}

Result<wire::NetworkSpec> read_network_request(const std::string& box_directory) {
    const auto path = path_of(box_directory);
    const auto file = CAISSON_TRY(os::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    struct stat info {};
    if (::fstat(file.get(), &info) != 0) return failure_errno("cannot look at " + path);
    if (!S_ISREG(info.st_mode) || info.st_nlink != 1 || info.st_uid != ::geteuid()) return failure(Errc::kCorrupt, path + " is not the file that was made for the box");
    const auto text = CAISSON_TRY(os::read_fd(file.get(), net::relay::kMostOrderBytes, path));
    wire::NetworkSpec spec;
    if (!spec.ParseFromString(text) || spec.policy().empty()) return failure(Errc::kCorrupt, path + " has no network in it");
    return spec;
}

std::vector<std::pair<std::string, std::vector<std::pair<std::string, audit::Value>>>> network_changes(const wire::NetworkSpec& before, const wire::NetworkSpec& now) {
    auto policy = [](const wire::NetworkSpec& spec) { return spec.policy().empty() ? std::string("none") : spec.policy(); };
    std::vector<std::pair<std::string, std::vector<std::pair<std::string, audit::Value>>>> changes;
    if (before.policy() != now.policy()) changes.push_back({"network_policy_changed", {{"policy", policy(now)}, {"before", policy(before)}}});
    if (const auto is = network_limits_text(now.limits()), was = network_limits_text(before.limits()); is != was)
        changes.push_back({"network_limits_changed", {{"limits", is}, {"before", was}}});
    return changes;
}

bool is_network_request(const std::string& name) { return name.ends_with(kSuffix); }

void sweep_network_request(const std::string& path) {
    auto lock = os::FileLock::try_acquire(path);
    struct stat info {};
    // One that has no name any more is not what has this name now.
    if (lock && ::fstat(lock->fd().get(), &info) == 0 && info.st_nlink == 1) ::unlink(path.c_str());
}

}  // namespace caisson::box
