// caisson-enter: the last step into a jail. bubblewrap cannot mount under Landlock, so this runs behind it: it forbids
// itself everything but its jail's files, TCP, and signals and abstract sockets of others, then becomes the program that
// it was asked for. It is the only thing that runs in a jail before that program.
//
//   caisson-enter [--tcp] [--receive FD] [WRITABLE]... -- PROGRAM [ARGUMENT]...
//
// With --receive, FD is a socket at first (SOCK_SEQPACKET) and becomes the one descriptor that comes over it: what takes
// time to make need not be there before the jail is. Everything below / may be read and executed; writable files may be written to, and in writable directories files be
// made, renamed and removed; --tcp leaves TCP alone. On a kernel without Landlock the
// program starts all the same; `caisson doctor` and `inspect` say so.
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/text.h"
#include "os/fd.h"
#include "os/landlock.h"

namespace {

using namespace caisson;

constexpr int kCannotEnter = 126;
constexpr std::uint64_t kMostDescriptor = 1023;
// Of these a file takes what files have.
constexpr std::uint64_t kWritable = os::landlock::kReadFile | os::landlock::kReadDirectory | os::landlock::kWriteFile |
                                    os::landlock::kTruncate | os::landlock::kMakeFile | os::landlock::kRemoveFile;

// In the place of the socket; waits for it. The other end is closed by who has nothing to send, or is dead.
bool receive(int socket) {
    char word;
    auto packet = os::receive_packet(socket, {&word, 1});
    return packet.length == 1 && !packet.cut && packet.descriptors.size() == 1 && ::dup2(packet.descriptors[0].get(), socket) == socket;
}

int refuse(const std::string& why) {
    const std::string text = "caisson-enter: " + why + "\n";
    static_cast<void>(!::write(STDERR_FILENO, text.data(), text.size()));
    return kCannotEnter;
}

}  // namespace

int main(int argc, char** argv) {
    namespace right = os::landlock;
    os::Landlock rules{.rules = {{"/", -1, right::kReadFile | right::kReadDirectory | right::kExecute}}};
    int at = 1;
    if (at < argc && std::string(argv[at]) == "--tcp") {
        rules.forbid_tcp = false;
        ++at;
    }
    int received = -1;
    if (at + 1 < argc && std::string(argv[at]) == "--receive") {
        const auto number = base::parse_u64(argv[at + 1]);
        if (!number || *number > kMostDescriptor) return refuse("--receive names no descriptor");
        received = static_cast<int>(*number);
        at += 2;
    }
    for (; at < argc && std::string(argv[at]) != "--"; ++at)
        rules.rules.push_back({argv[at], -1, kWritable});
    if (at + 1 >= argc) return refuse("it is started by caisson; it has no use of its own");
    if (auto applied = os::restrict_self(rules); !applied) return refuse(applied.error().to_string());
    if (received >= 0 && !receive(received)) return refuse("what was to come over a socket has not come");
    ::execve(argv[at + 1], argv + at + 1, environ);
    return refuse("cannot start " + std::string(argv[at + 1]) + ": " + ::strerror(errno));
}
