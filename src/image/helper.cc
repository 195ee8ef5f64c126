#include "image/helper.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "image/limits.h"
#include "image/oci_json.h"
#include "image/protocol.h"

namespace caisson::image {

using base::failure;
using base::failure_errno;
using nlohmann::json;

namespace {

constexpr std::size_t kDataBytes = 1 << 20;

Errc errc_from_name(const std::string& name, const std::vector<Errc>& further) {
    for (Errc code : {Errc::kCorrupt, Errc::kLimit, Errc::kNoSpace, Errc::kUnsupported, Errc::kPermission, Errc::kInternal})
        if (base::errc_info(code).name == name) return code;
    for (Errc code : further)
        if (base::errc_info(code).name == name) return code;
    return Errc::kIo;
}

class Conversation {
  public:
    explicit Conversation(const HelperTalk& talk) : talk_(talk) {}

    Result<> take(std::string_view bytes) {
        buffer_ += bytes;
        for (;;) {
            auto end = buffer_.find('\n');
            if (end == std::string::npos) break;
            CAISSON_TRY(line(std::string_view(buffer_).substr(0, end)));
            buffer_.erase(0, end + 1);
        }
        if (buffer_.size() > kMaxProtocolLineBytes) return failure(Errc::kProtocol, talk_.who + " talks too much");
        return {};
    }

    // What it said last, once it has ended.
    std::optional<Result<json>> answer;

  private:
    Result<> line(std::string_view text) {
        if (text.size() > kMaxProtocolLineBytes) return failure(Errc::kProtocol, talk_.who + " talks too much");
        auto message = CAISSON_TRY(parse_json(text, talk_.who + "'s answer"));
        if (!message.is_object() || answer) return failure(Errc::kProtocol, talk_.who + "'s answer makes no sense");
        if (auto found = message.find("progress"); found != message.end() && found->is_object()) {
            if (talk_.progress) talk_.progress(*found);
        } else if (found = message.find("result"); found != message.end() && found->is_object()) {
            answer = Result<json>(*found);
        } else if (found = message.find("error"); found != message.end() && found->is_object()) {
            base::Error error;
            error.code = errc_from_name(text_field(*found, "code"), talk_.further_errors);
            error.message = text_field(*found, "message");
            error.hint = text_field(*found, "hint");
            auto number = number_field(*found, "errno");
            error.sys_errno = number < 4096 ? static_cast<int>(number) : 0;
            answer = Result<json>(failure(std::move(error)));
        } else {
            return failure(Errc::kProtocol, talk_.who + "'s answer makes no sense");
        }
        return {};
    }

    const HelperTalk& talk_;
    std::string buffer_;
};

}  // namespace

std::string text_field(const json& object, const char* key) {
    auto found = object.find(key);
    return found != object.end() && found->is_string() ? base::printable(found->get_ref<const std::string&>(), 8192)
                                                       : std::string();
}

std::uint64_t number_field(const json& object, const char* key) {
    auto found = object.find(key);
    return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

Result<HelperChannels> HelperChannels::create(bool with_data) {
    HelperChannels channels;
    // A socket: writing to one can be told not to raise SIGPIPE, which would end an embedding program.
    channels.request = CAISSON_TRY(os::make_socketpair(SOCK_STREAM));
    channels.status = CAISSON_TRY(os::make_pipe());
    if (with_data) {
        channels.data = CAISSON_TRY(os::make_pipe());
        ::fcntl(channels.data.first.get(), F_SETPIPE_SZ, static_cast<int>(kDataBytes));  // faster, not needed
    }
    return channels;
}

std::vector<os::Command::Descriptor> HelperChannels::descriptors() const {
    std::vector<os::Command::Descriptor> list{{request.second.get(), STDIN_FILENO}, {status.second.get(), kStatusFd}};
    if (data.second) list.push_back({data.second.get(), kOutputFd});
    return list;
}

Result<json> converse(HelperChannels channels, jail::Jailed helper, const HelperTalk& talk) {
    auto& [request, status, data] = channels;
    request.second.reset();
    status.second.reset();
    data.second.reset();

    // A request can be larger than the socket's buffer, so it is written while the answers are read.
    std::size_t part = 0;
    std::string_view unsent = talk.request.empty() ? std::string_view() : talk.request[0];
    Conversation conversation(talk);
    std::vector<char> buffer(talk.data ? kDataBytes : kMaxProtocolLineBytes);
    bool ended = false;
    while (status.first || data.first) {
        while (unsent.empty() && part + 1 < talk.request.size()) unsent = talk.request[++part];
        struct pollfd waiting[4] = {{status.first.get(), POLLIN, 0},
                                    {data.first.get(), POLLIN, 0},
                                    {unsent.empty() ? -1 : request.first.get(), POLLOUT, 0},
                                    {ended ? -1 : helper.process.pidfd().get(), POLLIN, 0}};
        if (::poll(waiting, 4, -1) < 0) {
            if (errno == EINTR) continue;
            return failure_errno("cannot wait for " + talk.who);
        }
        if (waiting[3].revents != 0) {
            // Whatever it has started would keep its pipes open for ever.
            helper.init.kill();
            ended = true;
        }
        if (waiting[2].revents != 0) {
            ssize_t put = ::send(request.first.get(), unsent.data(), unsent.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (put > 0) unsent.remove_prefix(static_cast<std::size_t>(put));
            if (put < 0 && errno != EAGAIN && errno != EINTR) {
                unsent = {};  // it died; the end of its answers says so
                part = talk.request.size();
            }
        }
        if (waiting[1].revents != 0) {
            ssize_t got = ::read(data.first.get(), buffer.data(), buffer.size());
            if (got == 0) data.first.reset();
            if (got < 0 && errno != EINTR && errno != EAGAIN) return failure_errno("cannot read from " + talk.who);
            if (got > 0)
                CAISSON_TRY_CTX(talk.data(base::as_bytes({buffer.data(), static_cast<std::size_t>(got)})), talk.what);
        }
        if (waiting[0].revents != 0) {
            char text[4096];
            ssize_t got = ::read(status.first.get(), text, sizeof text);
            if (got == 0) status.first.reset();
            if (got < 0 && errno != EINTR && errno != EAGAIN) return failure_errno("cannot read from " + talk.who);
            if (got > 0) CAISSON_TRY_CTX(conversation.take({text, static_cast<std::size_t>(got)}), talk.what);
        }
    }
    auto end = CAISSON_TRY(helper.process.wait());
    bool died = end.signalled || !conversation.answer || (end.code != 0 && conversation.answer->has_value());
    if (jail::killed_by_filter(end))
        return failure(Errc::kIo, talk.what + ": " + talk.who + " was killed by its system call filter: it made a call that an honest one does not make",
                       "what it read has taken it over, or it needs a call that caisson does not allow; if the source can be trusted, please report this");
    if (died)
        return failure(Errc::kIo, talk.what + ": " + talk.who + " ended unexpectedly (" +
                                      (end.signalled ? "signal " : "exit code ") + std::to_string(end.code) + ")");
    if (!*conversation.answer)
        return failure(std::move(*conversation.answer).error().with_context(talk.what));
    return std::move(**conversation.answer);
}

}  // namespace caisson::image
