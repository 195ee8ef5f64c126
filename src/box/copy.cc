// The host's end of a copy, seen from the caller: caisson-copy does the work (copy_main.cc), see adr/0012.
#include "caisson/copy.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "base/text.h"
#include "box/host_copy.h"
#include "box/place.h"
#include "os/file.h"
#include "os/process.h"
#include "tar/extract.h"
#include "tar/pack.h"

namespace caisson {

using base::failure;

namespace {
constexpr int kPipeBytes = 1 << 20;
[[maybe_unused]] constexpr unsigned long long kMemoryBytes = 4ULL << 30;
constexpr unsigned long long kDescriptors = 64;
constexpr std::size_t kMaxSaidBytes = 256 << 10;
constexpr std::size_t kMaxWordsBytes = 64 << 10;
constexpr std::chrono::seconds kPatience{5};
}  // namespace

std::string copy_name(std::string_view path) { return tar::base_name(path); }
bool copy_means_directory(std::string_view path) { return tar::means_directory(path); }

void CopyWords::add(std::string_view text) {
    if (text_.size() < kMaxWordsBytes) text_ += text.substr(0, kMaxWordsBytes - text_.size());
}

std::optional<Error> CopyWords::failure(const std::string& box, const Outcome& outcome,
                                        const std::function<void(const std::string&)>& on_notice) const {
    std::vector<std::string> lines;
    for (const auto& line : base::split(text_, '\n'))
        if (!line.empty()) lines.push_back(base::printable(line, 1000));
    const bool ended_itself = outcome.kind == Outcome::Kind::kExited;
    Error error;
    error.code = ended_itself && outcome.exit_code == kCopyNotFound ? Errc::kNotFound : Errc::kIo;
    if (ended_itself && outcome.exit_code != 0 && !lines.empty()) {
        error.message = box + ": " + lines.back();
        lines.pop_back();
    } else if (outcome.kind == Outcome::Kind::kSignalled) {
        error.message = "the copy in " + box + " was ended by signal " + std::to_string(outcome.signal);
    } else {
        error.message = "the copy in " + box + " failed" + (outcome.reason.empty() ? "" : ": " + outcome.reason);
    }
    if (on_notice)
        for (const auto& line : lines) on_notice(box + ": " + line);
    if (ended_itself && outcome.exit_code == 0) return std::nullopt;
    return error;
}

// The pipes are closed before the process is waited for: one that has another user's rights cannot be killed, and ends
// with its stream.
struct HostCopy::State {
    ~State() {
        stream.reset();
        if (process.running()) static_cast<void>(process.wait(kPatience));  // it removes the file that it has half
    }
    os::Process process;
    os::Fd stream;
    os::Fd status;
    std::string said;  // a line that is not complete
    std::optional<Error> error;
    Plan plan;

