#include "agent/execution.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/launch.h"
#include "agent/log.h"
#include "os/file.h"

namespace caisson::agent {

using base::ByteView;
using base::failure;
using base::failure_errno;

namespace {

// A frame of this much fills exactly one buffer of the port's driver.
constexpr std::size_t kReadBytes = wire::kMaxDataBytes - wire::kHeaderBytes;
// Reads of one stream before the others have their turn.
constexpr int kTurn = 4;
// A frame of at least this much goes to the port at once instead of through the queue.
constexpr std::size_t kLargeBytes = 8 * 1024;
// What the end of a terminal's session may still hold.
constexpr std::size_t kTerminalBytes = 128 * 1024;
// Larger pipes than usual: fewer switches between a command that writes much and the agent, a third more throughput.
constexpr int kPipeBytes = 256 * 1024;
// How long the main command's pipes may stay open after everything in the container was killed.
constexpr std::chrono::seconds kMainPatience{5};
constexpr std::chrono::milliseconds kSeatPatience{5000};
constexpr std::uint8_t kEndOfTransmission = 4;

}  // namespace

Execution::Execution(std::uint32_t id, bool main, Surroundings surroundings)
    : id_(id), main_(main), around_(std::move(surroundings)) {
    out_.stream = wire::stream_of(id, wire::Channel::kStdout);
    error_.stream = wire::stream_of(id, wire::Channel::kStderr);
}

Result<std::unique_ptr<Seat>> Seat::create(const Container& container) {
    std::unique_ptr<Seat> seat(new Seat());
    os::Fd child_ends[3];
    for (int i = 0; i < 3; ++i) {
        auto pipe = CAISSON_TRY(os::make_pipe());
        if (i > 0) ::fcntl(pipe.first.get(), F_SETPIPE_SZ, kPipeBytes);
        seat->streams_[i] = std::move(i == 0 ? pipe.second : pipe.first);
        child_ends[i] = std::move(i == 0 ? pipe.first : pipe.second);
        CAISSON_TRY(os::set_nonblocking(seat->streams_[i].get(), true));
    }
    auto report = CAISSON_TRY(os::make_pipe());
    auto order = CAISSON_TRY(os::make_pipe());
    CAISSON_TRY(os::set_nonblocking(report.first.get(), true));
    seat->child_ = CAISSON_TRY(container.fork());
    if (seat->child_.pid == 0)
        launch_later({.container = &container,
                      .standard = {child_ends[0].get(), child_ends[1].get(), child_ends[2].get()},
                      .terminal = false,
                      .report = report.second.get(),
                      .order = order.first.get()});
    report.second.reset();
    // Its id is in the pipe as soon as it sits; there it stays until the command's own report is read.
    pollfd seated{report.first.get(), POLLIN, 0};
    if (::poll(&seated, 1, static_cast<int>(kSeatPatience.count())) != 1 || !(seated.revents & POLLIN))
        return failure(Errc::kGuest, "the process for the first command did not become ready");
    seat->report_ = std::move(report.first);
    seat->order_ = std::move(order.second);
    return seat;
}

Seat::~Seat() { dispose(child_); }

Result<std::unique_ptr<Execution>> Execution::start(const wire::Exec& exec, Surroundings surroundings,
                                                    std::unique_ptr<Seat> seat, const std::string& order) {
    if (exec.arguments_size() == 0 && !exec.has_copy()) return failure(Errc::kUsage, "a command without arguments");
    for (const auto& text : exec.arguments())
        if (text.find('\0') != std::string::npos) return failure(Errc::kUsage, "an argument with a null byte");
    for (const auto& text : exec.environment())
        if (text.find('\0') != std::string::npos) return failure(Errc::kUsage, "an environment entry with a null byte");
    std::unique_ptr<Execution> self(new Execution(exec.id(), exec.main(), std::move(surroundings)));
    if (!seat || !self->sit_down(exec, *seat, order)) CAISSON_TRY(self->fork_and_launch(exec));
    CAISSON_TRY(self->watch_child());
    self->update_watches();
    return self;
}

bool Execution::sit_down(const wire::Exec& exec, Seat& seat, const std::string& order) {
    if (!os::write_all(seat.order_.get(), order)) return false;  // it is gone
    seat.order_.reset();
    child_ = std::exchange(seat.child_, Child());
    report_ = std::move(seat.report_);
    if (exec.stdin_open()) {
        in_.own = std::move(seat.streams_[0]);
        in_.fd = in_.own.get();
    }
    out_.own = std::move(seat.streams_[1]);
    out_.fd = out_.own.get();
    error_.own = std::move(seat.streams_[2]);
    error_.fd = error_.own.get();
    return true;
}

Result<> Execution::fork_and_launch(const wire::Exec& exec) {
    os::Fd child_ends[3];
    CAISSON_TRY(open_streams(exec, child_ends));
    auto report = CAISSON_TRY(os::make_pipe());
    report_ = std::move(report.first);
    CAISSON_TRY(os::set_nonblocking(report_.get(), true));
    const bool copies_out = exec.has_copy() && exec.copy().direction() == wire::Copy::OUT;
    child_ = CAISSON_TRY(copies_out ? around_.container->fork_copy() : around_.container->fork());
    if (child_.pid == 0)
        launch({.container = around_.container,
                .standard = {child_ends[0].get(), child_ends[1].get(), child_ends[2].get()},
                .terminal = exec.terminal(),
                .report = report.second.get()},
               exec);
    return {};
}

Execution::~Execution() {
    if (patience_) around_.loop->cancel(*patience_);
    if (out_.watched && out_.fd >= 0) around_.loop->unwatch(out_.fd);
    if (error_.watched && error_.fd >= 0) around_.loop->unwatch(error_.fd);
    if (in_.watched && in_.fd >= 0) around_.loop->unwatch(in_.fd);
    if (report_) around_.loop->unwatch(report_.get());
    if (child_.pidfd) {
        around_.loop->unwatch(child_.pidfd.get());
        if (!ended_) dispose(child_);
    }
}

Result<> Execution::open_streams(const wire::Exec& exec, os::Fd (&child_ends)[3]) {
    if (exec.terminal()) {
        auto terminal = CAISSON_TRY(around_.container->open_terminal());
        terminal_ = std::move(terminal.master);
        child_ends[0] = CAISSON_TRY(terminal.slave.duplicate());
        child_ends[1] = CAISSON_TRY(terminal.slave.duplicate());
        child_ends[2] = std::move(terminal.slave);
        out_.fd = terminal_.get();
        if (exec.stdin_open()) in_.fd = terminal_.get();
        if (exec.rows() > 0 || exec.columns() > 0) resize(exec.rows(), exec.columns());
        return {};
    }
    Output* outputs[] = {&out_, &error_};
    for (int i = 0; i < 2; ++i) {
        auto pipe = CAISSON_TRY(os::make_pipe());
        CAISSON_TRY(os::set_nonblocking(pipe.first.get(), true));
        ::fcntl(pipe.first.get(), F_SETPIPE_SZ, kPipeBytes);
        outputs[i]->fd = pipe.first.get();
        outputs[i]->own = std::move(pipe.first);
        child_ends[i + 1] = std::move(pipe.second);
    }
    if (!exec.stdin_open()) {
        child_ends[0] = CAISSON_TRY(around_.container->null().duplicate());
        return {};
    }
    auto pipe = CAISSON_TRY(os::make_pipe());
    CAISSON_TRY(os::set_nonblocking(pipe.second.get(), true));
    in_.fd = pipe.second.get();
    in_.own = std::move(pipe.second);
    child_ends[0] = std::move(pipe.first);
    return {};
}

Result<> Execution::watch_child() {
    CAISSON_TRY(around_.loop->watch(report_.get(), EPOLLIN, [this](std::uint32_t) { read_report(); }));
    return around_.loop->watch(child_.pidfd.get(), EPOLLIN, [this](std::uint32_t) { process_ended(); });
}

void Execution::read_report() {
    if (!report_) return;
    for (;;) {
        std::uint8_t buffer[kMaxReportBytes];
        ssize_t got = ::read(report_.get(), buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) break;
        if (report_bytes_.size() < kMaxReportBytes) report_bytes_.insert(report_bytes_.end(), buffer, buffer + got);
    }
    around_.loop->unwatch(report_.get());
    report_.reset();
    auto report = parse_launch_report(report_bytes_);
    wire::FromAgent message;
    if (report.failed) {
        failed_to_start_ = true;
        auto* failed = message.mutable_start_failed();
        failed->set_id(id_);
        failed->set_kind(report.kind);
        failed->set_error_number(report.error_number);
        failed->set_message(report.message);
    } else {
        auto* started = message.mutable_started();
        started->set_id(id_);
        started->set_pid(report.pid);
    }
    around_.port->send(message);
    // A terminal has one output; the other one ends before it begins.
    if (!failed_to_start_ && terminal_) wire::append_eof(around_.port->out(), error_.stream);
    update_watches();
}

bool Execution::readable(const Output& output) const {
    // Nothing of a command's output goes out before it was reported as started.
    return output.fd >= 0 && !report_ && !failed_to_start_ && output.window.available() > 0 &&
           around_.port->backlog() < Port::kHighWater;
}

void Execution::pump(Output& output) {
    std::uint8_t buffer[wire::kMaxDataBytes];
    for (int turn = 0; readable(output) && (output.budget || turn < kTurn); ++turn) {
        std::size_t wanted = std::min<std::size_t>(kReadBytes, output.window.available());
        if (output.budget) wanted = std::min(wanted, *output.budget);
        ssize_t got = wanted == 0 ? 0 : ::read(output.fd, buffer + wire::kHeaderBytes, wanted);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN && !output.budget) return;
        if (got <= 0) {  // end of file, EIO from a terminal without users, or nothing left after the process's end
            end(output);
            return;
        }
        auto count = static_cast<std::uint32_t>(got);
        output.window.consume(count);
        if (output.budget) *output.budget -= count;
        wire::store_header(buffer, count, output.stream, wire::FrameType::kData);
        ByteView frame(buffer, wire::kHeaderBytes + count);
        if (count >= kLargeBytes)
            around_.port->send_frame(frame);
        else
            around_.port->out().insert(around_.port->out().end(), frame.begin(), frame.end());
    }
}

