#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>

#include "base/text.h"
#include "base/id.h"
#include "box/convert.h"
#include "box/limits.h"
#include "box/supervisor.h"
#include "os/file.h"
#include "os/host.h"
#include "wire/control.h"

namespace caisson::box {

using base::failure;
using std::chrono::milliseconds;

namespace {
// A SIGKILL that the guest does not carry out within this is carried out on its machine.
constexpr milliseconds kKillPatience{5000};
// How long whoever asks for a pause or its end waits for the machine and the guest.
constexpr milliseconds kPausePatience{5000};

}  // namespace

// ---- coming and going ----

// Others of this user find the box's supervisor here.
Result<> Supervisor::listen() {
    if (launch_.without_command()) return {};
    if (!standing_.output_log) standing_.output_log.emplace(CAISSON_TRY(LogWriter::open(launch_.box_directory(), kOutputLog)));
    if (standing_.listener) return {};
    auto directory = CAISSON_TRY(os::open_file(launch_.box_directory(), O_RDONLY | O_DIRECTORY));
    const auto path = shim_socket_path(directory);
    // Of a supervisor that was killed: we hold the box's lock.
    if (::unlinkat(directory.get(), kShimSocket, 0) != 0 && errno != ENOENT) return base::failure_errno("cannot remove an old socket");
    os::Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    struct sockaddr_un address {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), std::min(path.size(), sizeof address.sun_path - 1));
    constexpr int kBacklog = 128;
    if (!socket || ::bind(socket.get(), reinterpret_cast<const struct sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(socket.get(), kBacklog) != 0)
        return base::failure_errno("cannot make the box's socket");
    standing_.listener = std::move(socket);
    return {};
}

Result<> Supervisor::add_client(os::Fd socket, bool launcher) {
    clients_.emplace_back(next_client_++, std::move(socket));
    auto& client = clients_.back();
    client.launcher = launcher;
    return loop_.watch(client.fd.get(), EPOLLIN, [this, &client](std::uint32_t) { on_client(client); });
}

void Supervisor::on_listener() {
    os::Fd socket(::accept4(standing_.listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) return;
    struct ucred peer {};
    socklen_t size = sizeof peer;
    // The directory lets nobody else in; should it ever, this does not.
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != ::geteuid()) return;
    if (!make_room_for_client()) return;
    note(add_client(std::move(socket), false));
}

// Whoever has been doing nothing the longest makes room.
bool Supervisor::make_room_for_client() {
    if (clients_.size() < limits::kMostClients) return true;
    for (auto& client : clients_) {
        bool idle = !client.broken && !client.launcher;
        for (auto& [number, execution] : executions_) idle = idle && execution->attachment_of(client) == nullptr;
        if (!idle) continue;
        client_gone(client);
        return true;
    }
    return false;
}

void Supervisor::on_client(Client& client) {
    if (client.broken) return;
    auto read = read_client(client);
    if (!read) client_gone(client);
    flush(client);
    guard_guest(flush_agent());
}

Result<> Supervisor::read_client(Client& client) {
    const bool open = CAISSON_TRY(client.connection.fill());
    while (auto frame = CAISSON_TRY(client.connection.next())) {
        if (client.broken) return {};
        if (frame->type == wire::FrameType::kControl) {
            wire::ToShim message;
            if (!message.ParseFromArray(frame->payload.data(), static_cast<int>(frame->payload.size())))
                return failure(Errc::kProtocol, "the client sent something that is not a message");
            CAISSON_TRY(on_client_message(client, message));
        } else {
            CAISSON_TRY(stream_from_client(client, *frame));
        }
    }
    if (!open) client_gone(client);
    return {};
}

void Supervisor::client_gone(Client& client) {
    if (client.broken) return;
    client.broken = true;
    loop_.unwatch(client.fd.get());
    std::erase(awaiting_pause_, &client);
    std::erase(awaiting_resume_, &client);
    std::vector<std::uint32_t> orphans;
    for (auto& [number, execution] : executions_) {
        auto* attachment = execution->attachment_of(client);
        if (attachment == nullptr) continue;
        const bool orphan = attachment->starter && !execution->detached && number != kMainExecution;
        if (orphan) orphans.push_back(number);
        execution->attachments.erase(execution->attachments.begin() + (attachment - execution->attachments.data()));
        regrant_all(*execution);
    }
    // As a shell's jobs end with their terminal: nobody waits for it, and nobody would find it.
    for (auto number : orphans) {
        guard_guest(signal_execution(number, SIGKILL, false));
        if (auto* orphan = find_execution(number)) abandon(*orphan, {});
    }
    if (client.launcher && !launch_.detached()) {
        stop_asked_ = true;
        end(wire::Ended::SIGNALLED, SIGKILL, "the process that started the box went away");
    }
    arm_idle_timer();
}

// Not while one of them is being served: they are referred to until the round of the loop is over.
void Supervisor::sweep_clients() {
    clients_.remove_if([](const Client& client) { return client.broken; });
}

void Supervisor::send(Client& client, const wire::FromShim& message) {
    std::string payload;
    if (client.broken || !message.SerializeToString(&payload)) return;
    if (payload.size() > wire::kMaxControlBytes) return refuse(client, because(Errc::kLimit, "the answer is too large"));
    wire::append_frame(client.connection.out(), 0, wire::FrameType::kControl, base::as_bytes(payload));
    flush(client);
}

void Supervisor::flush(Client& client) {
    if (client.broken) return;
    if (client.connection.flush()) {
        note(loop_.modify(client.fd.get(), client.connection.wanted_events(true)));
        return;
    }
    // It may be in the middle of being served, and of a walk over those that are.
    loop_.after(milliseconds(0), [this, number = client.number] {
        for (auto& gone : clients_)
            if (gone.number == number) client_gone(gone);
    });
}

void Supervisor::refuse(Client& client, const Error& error) {
    wire::FromShim message;
    to_message(error, *message.mutable_error());
    send(client, message);
}

void Supervisor::answer(std::uint64_t number, const std::optional<Error>& error) {
    for (auto& client : clients_) {
        if (client.number != number || client.broken) continue;
        if (error) return refuse(client, *error);
        wire::FromShim done;
        done.mutable_done();
        return send(client, done);
    }
}

bool Supervisor::watched_by_somebody() const {
    for (const auto& [number, execution] : executions_) {
        if (number != kMainExecution) {
            if (!execution->on_end && !execution->abandoned) return true;
            continue;
        }
        for (const auto& attachment : execution->attachments)
            if (attachment.streams.output) return true;
    }
    return false;
}

// ---- what they say ----

Result<> Supervisor::stream_from_client(Client& client, const wire::FrameView& frame) {
    const auto number = wire::execution_of(frame.stream);
    auto* execution = find_execution(number);
    if (execution == nullptr) {
        // Of one that has just ended: late, not wrong.
        if (number > 0 && number < next_execution_) return {};
        return failure(Errc::kProtocol, "the client wrote to a stream that does not exist");
    }
    auto* attachment = execution->attachment_of(client);
    if (attachment == nullptr) return failure(Errc::kProtocol, "the client wrote to a stream that is not its own");
    CAISSON_TRY_CTX(execution->rules.from_client(attachment->streams, frame), "the client");
    if (agent_closed_ || (!agent_ && phase_ != Phase::kStarting)) return {};
    auto& out = agent_ ? agent_->out() : early_input_;
    const auto channel = wire::channel_of(frame.stream);
    if (channel == wire::Channel::kStdin) {
        wire::append_frame(out, frame.stream, frame.type, frame.payload);
    } else if (frame.type == wire::FrameType::kEof && attachment->starter && !execution->detached &&
               !(number == kMainExecution && launch_.detached())) {
        // Whoever started it reads no more: it learns that as from a pipe of its own.
        wire::append_frame(out, frame.stream, frame.type, frame.payload);
    } else {
        regrant(*execution, channel);
    }
    return {};
}

Result<> Supervisor::on_client_message(Client& client, wire::ToShim& message) {
    if (message.has_hello()) {
        client.greeted = message.hello().version_major() == wire::kVersionMajor;
        wire::FromShim answer;
        answer.mutable_hello()->set_version_major(wire::kVersionMajor);
        answer.mutable_hello()->set_version_minor(wire::kVersionMinor);
        send(client, answer);
        return {};
    }
    if (!client.greeted) return failure(Errc::kProtocol, "the client did not say hello first");
    switch (message.message_case()) {
        case wire::ToShim::kStop:
            stop_asked_ = true;
            end(wire::Ended::SIGNALLED, message.stop().signal() > 0 ? message.stop().signal() : SIGKILL,
                "the box was stopped");
            return {};
        case wire::ToShim::kSignal: {
            const auto number = message.signal().id() == 0 ? kMainExecution : message.signal().id();
            const int signal = message.signal().signal();
            if (signal < 1 || signal > 64) return failure(Errc::kProtocol, "the client sent an impossible signal");
            auto* execution = find_execution(number);
            if (number == kMainExecution && signal == SIGKILL && phase_ < Phase::kRunning) {
                stop_asked_ = true;
                end(wire::Ended::SIGNALLED, SIGKILL, "it was killed");
                return {};
            }
            if (execution == nullptr || execution->state != LiveExecution::State::kRunning) return {};
            if (paused_ && signal == SIGKILL) resume(nullptr);
            if (waits_for_room() && signal == SIGKILL && number == kMainExecution) let_run();
            // A guest that does not take its messages gets no more of them.
            if (!agent_closed_ && agent_->queued_bytes() <= most_agent_queue()) guard_guest(signal_execution(number, signal, false));
            if (number == kMainExecution && signal == SIGKILL) {
                record(actor_of(client), "box_kill_requested", {});
                no_restart_ = true;
                loop_.after(kKillPatience, [this] { end(wire::Ended::SIGNALLED, SIGKILL, "the box was killed"); });
            }
            return {};
        }
        case wire::ToShim::kResize: {
            const auto number = message.resize().id() == 0 ? kMainExecution : message.resize().id();
            auto* execution = find_execution(number);
            if (execution == nullptr || execution->state != LiveExecution::State::kRunning || agent_closed_) return {};
            wire::ToAgent resize;
            *resize.mutable_resize() = message.resize();
            resize.mutable_resize()->set_id(number);
            if (agent_->queued_bytes() <= most_agent_queue()) guard_guest(send_to_agent(resize));
            return {};
        }
        case wire::ToShim::kDetach: let_go(client); return {};
        case wire::ToShim::kStartExecution: return start_execution(client, *message.mutable_start_execution());
        case wire::ToShim::kAttach: attach(client, message.attach()); return {};
        case wire::ToShim::kStopBox: request_stop(client, message.stop_box()); return {};
        case wire::ToShim::kPause: pause(client); return {};
        case wire::ToShim::kResume: resume(&client); return {};
        case wire::ToShim::kStatus: status(client); return {};
        case wire::ToShim::kChangeVolumes: change_volumes(client, message.change_volumes()); return {};
        case wire::ToShim::kUpdateBox: update_box(client, message.update_box()); return {};
        default: return failure(Errc::kProtocol, "the client sent an unexpected message");
    }
}

Result<> Supervisor::start_execution(Client& client, wire::StartExecution& request) {
    const bool takes_out = request.exec().has_copy() && request.exec().copy().direction() == wire::Copy::OUT;
    auto refused = [&]() -> std::optional<Error> {
        if (phase_ >= Phase::kEnding || !stop_reason_.empty())
            return because(Errc::kInUse, "the box is stopping");
        if (phase_ < Phase::kRunning) return because(Errc::kInUse, "the box is starting");
        if (paused_) return because(Errc::kInUse, "the box is paused");
        if (waits_for_room() && !takes_out) return no_room();
        if (executions_.size() >= limits::kMostExecutions)
            return because(Errc::kLimit, "more than " + std::to_string(limits::kMostExecutions) + " commands at once in one box");
        if (request.detached() && (!base::is_ulid(request.id()) || !standing_.database))
            return because(Errc::kUsage, "'" + base::printable(request.id(), 64) + "' cannot be an execution's id");
        return std::nullopt;
    }();
    if (refused) {
        refuse(client, *refused);
        return {};
    }
    auto& execution = add_execution();
    execution.id = request.id();
    execution.detached = request.detached();
    execution.command = shown_command(request.exec());
    execution.stdin_open = request.exec().stdin_open();
    execution.terminal = request.exec().terminal();
    execution.timeout_ms = request.timeout_ms();
    execution.user = request.exec().user();
    execution.privileged = request.exec().privileges().privileged();
    execution.copies = request.exec().has_copy();
    execution.takes_out = takes_out;
    execution.actor = actor_of(client);
    LiveExecution::Attachment attachment;
    attachment.client = &client;
    attachment.starter = true;
    attachment.streams = execution.rules.join(!request.detached(), request.exec().stdin_open() && !request.detached());
    execution.attachments.push_back(attachment);
    loop_.cancel(std::exchange(idle_timer_, 0));
    arm_timeout(execution);
    request.mutable_exec()->set_main(false);
    if (waits_for_room()) hold_for_copies();
    guard_guest(ask_for_execution(execution, std::move(*request.mutable_exec())));
    return {};
}

void Supervisor::attach(Client& client, const wire::Attach& request) {
    LiveExecution* found = nullptr;
    for (auto& [number, execution] : executions_) {
        const bool command = number == kMainExecution;
        if (execution->abandoned) continue;
        if (request.execution().empty() ? command : !command && execution->id == request.execution()) found = execution.get();
    }
    if (found == nullptr || found->attachment_of(client) != nullptr) {
        wire::FromShim message;
        message.mutable_no_such_execution();
        send(client, message);
        return;
    }
    const bool input = request.input() && found->stdin_open && !found->has_input_holder() && !found->rules.input_ended();
    LiveExecution::Attachment attachment;
    attachment.client = &client;
    attachment.streams = found->rules.join(request.output(), input);
    found->attachments.push_back(attachment);
    auto& log = found->number == kMainExecution ? standing_.output_log : found->log;
    wire::FromShim opened;
    auto* open = opened.mutable_execution_open();
    open->set_number(found->number);
    open->set_id(found->id);
    open->set_input(input);
    open->set_input_credit(found->rules.input_credit());
    open->set_log_position(log ? log->position() : 0);
    open->set_terminal(found->terminal);
    send(client, opened);
    arm_idle_timer();
}

// The launcher of an attached box listens to its command from the beginning.
void Supervisor::open_for(Client& client, LiveExecution& execution, bool input) {
    LiveExecution::Attachment attachment;
    attachment.client = &client;
    attachment.starter = true;
    attachment.streams = execution.rules.join(true, input);
    execution.attachments.push_back(attachment);
}

// It leaves what it is attached to, which goes on without it.
void Supervisor::let_go(Client& client) {
    for (auto& [number, execution] : executions_) {
        auto* attachment = execution->attachment_of(client);
        if (attachment == nullptr) continue;
        const bool starter = attachment->starter;
        execution->attachments.erase(execution->attachments.begin() + (attachment - execution->attachments.data()));
        if (starter && number == kMainExecution) launch_.set_detached(true);
        else if (starter) detach_execution(*execution);
        regrant_all(*execution);
    }
    client.launcher = false;
    wire::FromShim message;
    message.mutable_detached();
    send(client, message);
    arm_idle_timer();
}

// From now on others find it by its record, and its log keeps what it writes.
void Supervisor::detach_execution(LiveExecution& execution) {
    execution.detached = true;
    if (!standing_.database || execution.id.empty()) return;
    note(standing_.database->insert_execution({execution.id, launch_.box_id(), command_json(execution.command), true, execution.started_ms, {}}));
    auto log = LogWriter::open(launch_.box_directory(), execution_log(execution.id));
    if (log) execution.log.emplace(std::move(*log));
    else note(base::failure(std::move(log.error())));
}

void Supervisor::request_stop(Client& client, const wire::StopBox& request) {
    auto* command = find_execution(kMainExecution);
    if (command != nullptr && command->attachment_of(client) == nullptr) {
        LiveExecution::Attachment attachment;  // to hear the end
        attachment.client = &client;
        attachment.streams = command->rules.join(false, false);
        command->attachments.push_back(attachment);
    }
    if (standing_.database) note(standing_.database->set_stop_requested(launch_.box_id()));
    record(actor_of(client), "box_stop_requested", {});
    const auto grace = request.has_grace_ms() ? request.grace_ms() : launch_.spec().stop_timeout_ms();
    begin_stop(milliseconds(grace), "it was stopped");
}

void Supervisor::pause(Client& client) {
    if (phase_ != Phase::kRunning || !stop_reason_.empty())
        return refuse(client, because(Errc::kInUse, "only a box that runs can be paused"));
    if (waits_for_room()) return refuse(client, no_room());
    if (paused_) return refuse(client, because(Errc::kInUse, "the box is paused already"));
    awaiting_pause_.push_back(&client);
    pauser_ = actor_of(client);
    note(send_qmp("stop"));
    loop_.after(kPausePatience, [this, number = client.number] {
        give_up_waiting(awaiting_pause_, number, "the virtual machine does not say that it is paused");
    });
}

// A guest or a machine that does not answer keeps nobody waiting.
void Supervisor::give_up_waiting(std::vector<Client*>& waiting, std::uint64_t client, const std::string& what) {
    for (auto* one : waiting) {
        if (one->number != client) continue;
        std::erase(waiting, one);
        return refuse(*one, because(Errc::kTimeout, what));
    }
}

void Supervisor::resume(Client* client) {
    if (!paused_) {
        if (client != nullptr)
            refuse(*client, waits_for_room() ? no_room() : because(Errc::kInUse, "the box is not paused"));
        return;
    }
    resumer_ = client != nullptr ? actor_of(*client) : audit::this_actor();
    note(send_qmp("cont"));
    if (client == nullptr) return;
    awaiting_resume_.push_back(client);
    loop_.after(kPausePatience, [this, number = client->number] {
        give_up_waiting(awaiting_resume_, number, "the box goes on, but its guest does not say that its clock was set");
    });
}

void Supervisor::status(Client& client) {
    wire::FromShim message;
    auto* status = message.mutable_status();
    status->set_vmm_pid(vm_.pid);
    *status->mutable_shape() = launch_.shape();
    status->set_detached(launch_.detached());
    status->set_network_died(vm_.network_died);
    status->set_network_changes(true);
    *status->mutable_ports() = vm_.ports.ports();
    for (const auto& [number, execution] : executions_) {
        if (number == kMainExecution) {
            status->set_command_pid(execution->pid);
            status->set_clients(static_cast<std::uint32_t>(execution->attachments.size()));
            continue;
        }
        if (execution->on_end || execution->abandoned) continue;
        auto* live = status->add_executions();
        live->set_id(execution->id);
        for (const auto& word : execution->command) live->add_command(word);
        live->set_started_ms(execution->started_ms);
        live->set_pid(execution->pid);
        live->set_detached(execution->detached);
        live->set_clients(static_cast<std::uint32_t>(execution->attachments.size()));
    }
    send(client, message);
}

}  // namespace caisson::box
