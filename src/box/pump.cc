#include "box/pump.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "base/text.h"
#include "box/convert.h"
#include "box/detach_keys.h"
#include "box/shim.h"
#include "os/loop.h"

namespace caisson::box {

using base::failure;

namespace {

// A pipe that poll(2) calls writable takes this much without blocking (POSIX: PIPE_BUF), so the caller's
// descriptors can stay blocking, as other processes that share them expect.
constexpr std::size_t kWriteChunk = 4096;
constexpr std::size_t kReadChunk = wire::kMaxDataBytes;

class Pump {
  public:
    Pump(os::Loop loop, internal::BoxState& box, const StreamOptions& streams)
        : loop_(std::move(loop)), box_(box), streams_(streams), connection_(box.shim->connection()),
          stdin_stream_(wire::stream_of(box.number, wire::Channel::kStdin)), detach_keys_(streams.detach_keys) {
        // What another client has sent and the command has not taken yet is not ours to send.
        if (box.input_credit < wire::kInitialCredit) stdin_window_.consume(wire::kInitialCredit - box.input_credit);
    }

    ~Pump() {
        if (signals_) ::pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
    }

    Result<Outcome> run() {
        outputs_[0] = {wire::stream_of(box_.number, wire::Channel::kStdout), streams_.stdout_fd, &streams_.on_stdout};
        outputs_[1] = {wire::stream_of(box_.number, wire::Channel::kStderr), streams_.stderr_fd, &streams_.on_stderr};
        CAISSON_TRY(loop_.watch(box_.shim->fd(), EPOLLIN, [this](std::uint32_t) { guard(on_shim()); }));
        CAISSON_TRY(loop_.watch(box_.order_read.get(), EPOLLIN, [this](std::uint32_t) { guard(on_order()); }));
        if (streams_.forward_signals) CAISSON_TRY(forward_signals());
        // It may have changed since the box was asked for.
        CAISSON_TRY(follow_terminal());
        if (box_.stdin_open) CAISSON_TRY(begin_stdin());
        // Frames may already be in the decoder, behind the message that said the command runs.
        guard(on_shim());
        while (!done_) {
            bool urgent = stdin_is_file_ && may_read_stdin();
            CAISSON_TRY(loop_.step(std::chrono::milliseconds(urgent ? 0 : -1)));
            if (urgent) guard(read_stdin());
        }
        if (error_) return base::failure(*error_);
        return outcome_;
    }

  private:
    struct Output {
        std::uint32_t stream = 0;
        int fd = -1;
        const std::function<void(std::string_view)>* callback = nullptr;
        std::string pending;
        std::size_t written = 0;
        wire::ReceiveWindow window;
        bool watched = false;
        bool always_writable = false;  // a regular file: epoll refuses those
        bool reader_gone = false;
    };

    void guard(Result<> result) {
        if (result || done_) return;
        error_ = result.error();
        done_ = true;
    }

    Result<> forward_signals() {
        sigset_t set;
        ::sigemptyset(&set);
        for (int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH}) ::sigaddset(&set, number);
        ::pthread_sigmask(SIG_BLOCK, &set, &old_mask_);
        signals_ = os::Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
        if (!signals_) return base::failure_errno("cannot receive signals");
        return loop_.watch(signals_.get(), EPOLLIN, [this](std::uint32_t) { guard(on_signal()); });
    }

    Result<> on_signal() {
        struct signalfd_siginfo info {};
        while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
            auto number = static_cast<int>(info.ssi_signo);
            if (number == SIGWINCH) {
                CAISSON_TRY(follow_terminal());
                continue;
            }
            const bool ends = number == SIGINT || number == SIGTERM;
            if (ends && ++ending_signals_ > 1 && box_.owner) {
                wire::ToShim message;
                message.mutable_stop()->set_signal(number);
                CAISSON_TRY(append_to_shim(connection_.out(), message));
            } else if (ends && ending_signals_ > 1) {
                // Whoever insists does not wait for a box that may not answer; what it started there ends with it.
                outcome_ = {Outcome::Kind::kSignalled, 0, number, ""};
                done_ = true;
            } else {
                CAISSON_TRY(queue_signal(number));
            }
        }
        return flush();
    }

    // Of Execution::signal() or resize(), perhaps on another thread.
    Result<> on_order() {
        internal::Order order;
        if (::read(box_.order_read.get(), &order, sizeof order) != static_cast<ssize_t>(sizeof order)) return {};
        if (order.signal != 0) CAISSON_TRY(queue_signal(order.signal));
        else CAISSON_TRY(queue_size(order.rows, order.columns));
        return flush();
    }

    Result<> queue_size(unsigned rows, unsigned columns) {
        wire::ToShim message;
        message.mutable_resize()->set_id(box_.number);
        message.mutable_resize()->set_rows(rows);
        message.mutable_resize()->set_columns(columns);
        return append_to_shim(connection_.out(), message);
    }