    Result<> hear(std::string_view text) {
        said += text;
        const auto end = said.rfind('\n');
        if (said.size() > kMaxSaidBytes) return failure(Errc::kProtocol, "the copy says too much");
        if (end == std::string::npos) return {};
        const auto report = box::parse_copy_report(std::string_view(said).substr(0, end));
        said.erase(0, end + 1);
        for (const auto& notice : report.notices)
            if (plan.on_notice) plan.on_notice(notice);
        for (const auto& [changed, removed] : report.passes)
            if (plan.on_pass) plan.on_pass(changed, removed);
        if (report.error) error = report.error;
        return {};
    }
    // What is there now; or, if it is to wait, all that there will be. false: there will be no more.
    Result<bool> listen(bool wait) {
        char buffer[4096];
        for (;;) {
            struct pollfd waited {status.get(), POLLIN, 0};
            if (!wait && ::poll(&waited, 1, 0) == 0) return true;
            ssize_t got = ::read(status.get(), buffer, sizeof buffer);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return base::failure_errno("cannot read what the copy says");
            if (got == 0) return false;
            CAISSON_TRY(hear({buffer, static_cast<std::size_t>(got)}));
        }
    }
};

HostCopy::HostCopy(std::unique_ptr<State> state) : state_(std::move(state)) {}
HostCopy::HostCopy(HostCopy&&) noexcept = default;
HostCopy& HostCopy::operator=(HostCopy&&) noexcept = default;
HostCopy::~HostCopy() = default;

Result<HostCopy> HostCopy::start(Plan plan) {
    auto state = std::make_unique<State>();
    auto stream = CAISSON_TRY(os::make_pipe());
    auto status = CAISSON_TRY(os::make_pipe());
    ::fcntl(stream.first.get(), F_SETPIPE_SZ, kPipeBytes);  // fewer switches; less is fine
    os::Command command;
    command.arguments = std::move(plan.arguments);
    command.arguments.insert(command.arguments.begin(), plan.program);
    command.descriptors = {{plan.packs ? stream.second.get() : stream.first.get(), plan.packs ? 1 : 0},
                           {status.second.get(), box::kCopyStatusFd},
                           {plan.directory, box::kCopyDirectoryFd}};
    if (plan.count >= 0) command.descriptors.push_back({plan.count, box::kCopyCountFd});
    command.resource_limits = {{RLIMIT_CORE, 0}, {RLIMIT_NOFILE, kDescriptors}};
#ifdef CAISSON_STATIC_COPY
    command.resource_limits.push_back({RLIMIT_AS, kMemoryBytes});
#endif
    // A key that interrupts the caller lets it tidy up: its stream ends.
    command.new_session = true;
    auto process = os::spawn(command);
    if (!process && process.error().code == Errc::kNotFound)
        return failure(Errc::kHostMissing, "caisson's own program " + command.arguments[0] + " is missing",
                       "install caisson again, or in its source tree: make build");
    state->process = CAISSON_TRY(std::move(process));
    state->stream = std::move(plan.packs ? stream.first : stream.second);
    state->status = std::move(status.first);
    state->plan = std::move(plan);
    return HostCopy(std::move(state));
}

namespace {
std::string program_in(const std::string& directory) {
    return box::prefix_of(directory.empty() ? box::own_program_directory() : directory) + "/libexec/caisson/caisson-copy";
}
box::CopyManner manner_of(const HostCopyOptions& options) {
    box::CopyManner manner;
    manner.again = options.again;
    manner.update = options.update;
    manner.remove_others = options.update && options.remove_others;
    return manner;
}
}  // namespace

Result<HostCopy> HostCopy::pack(const std::string& path, const HostCopyOptions& options) {
    auto origin = CAISSON_TRY(tar::open_origin(path, options.follow_link));
    Plan plan;
    plan.packs = true;
    plan.program = program_in(options.program_directory);
    plan.arguments = box::pack_arguments(origin, manner_of(options));
    plan.directory = origin.directory.get();
    plan.on_notice = options.on_notice;
    return start(std::move(plan));
}

Result<HostCopy> HostCopy::extract(const std::string& path, const HostCopyOptions& options) {
    auto destination = CAISSON_TRY(tar::open_destination(path, false));
    Plan plan;
    plan.program = program_in(options.program_directory);
    plan.arguments = box::extract_arguments(destination, options.top, options.keep_owner, options.umask, manner_of(options));
    plan.directory = destination.directory.get();
    plan.on_notice = options.on_notice;
    plan.on_pass = options.on_pass;
    return start(std::move(plan));
}

int HostCopy::stream_fd() const { return state_->stream.get(); }
int HostCopy::report_fd() const { return state_->status.get(); }

Result<> HostCopy::take_reports() {
    CAISSON_TRY(state_->listen(false));
    return {};
}

Result<> HostCopy::finish() {
    state_->stream.reset();
    CAISSON_TRY(state_->listen(true));
    auto ended = CAISSON_TRY(state_->process.wait());
    if (state_->error) return base::failure(*state_->error);
    // Whoever read the stream wanted no more of it, and has to say why.
    if (ended.signalled && ended.code == SIGPIPE && state_->plan.packs) return {};
    if (ended.signalled) return failure(Errc::kIo, "the copy was ended by signal " + std::to_string(ended.code));
    if (ended.code != 0) return failure(Errc::kIo, "the copy ended with code " + std::to_string(ended.code));
    return state_->plan.complete ? state_->plan.complete() : Result<>();
}

}  // namespace caisson
