// An execution as its box's supervisor sees it: the streams of one process in the guest, who listens to them, and the
// log that keeps them.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "audit/event.h"
#include "box/log.h"
#include "box/stream_rules.h"
#include "os/loop.h"
#include "wire/shim.pb.h"

namespace caisson::box {

struct Client;

// Lives in the supervisor's table, on its thread, from the request until the guest has said how it ended.
struct LiveExecution {
    enum class State { kAsked, kRunning };
    struct Attachment {
        Client* client = nullptr;  // in the supervisor's list as long as this exists
        ClientStreams streams;
        bool starter = false;      // it asked for the execution, which ends with it unless that is detached
    };

    explicit LiveExecution(std::uint32_t execution_number) : number(execution_number), rules(execution_number) {}

    std::uint32_t number;
    std::string id;                    // empty: the box's command, or one of the supervisor's own
    std::vector<std::string> command;  // for people, see shown_command()
    State state = State::kAsked;
    bool detached = false;
    // It was told to die and nobody waits for that any more: what the guest still says of it is heard and forgotten.
    bool abandoned = false;
    bool stdin_open = false;
    bool terminal = false;
    bool timed_out = false;
    std::uint32_t timeout_ms = 0;
    std::int64_t started_ms = 0;
    // For the journal.
    audit::Actor actor;                // who asked for it
    std::string user;                  // that was asked for
    bool privileged = false;
    bool copies = false;               // files, by the agent itself; the client records those
    bool takes_out = false;            // such files, out of the box
    std::chrono::steady_clock::time_point begun;  // its start was recorded then, and its end was not yet
    std::int32_t pid = 0;              // in the guest
    StreamRules rules;
    std::vector<Attachment> attachments;
    std::optional<LogWriter> log;
    os::Loop::TimerId timer = 0;
    std::function<void(const wire::ExecutionEnded&)> on_end;  // of the supervisor's own

    Attachment* attachment_of(const Client& client) {
        for (auto& attachment : attachments)
            if (attachment.client == &client) return &attachment;
        return nullptr;
    }
    bool has_input_holder() const {
        for (const auto& attachment : attachments)
            if (attachment.streams.input) return true;
        return false;
    }
    // `only_starter`: of those that listen only the one that the execution belongs to.
    std::vector<const ClientStreams*> listeners(bool only_starter) const {
        std::vector<const ClientStreams*> streams;
        for (const auto& attachment : attachments)
            if (attachment.starter || !only_starter) streams.push_back(&attachment.streams);
        return streams;
    }
};

// The words of a command, as far as records and status keep them.
std::vector<std::string> shown_command(const wire::Exec& exec);

}  // namespace caisson::box