    Result<> follow_terminal() {
        struct winsize size {};
        if (streams_.terminal_fd < 0 || ::ioctl(streams_.terminal_fd, TIOCGWINSZ, &size) != 0 || size.ws_row == 0)
            return {};
        return queue_size(size.ws_row, size.ws_col);
    }

    Result<> queue_signal(int number) {
        wire::ToShim message;
        message.mutable_signal()->set_id(box_.number);
        message.mutable_signal()->set_signal(number);
        return append_to_shim(connection_.out(), message);
    }

    Result<> flush() {
        // A shim that is gone is noticed, with its last words, by reading. Output may still be pending after that.
        if (shim_closed_ || !connection_.flush()) return {};
        return loop_.modify(box_.shim->fd(), connection_.wanted_events(true));
    }

    // ---- input ----

    Result<> begin_stdin() {
        stdin_open_ = true;
        if (streams_.stdin_fd < 0) return end_stdin();
        return watch_stdin();
    }
    // Watched only while there is credit: a hang-up would otherwise wake the loop for ever.
    Result<> watch_stdin() {
        if (stdin_watched_ || stdin_is_file_) return {};
        auto watched = loop_.watch(streams_.stdin_fd, EPOLLIN, [this](std::uint32_t) { guard(read_stdin()); });
        if (watched) stdin_watched_ = true;
        else if (watched.error().sys_errno == EPERM) stdin_is_file_ = true;  // a regular file is always readable
        else return watched;
        return {};
    }
    void unwatch_stdin() {
        if (stdin_watched_) loop_.unwatch(streams_.stdin_fd);
        stdin_watched_ = false;
    }
    bool may_read_stdin() const { return stdin_open_ && stdin_window_.available() > detach_keys_.held_back_at_most(); }

