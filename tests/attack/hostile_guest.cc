// Speaks for a guest that has turned against its supervisor: answers it as an honest agent would until the command runs,
// and then does something else. It runs in two places:
//
//   in QEMU's place (test_hostile_guest.py): started with QEMU's own arguments, of which it takes only which descriptor is
//   the agent's socket; what it then does is named by /behaviour
//   in the agent's place, as the first process of a guest under the real QEMU (test_hostile_agent.py): what it then does
//   is named by the box's host name
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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
        ssize_t sent = write(agent, at, size);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) wait_for_ever();  // the supervisor does not listen any more; being killed comes next
        at += sent;
        size -= static_cast<size_t>(sent);
    }
}

void get(void* into, size_t size) {
    auto* at = static_cast<char*>(into);
    while (size > 0) {
        ssize_t got = read(agent, at, size);
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

// Bytes of the command's output that may still be sent.
uint64_t output_credit = 256 << 10;
std::string last_message;

// The next control frame's message, as the number of its only field. `credit_is_enough`: 0 for a grant of credit.
int get_message(bool credit_is_enough = false) {
    for (;;) {
        uint8_t header[9];
        get(header, sizeof header);
        uint32_t length;
        memcpy(&length, header, 4);
        std::string payload(length, '\0');
        get(payload.data(), length);
        uint32_t stream, granted;
        memcpy(&stream, header + 4, 4);
        if (header[8] == kCredit && stream == kStdout && length == 4) {
            memcpy(&granted, payload.data(), 4);
            output_credit += granted;
            if (credit_is_enough) return 0;
        }
        if (header[8] != kControl || length == 0) continue;
        last_message = payload;
        return static_cast<uint8_t>(payload[0]) >> 3;
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

// The part of the box's host name behind this, with '-' for '_'.
const char kNamePrefix[] = "behave-";

std::string behaviour() {
    if (getpid() == 1) {  // the Configure message holds it
        const auto at = last_message.find(kNamePrefix);
        std::string name;
        for (size_t i = at == std::string::npos ? last_message.size() : at + strlen(kNamePrefix); i < last_message.size(); ++i) {
            const char c = last_message[i];
            if (c != '-' && (c < 'a' || c > 'z')) break;
            name += c == '-' ? '_' : c;
        }
        return name;
    }
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
    if (how == "floods_with_noise") {
        uint64_t state = 88172645463325252ULL;
        std::string noise(64 << 10, '\0');
        for (;;) {
            for (auto& c : noise) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                c = static_cast<char>(state);
            }
            put(noise.data(), noise.size());
        }
    }
    if (how == "floods_its_output") {
        // As fast as it is allowed to.
        const std::string line(16 << 10, 'y');
        for (;;) {
            while (output_credit < line.size()) get_message(true);
            output_credit -= line.size();
            put_frame(kStdout, kData, line);
        }
    }
    if (how == "floods_the_console") {
        const std::string line = std::string(200, 'z') + "\n";
        int console = open("/dev/console", O_WRONLY);
        for (;;)
            if (write(console, line.data(), line.size()) < 0) exit(9);
    }
    // Otherwise: says nothing any more, and takes nothing.
    wait_for_ever();
}

// ---- as the first process of a guest ----

void load_modules() {
    FILE* list = fopen("/modules/modules.list", "r");
    char line[256];
    while (list != nullptr && fgets(line, sizeof line, list) != nullptr) {
        line[strcspn(line, "\n")] = 0;
        int module = open((std::string("/modules/") + line).c_str(), O_RDONLY);
        if (module >= 0) syscall(SYS_finit_module, module, "", 0);
        close(module);
    }
}

int open_agent_port() {
    DIR* ports = opendir("/sys/class/virtio-ports");
    while (dirent* entry = ports == nullptr ? nullptr : readdir(ports)) {
        const std::string name = entry->d_name;
        char label[16] = {};
        int fd = open(("/sys/class/virtio-ports/" + name + "/name").c_str(), O_RDONLY);
        if (fd < 0) continue;
        const bool found = read(fd, label, sizeof label - 1) > 0 && strncmp(label, "agent", 5) == 0;
        close(fd);
        if (found) return open(("/dev/" + name).c_str(), O_RDWR);
    }
    if (ports != nullptr) closedir(ports);
    return -1;
}

void boot() {
    for (const char* directory : {"/dev", "/sys"}) mkdir(directory, 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, nullptr);
    mount("sysfs", "/sys", "sysfs", 0, nullptr);
    load_modules();
    for (int i = 0; i < 2000 && agent < 0; ++i) {
        agent = open_agent_port();
        if (agent < 0) usleep(10000);
    }
}

}  // namespace

int main(int argc, char** argv) {
    signal(SIGPIPE, SIG_IGN);
    if (getpid() == 1) boot();
    for (int i = 1; i < argc; ++i) {
        const char* found = strstr(argv[i], "id=agent,fd=");
        if (found != nullptr) agent = atoi(found + strlen("id=agent,fd="));
    }
    if (agent < 0) return 9;
    uint8_t preamble[24];
    get(preamble, sizeof preamble);
    put(preamble, sizeof preamble);
    get_message();
    put_frame(0, kControl, kHello);
    while (get_message() != kConfigureField) {
    }
    const std::string how = behaviour();
    if (how == "writes_before_it_started") put_frame(kStdout, kData, "x");
    if (how == "exits_before_it_started") put_frame(0, kControl, kExited);
    put_frame(0, kControl, kConfigured);
    // A busy host may find its first Configure late, and wants the clock set again before it goes on.
    for (int message = get_message(); message != kExecField; message = get_message())
        if (message == kSetClockField) put_frame(0, kControl, kClockSet);
    put_frame(0, kControl, kStarted);
    behave(how);
}