void Execution::end(Output& output) {
    if (output.watched) around_.loop->unwatch(output.fd);
    output.watched = false;
    output.fd = -1;
    output.own.reset();
    wire::append_eof(around_.port->out(), output.stream);
    try_finish();
}

Result<> Execution::data(const wire::FrameView& frame) {
    const auto channel = wire::channel_of(frame.stream);
    if (frame.type == wire::FrameType::kEof && (channel == wire::Channel::kStdout || channel == wire::Channel::kStderr)) {
        // Whoever read this stream is gone. The command learns it as from any pipe: by SIGPIPE when it writes again.
        auto& output = channel == wire::Channel::kStdout ? out_ : error_;
        if (output.own) end(output);
        return {};
    }
    if (channel != wire::Channel::kStdin)
        return failure(Errc::kProtocol, "the host sent data on an output stream");
    if (in_.eof) return failure(Errc::kProtocol, "the host sent data behind the end of a stream");
    if (frame.type == wire::FrameType::kEof) {
        in_.eof = true;
        if (terminal_ && in_.fd >= 0) in_.held.push_back(kEndOfTransmission);
        write_input();
        return {};
    }
    CAISSON_TRY(in_.window.receive(frame.payload.size()));
    in_.held.insert(in_.held.end(), frame.payload.begin(), frame.payload.end());
    write_input();
    return {};
}