    Result<> read_stdin() {
        if (!may_read_stdin()) return {};
        std::uint8_t buffer[kReadChunk];
        auto wanted = std::min<std::size_t>(sizeof buffer, stdin_window_.available()) - detach_keys_.held_back_at_most();
        ssize_t got = ::read(streams_.stdin_fd, buffer, wanted);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) return {};
        if (got <= 0) return end_stdin();  // also EIO of a terminal that went away
        base::Bytes input;
        const bool leaves = detach_keys_.feed({buffer, static_cast<std::size_t>(got)}, input);
        stdin_window_.consume(static_cast<std::uint32_t>(input.size()));
        box_.bytes_in += input.size();
        if (!input.empty()) wire::append_data(connection_.out(), stdin_stream_, input);
        if (leaves) return detach();
        if (!may_read_stdin()) unwatch_stdin();
        return flush();
    }

    // The shim answers once it will not mind that we are gone.
    Result<> detach() {
        unwatch_stdin();
        stdin_open_ = false;
        wire::ToShim message;
        message.mutable_detach();
        CAISSON_TRY(append_to_shim(connection_.out(), message));
        return flush();
    }

    Result<> end_stdin() {
        unwatch_stdin();
        stdin_open_ = false;
        wire::append_eof(connection_.out(), stdin_stream_);
        return flush();
    }

    // ---- output ----

    Output* output_of(std::uint32_t stream) {
        for (auto& output : outputs_)
            if (output.stream == stream) return &output;
        return nullptr;
    }

    Result<> on_shim() {
        bool open = CAISSON_TRY(connection_.fill());
        while (auto frame = CAISSON_TRY(connection_.next())) {
            switch (frame->type) {
                case wire::FrameType::kControl: CAISSON_TRY(on_message(frame->payload)); break;
                case wire::FrameType::kCredit:
                    if (frame->stream == stdin_stream_) {
                        CAISSON_TRY(stdin_window_.add(wire::credit_of(*frame)));
                        if (stdin_open_) CAISSON_TRY(watch_stdin());
                    }
                    break;
                case wire::FrameType::kData:
                    if (auto* output = output_of(frame->stream)) CAISSON_TRY(on_data(*output, frame->payload));
                    break;
                case wire::FrameType::kEof: break;  // the end of the box says it all
            }
        }
        if (!open && !done_) {
            loop_.unwatch(box_.shim->fd());
            shim_closed_ = true;
            if (!ended_) {
                outcome_ = box_.end_without_a_word();
                ended_ = true;
            }
        } else if (!done_) {
            CAISSON_TRY(flush());
        }
        finish_if_drained();
        return {};
    }

    Result<> on_data(Output& output, base::ByteView bytes) {
        CAISSON_TRY(output.window.receive(bytes.size()));
        if (output.fd < 0) {
            if (*output.callback) (*output.callback)(base::as_text(bytes));
            return delivered(output, bytes.size());
        }
        if (output.reader_gone) return delivered(output, bytes.size());
        output.pending += base::as_text(bytes);
        return write_output(output);
    }

    Result<> delivered(Output& output, std::size_t bytes) {
        if (&output == &outputs_[0] && !output.reader_gone) box_.bytes_out += bytes;
        // Behind the end of the stream credit would be a breach of the protocol.
        if (auto grant = output.window.consume(bytes); grant > 0 && !ended_ && !output.reader_gone)
            wire::append_credit(connection_.out(), output.stream, grant);
        return {};
    }

    Result<> write_output(Output& output) {
        if (!output.watched && !output.always_writable) {
            auto watched = loop_.watch(output.fd, EPOLLOUT, [this, &output](std::uint32_t) {
                guard(write_some(output));
                guard(flush());
                finish_if_drained();
            });
            if (watched) output.watched = true;
            else if (watched.error().sys_errno == EPERM) output.always_writable = true;
            else if (watched.error().sys_errno == EEXIST) output.always_writable = true;
            else return watched;
        }
        if (output.always_writable) {
            while (output.written < output.pending.size() && !output.reader_gone) CAISSON_TRY(write_some(output));
        }
        return {};
    }

    Result<> write_some(Output& output) {
        auto left = output.pending.size() - output.written;
        if (left > 0) {
            ssize_t put = ::write(output.fd, output.pending.data() + output.written, std::min(left, kWriteChunk));
            if (put < 0 && (errno == EINTR || errno == EAGAIN)) return {};
            if (put < 0 && errno == EPIPE) return reader_gone(output);
            if (put < 0) return base::failure_errno("cannot write the command's output");
            output.written += static_cast<std::size_t>(put);
            CAISSON_TRY(delivered(output, static_cast<std::size_t>(put)));
        }
        if (output.written == output.pending.size()) {
            output.pending.clear();
            output.written = 0;
            // Not merely paused: a reader that left would wake the loop for ever. The next write finds out.
            if (output.watched) loop_.unwatch(output.fd);
            output.watched = false;
        }
        return {};
    }

    // Whoever read our output left (`| head -1`). The command learns it as it would from a pipe of its own.
    Result<> reader_gone(Output& output) {
        output.reader_gone = true;
        auto left = output.pending.size() - output.written;
        output.pending.clear();
        output.written = 0;
        if (output.watched) loop_.unwatch(output.fd);
        output.watched = false;
        if (!ended_) wire::append_eof(connection_.out(), output.stream);
        return delivered(output, left);
    }

    // ---- end ----

    Result<> on_message(base::ByteView payload) {
        auto message = CAISSON_TRY(parse_from_shim(payload));
        if (message.has_error()) {
            box_.ended = true;
            return base::failure(from_message(message.error()));
        }
        if (message.has_detached()) {
            outcome_ = {Outcome::Kind::kDetached, 0, 0, ""};
            ended_ = true;
            return {};
        }
        if (message.has_execution_ended()) {
            const auto& end = message.execution_ended();
            outcome_ = outcome_from(end.kind(), end.code(), end.reason());
        } else if (message.has_ended()) {
            const auto& end = message.ended();
            outcome_ = outcome_from(end.kind(), end.code(), end.reason());
            add_stages(end.timings());
        } else {
            return {};
        }
        ended_ = true;
        box_.ended = true;
        return {};
    }

    void add_stages(const wire::Timings& timings) {
        std::uint32_t before = 0;
        auto stage = [&](const char* name, std::uint32_t mark) {
            if (mark < before) mark = before;
            box_.stages.push_back({name, std::chrono::microseconds(mark - before)});
            before = mark;
        };
        stage("start the jailed VMM", timings.vmm_started());
        stage("restore, agent answers", timings.agent_answered());
        stage("configure the guest", timings.configured());
        stage("start the command", timings.command_started());
        stage("run the command", timings.command_ended());
        stage("end the VM", timings.vmm_gone());
        stage("remove or record the box", timings.removed());
    }

    void finish_if_drained() {
        if (!ended_) return;
        for (const auto& output : outputs_)
            if (output.written < output.pending.size()) return;
        done_ = true;
    }

    os::Loop loop_;
    internal::BoxState& box_;
    const StreamOptions& streams_;
    wire::Connection& connection_;
    std::uint32_t stdin_stream_;
    std::array<Output, 2> outputs_;
    wire::SendWindow stdin_window_;
    DetachKeys detach_keys_;
    bool stdin_open_ = false;
    bool stdin_is_file_ = false;
    bool stdin_watched_ = false;
    os::Fd signals_;
    sigset_t old_mask_{};
    int ending_signals_ = 0;
    Outcome outcome_;
    bool ended_ = false;
    bool shim_closed_ = false;  // end of file: its descriptor is no longer watched
    bool done_ = false;
    std::optional<Error> error_;
};

}  // namespace

Result<Outcome> pump(internal::BoxState& box, const StreamOptions& streams) {
    Pump pump(CAISSON_TRY(os::Loop::create()), box, streams);
    return pump.run();
}

}  // namespace caisson::box
