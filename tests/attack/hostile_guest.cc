// Speaks for a guest that has taken over QEMU: a program in QEMU's place that answers the supervisor as an honest agent
// would until the command runs, and then does what /behaviour names. test_hostile_guest.py knows what must come of it.
//
// It is started with QEMU's own arguments and takes from them only which descriptor is the agent's socket.
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace {

// Of wire/frame.h, which a peer of ours need not be built from.
constexpr uint8_t kControl = 1, kData = 2, kEof = 3, kCredit = 4;
constexpr uint32_t kStdin = 4, kStdout = 5;

int agent = -1;

[[noreturn]] void wait_for_ever() {
    for (;;) pause();
}

void put(const void* bytes, size_t size) {
    auto* at = static_cast<const char*>(bytes);
    while (size > 0) {
        ssize_t sent = send(agent, at, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) wait_for_ever();  // the supervisor does not listen any more; being killed comes next
        at += sent;
        size -= static_cast<size_t>(sent);
    }
}

void get(void* into, size_t size) {
    auto* at = static_cast<char*>(into);
    while (size > 0) {
        ssize_t got = recv(agent, at, size, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) wait_for_ever();
        at += got;
        size -= static_cast<size_t>(got);
    }
}

void put_frame(uint32_t stream, uint8_t type, const std::string& payload) {
    auto length = static_cast<uint32_t>(payload.size());
    std::string frame(9, '\0');
    memcpy(&frame[0], &length, 4);
    memcpy(&frame[4], &stream, 4);
    frame[8] = static_cast<char>(type);
    put((frame + payload).data(), frame.size() + payload.size());
}

// The next control frame's message, as the number of its only field.
int get_message() {
    for (;;) {
        uint8_t header[9];
        get(header, sizeof header);
        uint32_t length;
        memcpy(&length, header, 4);
        std::string payload(length, '\0');
        get(payload.data(), length);
        if (header[8] == kControl && length > 0) return static_cast<uint8_t>(payload[0]) >> 3;
    }
}

void put_credit(uint32_t bytes) { put_frame(kStdin, kCredit, std::string(reinterpret_cast<char*>(&bytes), 4)); }

std::string field(int number, const std::string& message) {
    return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(message.size())} + message;
}

// FromAgent's messages; see wire/agent.proto.
const std::string kHello = field(1, std::string("\x08\x01", 2));
const std::string kConfigured = field(2, "");
const std::string kStarted = field(4, std::string("\x08\x01", 2));
const std::string kExited = field(6, std::string("\x08\x01", 2));
const std::string kClockSet = field(9, "");
constexpr int kConfigureField = 2, kExecField = 3, kSetClockField = 8;

std::string behaviour() {
    char text[64] = {};
    int fd = open("/behaviour", O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0) exit(9);
    return text;
}

void behave(const std::string& how) {
    if (how == "ends_a_stream_for_ever")
        for (;;) put_frame(kStdout, kEof, "");
    if (how == "wants_input_without_end")
        for (;;) put_credit(64 << 10);
    if (how == "repeats_that_it_started")
        for (;;) put_frame(0, kControl, kStarted);
    if (how == "starts_what_it_is_asked_for") {
        // And says no more of it.
        while (get_message() != kExecField) {
        }
        put_frame(0, kControl, field(4, std::string("\x08\x02", 2)));
    }
    if (how == "ends_what_never_was") put_frame(0, kControl, field(6, std::string("\x08\x09", 2)));
    if (how == "starts_what_never_was") put_frame(0, kControl, field(4, std::string("\x08\x09", 2)));
    if (how == "fails_what_never_was") put_frame(0, kControl, field(5, std::string("\x08\x09", 2)));
    if (how == "writes_as_another") put_frame(9 * 4 + 1, kData, "x");
    if (how == "sets_a_clock_unasked") put_frame(0, kControl, kClockSet);
    if (how == "writes_without_credit")
        for (;;) put_frame(kStdout, kData, std::string(32 << 10, 'x'));
    if (how == "sends_nonsense") {
        const std::string nonsense(100, '\xff');
        put(nonsense.data(), nonsense.size());
    }
    if (how == "closes_its_channel") close(agent);
    // Otherwise: says nothing any more, and takes nothing.
    wait_for_ever();
}

}  // namespace

int main(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        const char* found = strstr(argv[i], "id=agent,fd=");
        if (found != nullptr) agent = atoi(found + strlen("id=agent,fd="));
    }
    if (agent < 0) return 9;
    const std::string how = behaviour();
    uint8_t preamble[24];
    get(preamble, sizeof preamble);
    put(preamble, sizeof preamble);
    get_message();
    put_frame(0, kControl, kHello);
    while (get_message() != kConfigureField) {
    }
    if (how == "writes_before_it_started") put_frame(kStdout, kData, "x");
    if (how == "exits_before_it_started") put_frame(0, kControl, kExited);
    put_frame(0, kControl, kConfigured);
    // A busy host may find its first Configure late, and wants the clock set again before it goes on.
    for (int message = get_message(); message != kExecField; message = get_message())
        if (message == kSetClockField) put_frame(0, kControl, kClockSet);
    put_frame(0, kControl, kStarted);
    behave(how);
}