void Execution::write_input() {
    std::size_t before = in_.written;
    while (in_.fd >= 0 && in_.written < in_.held.size()) {
        ssize_t put = ::write(in_.fd, in_.held.data() + in_.written, in_.held.size() - in_.written);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0 && errno == EAGAIN) break;
        if (put < 0) {  // EPIPE: nobody reads any more
            drop_input();
            break;
        }
        in_.written += static_cast<std::size_t>(put);
    }
    if (in_.fd < 0) in_.written = in_.held.size();
    // The end-of-transmission character was not the host's, so nothing is credited for it.
    std::size_t consumed = std::min<std::size_t>(in_.written - before, in_.window.held());
    if (std::uint32_t grant = in_.window.consume(consumed); grant > 0)
        wire::append_credit(around_.port->out(), wire::stream_of(id_, wire::Channel::kStdin), grant);
    if (in_.written == in_.held.size()) {
        in_.held.clear();
        in_.written = 0;
        if (in_.eof) drop_input();
    } else if (in_.written >= wire::kInitialCredit / 2) {
        in_.held.erase(in_.held.begin(), in_.held.begin() + static_cast<std::ptrdiff_t>(in_.written));
        in_.written = 0;
    }
    update_watches();
}

void Execution::drop_input() {
    if (in_.watched) around_.loop->unwatch(in_.fd);
    in_.watched = false;
    in_.fd = -1;
    in_.own.reset();
}

Result<> Execution::credit(const wire::FrameView& frame) {
    if (wire::channel_of(frame.stream) == wire::Channel::kStdin)
        return failure(Errc::kProtocol, "the host granted credit for its own stream");
    auto& output = wire::channel_of(frame.stream) == wire::Channel::kStdout ? out_ : error_;
    CAISSON_TRY(output.window.add(wire::credit_of(frame)));
    port_drained();
    return {};
}

void Execution::port_drained() {
    // After the process's end no event announces what is left.
    if (out_.budget) pump(out_);
    if (error_.budget) pump(error_);
    update_watches();
}

