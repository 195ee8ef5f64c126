#include "box/network_request.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "box/convert.h"
#include "net/relay/limits.h"

namespace caisson::box {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::string_view kSuffix = ".network";
// The file's first byte: before all of the rest is there, and then. An empty file says that nothing has begun.
constexpr char kBegun = 0, kWhole = 1;

std::string path_of(const std::string& box_directory) { return box_directory + std::string(kSuffix); }

Result<> write_at(int file, std::string_view text, off_t offset) {
    if (::lseek(file, offset, SEEK_SET) != offset) return failure_errno("cannot write what a box's network is to be");
    return os::write_all(file, text);
}

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

Result<NetworkRequest> NetworkRequest::wait(const std::string& box_directory, std::chrono::milliseconds patience) {
    constexpr std::chrono::milliseconds kLook{20};
    for (const auto end = std::chrono::steady_clock::now() + patience;;) {
        auto request = hold(box_directory);
        if (request || request.error().code != Errc::kInUse || std::chrono::steady_clock::now() > end) return request;
        std::this_thread::sleep_for(kLook);
    }
}

Result<> NetworkRequest::begin() {
    const int file = lock_->fd().get();
    CAISSON_TRY(write_at(file, {&kBegun, 1}, 0));
    if (::ftruncate(file, 1) != 0) return failure_errno("cannot shorten " + path_);
    unsettled_ = true;
    return {};
}

Result<> NetworkRequest::write(const wire::NetworkSpec& spec) {
    CAISSON_TRY(begin());
    const int file = lock_->fd().get();
    CAISSON_TRY(write_at(file, spec.SerializeAsString(), 1));
    return write_at(file, {&kWhole, 1}, 0);
}

NetworkRequest::NetworkRequest(NetworkRequest&& other) noexcept
    : path_(std::exchange(other.path_, {})), lock_(std::exchange(other.lock_, std::nullopt)), unsettled_(other.unsettled_) {}

NetworkRequest::~NetworkRequest() {
    if (!path_.empty() && !unsettled_) ::unlink(path_.c_str());
}

Result<wire::NetworkSpec> read_network_request(const std::string& box_directory) {
    const auto path = path_of(box_directory);
    const auto file = CAISSON_TRY(os::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    struct stat info {};
    if (::fstat(file.get(), &info) != 0) return failure_errno("cannot look at " + path);
    if (!S_ISREG(info.st_mode) || info.st_nlink != 1 || info.st_uid != ::geteuid()) return failure(Errc::kCorrupt, path + " is not the file that was made for the box");
    if (!os::is_locked(file)) return failure(Errc::kCorrupt, "nobody is changing the network of the box");
    const auto text = CAISSON_TRY(os::read_fd(file.get(), net::relay::kMostOrderBytes + 1, path));
    wire::NetworkSpec spec;
    if (text.empty() || text.front() != kWhole || !spec.ParseFromArray(text.data() + 1, static_cast<int>(text.size() - 1)) || spec.policy().empty()) return failure(Errc::kCorrupt, path + " has no network in it");
    return spec;
}

std::vector<std::pair<std::string, std::vector<std::pair<std::string, audit::Value>>>> network_changes(const wire::NetworkSpec& before, const wire::NetworkSpec& now) {
    std::vector<std::pair<std::string, std::vector<std::pair<std::string, audit::Value>>>> changes;
    if (before.policy() != now.policy()) changes.push_back({"network_policy_changed", {{"policy", network_policy_text(now)}, {"before", network_policy_text(before)}}});
    if (const auto is = network_limits_text(now.limits()), was = network_limits_text(before.limits()); is != was)
        changes.push_back({"network_limits_changed", {{"limits", is}, {"before", was}}});
    return changes;
}

bool is_network_request(const std::string& name) { return name.ends_with(kSuffix); }

std::string box_of_network_request(const std::string& name) { return name.substr(0, name.size() - kSuffix.size()); }

namespace {
// Held, so that nobody begins meanwhile; nullopt: somebody has it, or it has no name any more.
struct Abandoned {
    os::Fd held;
    bool begun;
};
std::optional<Abandoned> abandoned_at(const std::string& path) {
    auto file = os::open_file(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    struct stat info {};
    if (!file || ::flock(file->get(), LOCK_EX | LOCK_NB) != 0 || ::fstat(file->get(), &info) != 0 || info.st_nlink != 1) return std::nullopt;
    return Abandoned{std::move(*file), info.st_size > 0};
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
