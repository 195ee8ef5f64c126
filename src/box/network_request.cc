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
        return NetworkRequest(path, std::move(*lock), info.st_size > 0);
    }
}

Result<> NetworkRequest::write(const wire::NetworkSpec& spec) {
    // Never empty on the way: that would say that nothing had begun.
    const int file = lock_->fd().get();
    const auto text = spec.SerializeAsString();
    if (::lseek(file, 0, SEEK_SET) != 0) return failure_errno("cannot write " + path_);
    CAISSON_TRY(os::write_all(file, std::string_view(text)));
    if (::ftruncate(file, static_cast<off_t>(text.size())) != 0) return failure_errno("cannot shorten " + path_);
    return {};
}

NetworkRequest::NetworkRequest(NetworkRequest&& other) noexcept
    : path_(std::exchange(other.path_, {})), lock_(std::exchange(other.lock_, std::nullopt)), unsettled_(other.unsettled_) {}

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

std::string box_of_network_request(const std::string& name) { return name.substr(0, name.size() - kSuffix.size()); }

namespace {
// Held, so that nobody begins meanwhile; nullopt: somebody has it, or it has no name any more.
struct Abandoned {
    os::FileLock lock;
    bool begun;
};
std::optional<Abandoned> abandoned_at(const std::string& path) {
    if (!os::exists(path)) return std::nullopt;
    auto lock = os::FileLock::try_acquire(path);
    struct stat info {};
    if (!lock || ::fstat(lock->fd().get(), &info) != 0 || info.st_nlink != 1) return std::nullopt;
    return Abandoned{std::move(*lock), info.st_size > 0};
}
}  // namespace

bool is_unsettled_request(const std::string& path) {
    const auto found = abandoned_at(path);
    return found && found->begun;
}

void sweep_network_request(const std::string& path, bool box_runs) {
    const auto found = abandoned_at(path);
    if (found && !(found->begun && box_runs)) ::unlink(path.c_str());
}

}  // namespace caisson::box
