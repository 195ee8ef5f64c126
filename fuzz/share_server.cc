// Everything that a guest's kernel, or whoever took it over, can send to its share server. The server works on a directory
// of its own below TMPDIR, with one volume that may be written and one that may not, and something beside them that
// nobody may reach.
//
// Input: messages, each a byte for the operation, one for the node and the slot, one for the length of the arguments, and those. An
// operation of 255 takes the bytes as they are, header and all.
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "os/file.h"
#include "volume/share/server.h"
#include "wire/share.h"

using namespace caisson;
using namespace caisson::volume;

namespace {

constexpr std::uint64_t kLimitBytes = 4 << 20;
constexpr rlim_t kLargestFile = 64 << 20;
constexpr std::size_t kFewOpen = 18;  // so that files are closed and opened again
constexpr std::uint8_t kRaw = 255;
constexpr std::uint8_t kNodes = 32;  // and the rest of that byte says a slot of the window
// Without FUSE_INIT, which is sent before. The last ones are ours.
constexpr std::uint32_t kOperations[] = {1,  2,  3,  4,  5,  6,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22,
                                         23, 24, 25, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 42, 43, 44, 45, 46,
                                         47, 50, 51, 26, wire::kShareIdentity, wire::kShareKeeps, wire::kShareList};

int remove_one(const char* path, const struct stat*, int, struct FTW* at) {
    if (at->level > 0) static_cast<void>(::remove(path));
    return 0;
}
// Of a volume that was written: nothing on the host is special, or anybody's but ours.
int check_one(const char*, const struct stat* status, int, struct FTW* at) {
    if (at->level == 0) return 0;
    const bool sound = (S_ISREG(status->st_mode) && (status->st_mode & 07777) == 0600) ||
                       (S_ISDIR(status->st_mode) && (status->st_mode & 07777) == 0700) || S_ISLNK(status->st_mode);
    if (!sound || status->st_uid != ::geteuid()) std::abort();
    return 0;
}

struct Place {
    os::TemporaryDirectory directory;
    Place() : directory(os::TemporaryDirectory::create(std::getenv("TMPDIR") != nullptr ? std::getenv("TMPDIR") : "/tmp", "share").value()) {
        for (const char* name : {"written", "read", "read/d", "outside"})
            if (::mkdir(path(name).c_str(), 0700) != 0) std::abort();
        for (const char* name : {"read/f", "read/d/g", "outside/f"})
            if (!os::write_file_atomic(path(name), "unchanged")) std::abort();
        if (::symlink("../outside", path("read/l").c_str()) != 0) std::abort();
        before = facts();
        struct rlimit limit {kLargestFile, kLargestFile};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        ::signal(SIGXFSZ, SIG_IGN);
    }
    std::string path(const std::string& name) const { return directory.path() + "/" + name; }
    // Of all that must stay as it is. Reading changes st_atime, which is not asked for.
    std::string facts() const {
        std::string all;
        for (const char* name : {"", "read", "read/d", "read/f", "read/d/g", "read/l", "outside", "outside/f"}) {
            struct stat status {};
            if (::lstat(path(name).c_str(), &status) != 0) std::abort();
            all += std::to_string(status.st_ino) + " " + std::to_string(status.st_mode) + " " + std::to_string(status.st_size) + " " +
                   std::to_string(status.st_ctim.tv_sec) + "." + std::to_string(status.st_ctim.tv_nsec) + "\n";
        }
        return all;
    }
    std::string before;
};

void append(base::Bytes& bytes, const void* data, std::size_t size) {
    const auto* begin = static_cast<const std::uint8_t*>(data);
    bytes.insert(bytes.end(), begin, begin + size);
}

void append_message(base::Bytes& bytes, std::uint32_t operation, std::uint64_t node, base::ByteView arguments, wire::ShareSlot slot = 0) {
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + arguments.size());
    header.opcode = operation;
    header.unique = bytes.size() + 1;
    header.nodeid = node;
    append(bytes, &header, sizeof header);
    std::memcpy(bytes.data() + bytes.size() - sizeof header + wire::kShareSlotAt, &slot, sizeof slot);
    append(bytes, arguments.data(), arguments.size());
}

base::Bytes stream_of(base::ByteView data) {
    base::Bytes bytes;
    fuse_init_in init{};
    init.major = FUSE_KERNEL_VERSION;
    init.minor = FUSE_KERNEL_MINOR_VERSION;
    init.flags = 0xffffffff;
    append_message(bytes, FUSE_INIT, 0, base::ByteView(reinterpret_cast<const std::uint8_t*>(&init), sizeof init));
    for (const char* name : {"m0", "m1"}) append_message(bytes, FUSE_LOOKUP, FUSE_ROOT_ID, base::ByteView(reinterpret_cast<const std::uint8_t*>(name), 3));
    while (data.size() >= 3) {
        const auto operation = data[0];
        const auto arguments = data.subspan(3, std::min<std::size_t>(data[2], data.size() - 3));
        if (operation == kRaw) append(bytes, arguments.data(), arguments.size());
        else append_message(bytes, kOperations[operation % std::size(kOperations)], data[1] % kNodes, arguments, data[1] / kNodes);
        data = data.subspan(3 + arguments.size());
    }
    return bytes;
}

std::shared_ptr<share::Mount> mount_of(const Place& place, std::uint32_t number, const char* name, bool read_only, std::atomic<std::int64_t>& used) {
    auto mount = std::make_shared<share::Mount>();
    mount->number = number;
    mount->root = os::Fd(::open(place.path(name).c_str(), O_PATH | O_CLOEXEC));
    mount->read_only = read_only;
    if (!read_only) mount->space = std::make_shared<share::Space>(used, kLimitBytes);
    return mount;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const Place place;
    std::atomic<std::int64_t> used = 0;
    auto pair = os::make_socketpair(SOCK_STREAM).value();
    auto loop = os::Loop::create().value();
    bool ended = false;
    {
        static base::Bytes window(wire::kShareWindowBytes);
        share::Server server(loop, std::move(pair.second), window);
        server.on_end = [&](const std::string&) { ended = true; };
        server.add_mount(mount_of(place, 0, "written", false, used));
        server.add_mount(mount_of(place, 1, "read", true, used));
        if (size > 0 && data[0] % 2 == 1) server.tree().set_most_open(kFewOpen);
        if (!server.start()) std::abort();
        const auto stream = stream_of({data, size});
        std::size_t sent = 0;
        for (int quiet = 0; !ended && quiet < 3;) {
            const ssize_t put = ::send(pair.first.get(), stream.data() + sent, stream.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += static_cast<std::size_t>(std::max<ssize_t>(put, 0));
            if (!loop.step(std::chrono::milliseconds(0))) std::abort();
            static std::uint8_t answers[1 << 18];
            const ssize_t got = ::recv(pair.first.get(), answers, sizeof answers, MSG_DONTWAIT);
            quiet = sent == stream.size() && got <= 0 ? quiet + 1 : 0;
        }
        if (size > 0 && data[0] % 16 == 3) server.remove_mount(0);
    }
    if (place.facts() != place.before) std::abort();
    ::nftw(place.path("written").c_str(), check_one, 16, FTW_PHYS);
    ::nftw(place.path("written").c_str(), remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