void Execution::set_watch(int fd, std::uint32_t events, bool& watched, void (Execution::*ready)(std::uint32_t)) {
    if (events == 0) {
        // Paused by leaving it: a hang-up of a descriptor that is watched for nothing would be told again and again.
        if (watched) around_.loop->unwatch(fd);
        watched = false;
        return;
    }
    auto done = watched ? around_.loop->modify(fd, events)
                        : around_.loop->watch(fd, events, [this, ready](std::uint32_t got) { (this->*ready)(got); });
    if (done)
        watched = true;
    else
        log_failure(done.error().to_string());
}

void Execution::update_watches() {
    auto reads = [this](const Output& output) { return readable(output) && !output.budget ? EPOLLIN : 0U; };
    bool writes = in_.fd >= 0 && in_.written < in_.held.size();
    if (terminal_) {
        // One descriptor in both directions, with one watch.
        std::uint32_t events = reads(out_) | (writes ? static_cast<std::uint32_t>(EPOLLOUT) : 0U);
        set_watch(terminal_.get(), events, out_.watched, &Execution::terminal_ready);
        return;
    }
    if (out_.fd >= 0) set_watch(out_.fd, reads(out_), out_.watched, &Execution::out_ready);
    if (error_.fd >= 0) set_watch(error_.fd, reads(error_), error_.watched, &Execution::error_ready);
    if (in_.fd >= 0) set_watch(in_.fd, writes ? EPOLLOUT : 0U, in_.watched, &Execution::in_ready);
}

void Execution::out_ready(std::uint32_t) {
    pump(out_);
    update_watches();
}

void Execution::error_ready(std::uint32_t) {
    pump(error_);
    update_watches();
}

void Execution::in_ready(std::uint32_t) { write_input(); }

void Execution::terminal_ready(std::uint32_t events) {
    if (events & EPOLLOUT) write_input();
    if (events & EPOLLHUP) drop_input();
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) pump(out_);
    update_watches();
}

void Execution::process_ended() {
    if (ended_) return;
    read_report();
    if (::waitpid(child_.pid, &status_, WNOHANG) != child_.pid) return;
    ended_ = true;
    around_.loop->unwatch(child_.pidfd.get());
    if (failed_to_start_) {
        finished_ = true;
        around_.finished(id_);
        return;
    }
    if (main_) {
        // Usually nobody else holds the pipes: then the end is told before the rest of the container is killed, which
        // takes a while.
        pump(out_);
        pump(error_);
        try_finish();
        around_.port->flush();
        around_.main_ended();
        if (finished_) return;
        patience_ = around_.loop->after(kMainPatience, [this] {
            patience_.reset();
            send_what_is_there();
        });
    } else {
        send_what_is_there();
    }
}

void Execution::send_what_is_there() {
    for (auto* output : {&out_, &error_}) {
        if (output->fd < 0) continue;
        int bytes = 0;
        if (terminal_)
            output->budget = kTerminalBytes;
        else
            output->budget = ::ioctl(output->fd, FIONREAD, &bytes) == 0 ? static_cast<std::size_t>(bytes) : 0;
    }
    port_drained();
    try_finish();
}

void Execution::try_finish() {
    bool streams_ended = out_.fd < 0 && error_.fd < 0;
    if (!ended_ || !streams_ended || finished_) return;
    finished_ = true;
    if (patience_) around_.loop->cancel(*patience_);
    patience_.reset();
    wire::FromAgent message;
    auto* exited = message.mutable_exited();
    exited->set_id(id_);
    exited->set_signalled(WIFSIGNALED(status_));
    exited->set_code(WIFSIGNALED(status_) ? WTERMSIG(status_) : WEXITSTATUS(status_));
    // A SIGKILL that the host did not order; the counter is looked at only then, since each look costs.
    bool unexplained = WIFSIGNALED(status_) && WTERMSIG(status_) == SIGKILL && !killed_;
    exited->set_out_of_memory(unexplained && around_.cgroup->killed_since_last_asked());
    around_.port->send(message);
    around_.finished(id_);
}

Result<> Execution::signal(int number) {
    if (ended_) return {};
    if (number == SIGKILL) {
        killed_ = true;
        // Nobody is left to look after its children: those go with it that stayed in its process group, which nobody else
        // can have while the process has not been waited for.
        ::kill(-child_.pid, SIGKILL);
    }
    if (::syscall(SYS_pidfd_send_signal, child_.pidfd.get(), number, nullptr, 0) != 0 && errno != ESRCH)
        return failure_errno("cannot signal execution " + std::to_string(id_));
    return {};
}

void Execution::resize(std::uint32_t rows, std::uint32_t columns) const {
    if (!terminal_) return;
    winsize size{};
    size.ws_row = static_cast<unsigned short>(std::min(rows, 65535U));
    size.ws_col = static_cast<unsigned short>(std::min(columns, 65535U));
    ::ioctl(terminal_.get(), TIOCSWINSZ, &size);
}

}  // namespace caisson::agent
