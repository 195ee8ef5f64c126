#include "image/unpacker.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "image/limits.h"
#include "image/oci_json.h"
#include "image/protocol.h"
#include "jail/jail.h"
#include "os/file.h"

namespace caisson::image {

using base::failure;
using base::failure_errno;
using nlohmann::json;

namespace {

constexpr std::size_t kDataBytes = 1 << 20;
// Above what the limits of image/limits.h add up to; a decoder's dictionary is the rest.
[[maybe_unused]] constexpr unsigned long long kUnpackerMemoryBytes = 4ULL << 30;

// Hours of honest work on a slow machine; the end of one that is taken over and has lost its caller.
constexpr unsigned long long kUnpackerCpuSeconds = 4 * 3600;

// What a message may claim to be; everything else from there is an I/O error.
Errc errc_from_name(const std::string& name) {
    for (Errc code : {Errc::kCorrupt, Errc::kLimit, Errc::kNoSpace, Errc::kUnsupported, Errc::kPermission, Errc::kInternal})
        if (base::errc_info(code).name == name) return code;
    return Errc::kIo;
}

std::string text_field(const json& object, const char* key) {
    auto found = object.find(key);
    return found != object.end() && found->is_string() ? base::printable(found->get_ref<const std::string&>(), 8192)
                                                       : std::string();
}

std::uint64_t number_field(const json& object, const char* key) {
    auto found = object.find(key);
    return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

class Conversation {
  public:
    explicit Conversation(const ProgressCallback& progress) : progress_(progress) {}

    Result<> take(std::string_view bytes) {
        buffer_ += bytes;
        for (;;) {
            auto end = buffer_.find('\n');
            if (end == std::string::npos) break;
            CAISSON_TRY(line(std::string_view(buffer_).substr(0, end)));
            buffer_.erase(0, end + 1);
        }
        if (buffer_.size() > kMaxProtocolLineBytes) return failure(Errc::kProtocol, "the unpacker talks too much");
        return {};
    }

    // What it said last, once it has ended.
    std::optional<Result<json>> answer;

  private:
    Result<> line(std::string_view text) {
        if (text.size() > kMaxProtocolLineBytes) return failure(Errc::kProtocol, "the unpacker talks too much");
        auto message = CAISSON_TRY(parse_json(text, "the unpacker's answer"));
        if (!message.is_object() || answer) return failure(Errc::kProtocol, "the unpacker's answer makes no sense");
        if (auto found = message.find("progress"); found != message.end() && found->is_object()) {
            if (progress_)
                progress_({text_field(*found, "step"), number_field(*found, "done"), number_field(*found, "total")});
        } else if (found = message.find("result"); found != message.end() && found->is_object()) {
            answer = Result<json>(*found);
        } else if (found = message.find("error"); found != message.end() && found->is_object()) {
            base::Error error;
            error.code = errc_from_name(text_field(*found, "code"));
            error.message = text_field(*found, "message");
            error.hint = text_field(*found, "hint");
            auto number = number_field(*found, "errno");
            error.sys_errno = number < 4096 ? static_cast<int>(number) : 0;
            answer = Result<json>(failure(std::move(error)));
        } else {
            return failure(Errc::kProtocol, "the unpacker's answer makes no sense");
        }
        return {};
    }

    const ProgressCallback& progress_;
    std::string buffer_;
};

// In a jail that shows it nothing but its own (static) program, unless the store's owner starts it otherwise. Destroying
// it ends the unpacker and whatever it may have started.
Result<jail::Jailed> start(const Store::Options& options, const std::string& subcommand,
                          std::vector<os::Command::Descriptor> descriptors) {
    if (options.spawn) {
        os::Command command;
        command.arguments = {options.unpack_program, subcommand};
        command.descriptors = std::move(descriptors);
        return jail::Jailed{CAISSON_TRY(options.spawn(command)), {}};
    }
    jail::Description description;
    description.name = "unpacker";
#ifdef CAISSON_STATIC_UNPACKER
    description.mounts = {{jail::Mount::Kind::kReadOnly, options.unpack_program, "/caisson-unpack"}};
    description.arguments = {"/caisson-unpack", subcommand};
    description.resource_limits = {{RLIMIT_AS, kUnpackerMemoryBytes}};
#else
    description.root = "/";  // sanitizers need shared libraries
    description.arguments = {options.unpack_program, subcommand};
#endif
    description.descriptors = std::move(descriptors);
    // Its life hangs on its standard input instead: an embedding program may run this on a short-lived thread.
    description.die_with_parent = false;
    description.resource_limits.push_back({RLIMIT_CPU, kUnpackerCpuSeconds});
    auto jailed = CAISSON_TRY(jail::start(description));
    jailed.init.learn();  // it has read nothing yet
    return jailed;
}

}  // namespace

Result<json> run_unpacker(const Store::Options& options, const UnpackJob& job, const std::string& what) {
    // A socket: writing to one can be told not to raise SIGPIPE, which would end an embedding program.
    auto request = CAISSON_TRY(os::make_socketpair(SOCK_STREAM));
    auto status = CAISSON_TRY(os::make_pipe());
    os::FdPair data;
    if (job.data) {
        data = CAISSON_TRY(os::make_pipe());
        ::fcntl(data.first.get(), F_SETPIPE_SZ, static_cast<int>(kDataBytes));  // faster, not needed
    }

    std::vector<os::Command::Descriptor> descriptors{{request.second.get(), STDIN_FILENO},
                                                     {status.second.get(), kStatusFd}};
    if (job.data)
        descriptors.push_back({data.second.get(), kOutputFd});
    else if (job.output >= 0)
        descriptors.push_back({job.output, kOutputFd});
    for (std::size_t i = 0; i < job.inputs.size(); ++i)
        descriptors.push_back({job.inputs[i], kFirstInputFd + static_cast<int>(i)});
    auto unpacker = CAISSON_TRY(start(options, job.subcommand, std::move(descriptors)));
    request.second.reset();
    status.second.reset();
    data.second.reset();

    // A request can be larger than the socket's buffer, so it is written while the answers are read.
    std::string line = job.request + "\n";
    std::string_view unsent = line;
    Conversation conversation(job.progress);
    std::vector<char> buffer(job.data ? kDataBytes : kMaxProtocolLineBytes);
    bool ended = false;
    while (status.first || data.first) {
        struct pollfd waiting[4] = {{status.first.get(), POLLIN, 0},
                                    {data.first.get(), POLLIN, 0},
                                    {unsent.empty() ? -1 : request.first.get(), POLLOUT, 0},
                                    {ended ? -1 : unpacker.process.pidfd().get(), POLLIN, 0}};
        if (::poll(waiting, 4, -1) < 0) {
            if (errno == EINTR) continue;
            return failure_errno("cannot wait for the unpacker");
        }
        if (waiting[3].revents != 0) {
            // Whatever it has started would keep its pipes open for ever.
            unpacker.init.kill();
            ended = true;
        }
        if (waiting[2].revents != 0) {
            ssize_t put = ::send(request.first.get(), unsent.data(), unsent.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (put > 0) unsent.remove_prefix(static_cast<std::size_t>(put));
            if (put < 0 && errno != EAGAIN && errno != EINTR) unsent = {};  // it died; the end of its answers says so
        }
        if (waiting[1].revents != 0) {
            ssize_t got = ::read(data.first.get(), buffer.data(), buffer.size());
            if (got == 0) data.first.reset();
            if (got < 0 && errno != EINTR && errno != EAGAIN) return failure_errno("cannot read from the unpacker");
            if (got > 0)
                CAISSON_TRY_CTX(job.data(base::as_bytes({buffer.data(), static_cast<std::size_t>(got)})), what);
        }
        if (waiting[0].revents != 0) {
            char text[4096];
            ssize_t got = ::read(status.first.get(), text, sizeof text);
            if (got == 0) status.first.reset();
            if (got < 0 && errno != EINTR && errno != EAGAIN) return failure_errno("cannot read from the unpacker");
            if (got > 0) CAISSON_TRY_CTX(conversation.take({text, static_cast<std::size_t>(got)}), what);
        }
    }
    auto end = CAISSON_TRY(unpacker.process.wait());
    bool died = end.signalled || !conversation.answer || (end.code != 0 && conversation.answer->has_value());
    if (died)
        return failure(Errc::kIo, what + ": the unpacker ended unexpectedly (" +
                                      (end.signalled ? "signal " : "exit code ") + std::to_string(end.code) + ")");
    if (!*conversation.answer)
        return failure(std::move(*conversation.answer).error().with_context(what));
    return std::move(**conversation.answer);
}

}  // namespace caisson::image
