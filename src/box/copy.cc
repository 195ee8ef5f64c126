// The host's end of a copy, seen from the caller: caisson-copy does the work (copy_main.cc), see adr/0012.
#include "caisson/copy.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include <chrono>

#include "base/text.h"
#include "box/copy_protocol.h"
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
    bool packs = false;
    std::function<void(const std::string&)> on_notice;
};

HostCopy::HostCopy(std::unique_ptr<State> state) : state_(std::move(state)) {}
HostCopy::HostCopy(HostCopy&&) noexcept = default;
HostCopy& HostCopy::operator=(HostCopy&&) noexcept = default;
HostCopy::~HostCopy() = default;

Result<HostCopy> HostCopy::start(bool packs, std::vector<std::string> arguments, int directory, const HostCopyOptions& options) {
    auto state = std::make_unique<State>();
    state->packs = packs;
    state->on_notice = options.on_notice;
    auto stream = CAISSON_TRY(os::make_pipe());
    auto status = CAISSON_TRY(os::make_pipe());
    ::fcntl(stream.first.get(), F_SETPIPE_SZ, kPipeBytes);  // fewer switches; less is fine
    const auto place = options.program_directory.empty() ? box::own_program_directory() : options.program_directory;
    os::Command command;
    command.arguments = std::move(arguments);
    command.arguments.insert(command.arguments.begin(), box::prefix_of(place) + "/libexec/caisson/caisson-copy");
    command.descriptors = {{packs ? stream.second.get() : stream.first.get(), packs ? 1 : 0},
                           {status.second.get(), box::kCopyStatusFd},
                           {directory, box::kCopyDirectoryFd}};
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
    state->stream = std::move(packs ? stream.first : stream.second);
    state->status = std::move(status.first);
    return HostCopy(std::move(state));
}

Result<HostCopy> HostCopy::pack(const std::string& path, const HostCopyOptions& options) {
    auto origin = CAISSON_TRY(tar::open_origin(path, options.follow_link));
    return start(true, box::pack_arguments(origin), origin.directory.get(), options);
}

Result<HostCopy> HostCopy::extract(const std::string& path, const HostCopyOptions& options) {
    auto destination = CAISSON_TRY(tar::open_destination(path, false));
    return start(false, box::extract_arguments(destination, options.top, options.keep_owner, options.umask), destination.directory.get(), options);
}

int HostCopy::stream_fd() const { return state_->stream.get(); }

Result<> HostCopy::finish() {
    state_->stream.reset();
    auto said = CAISSON_TRY(os::read_fd(state_->status.get(), kMaxSaidBytes, "what the copy says"));
    auto ended = CAISSON_TRY(state_->process.wait());
    auto report = box::parse_copy_report(said);
    if (state_->on_notice)
        for (const auto& notice : report.notices) state_->on_notice(notice);
    if (report.error) return base::failure(std::move(*report.error));
    // Whoever read the stream wanted no more of it, and has to say why.
    if (ended.signalled && ended.code == SIGPIPE && state_->packs) return {};
    if (ended.signalled) return failure(Errc::kIo, "the copy was ended by signal " + std::to_string(ended.code));
    if (ended.code != 0) return failure(Errc::kIo, "the copy ended with code " + std::to_string(ended.code));
    return {};
}

}  // namespace caisson
