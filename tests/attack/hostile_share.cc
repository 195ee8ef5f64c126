#include "hostile_share.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdint>
#include <vector>

namespace caisson::attack {

namespace {

using Say = std::function<void(const std::string&)>;
using Bytes = std::vector<std::uint8_t>;

template <typename T>
void add(Bytes& bytes, const T& value) {
    const auto* at = reinterpret_cast<const std::uint8_t*>(&value);
    bytes.insert(bytes.end(), at, at + sizeof value);
}
void add_name(Bytes& bytes, const std::string& name) { bytes.insert(bytes.end(), name.c_str(), name.c_str() + name.size() + 1); }

void put(int fd, const Bytes& bytes) {
    for (size_t done = 0; done < bytes.size();) {
        const ssize_t more = write(fd, bytes.data() + done, bytes.size() - done);
        if (more <= 0) _exit(9);
        done += static_cast<size_t>(more);
    }
}

Bytes take(int fd, size_t count) {
    Bytes bytes(count);
    for (size_t done = 0; done < count;) {
        const ssize_t more = read(fd, bytes.data() + done, count - done);
        if (more <= 0) _exit(9);
        done += static_cast<size_t>(more);
    }
    return bytes;
}

Bytes message(std::uint32_t operation, std::uint64_t node, const Bytes& arguments, std::uint64_t unique) {
    Bytes bytes;
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + arguments.size());
    header.opcode = operation;
    header.unique = unique;
    header.nodeid = node;
    add(bytes, header);
    bytes.insert(bytes.end(), arguments.begin(), arguments.end());
    return bytes;
}

class Guest {
  public:
    Guest(int port, const Say& say) : port_(port), say_(say) {
        Bytes arguments;
        fuse_init_in init{};
        init.major = FUSE_KERNEL_VERSION;
        init.minor = 31;
        init.flags = 0xffffffff & ~static_cast<std::uint32_t>(FUSE_INIT_EXT);
        add(arguments, init);
        ask(FUSE_INIT, 0, arguments);
    }
    // 0 or an errno; what came with it is in answer_.
    int ask(std::uint32_t operation, std::uint64_t node, const Bytes& arguments) {
        put(port_, message(operation, node, arguments, ++unique_));
        fuse_out_header header{};
        const auto head = take(port_, sizeof header);
        memcpy(&header, head.data(), sizeof header);
        answer_ = take(port_, header.len - sizeof header);
        return -header.error;
    }
    int attempt(const std::string& name, std::uint32_t operation, std::uint64_t node, const Bytes& arguments) {
        const int error = ask(operation, node, arguments);
        say_(name + " " + (error == 0 ? "ok" : strerrorname_np(error)));
        return error;
    }
    // The node of a name, 0 if there is none.
    std::uint64_t look_up(std::uint64_t parent, const std::string& name) { return ask(FUSE_LOOKUP, parent, named(name)) == 0 ? entered() : 0; }
    std::uint64_t entered() const { return part<fuse_entry_out>().nodeid; }
    std::uint64_t opened(size_t at = 0) const { return part<fuse_open_out>(at).fh; }
    std::uint64_t open_file(std::uint64_t node) {
        Bytes arguments;
        add(arguments, fuse_open_in{O_RDONLY, 0});
        return ask(FUSE_OPEN, node, arguments) == 0 ? opened() : 0;
    }
    static Bytes named(const std::string& name) {
        Bytes arguments;
        add_name(arguments, name);
        return arguments;
    }
    template <typename T>
    static Bytes named(const T& head, const std::string& name, const std::string& second = {}) {
        Bytes arguments;
        add(arguments, head);
        add_name(arguments, name);
        if (!second.empty()) add_name(arguments, second);
        return arguments;
    }
    template <typename T>
    T part(size_t at = 0) const {
        T value{};
        if (answer_.size() >= at + sizeof value) memcpy(&value, answer_.data() + at, sizeof value);
        return value;
    }

  private:
    int port_;
    const Say& say_;
    std::uint64_t unique_ = 0;
    Bytes answer_;
};

template <typename T>
Bytes alone(const T& value) {
    Bytes bytes;
    add(bytes, value);
    return bytes;
}

fuse_setattr_in setting(std::uint32_t valid) {
    fuse_setattr_in wanted{};
    wanted.valid = valid;
    wanted.mode = 06777;
    wanted.uid = wanted.gid = 12;
    return wanted;
}

Bytes attribute(const std::string& name) {
    Bytes arguments;
    add(arguments, std::uint32_t{1});  // bytes of the value
    add(arguments, std::uint32_t{0});
    add_name(arguments, name);
    arguments.push_back('x');
    return arguments;
}

Bytes writing(std::uint64_t handle) {
    fuse_write_in in{};
    in.fh = handle;
    in.size = 4;
    auto arguments = alone(in);
    for (char c : {'e', 'v', 'i', 'l'}) arguments.push_back(static_cast<std::uint8_t>(c));
    return arguments;
}

void make_names(Guest& guest, std::uint64_t root, std::uint64_t file) {
    fuse_create_in create{};
    create.flags = O_RDWR | O_CREAT;
    create.mode = S_IFREG | 04755;
    guest.attempt("create", FUSE_CREATE, root, Guest::named(create, "new"));
    guest.attempt("make_temporary", FUSE_TMPFILE, root, Guest::named(create, "t"));
    fuse_mknod_in node{};
    node.mode = S_IFBLK | 0666;
    node.rdev = static_cast<std::uint32_t>(makedev(8, 0));
    guest.attempt("make_device", FUSE_MKNOD, root, Guest::named(node, "device"));
    guest.attempt("make_directory", FUSE_MKDIR, root, Guest::named(fuse_mkdir_in{0777, 0}, "new-directory"));
    guest.attempt("make_link", FUSE_SYMLINK, root, [] {
        auto arguments = Guest::named("new-link");
        add_name(arguments, "/etc/shadow");
        return arguments;
    }());
    guest.attempt("link", FUSE_LINK, root, Guest::named(fuse_link_in{file}, "linked"));
}

void write_to_file(Guest& guest, std::uint64_t file) {
    guest.attempt("open_to_write", FUSE_OPEN, file, alone(fuse_open_in{O_RDWR, 0}));
    guest.attempt("open_to_empty", FUSE_OPEN, file, alone(fuse_open_in{O_RDONLY | O_TRUNC, 0}));
    guest.attempt("resize", FUSE_SETATTR, file, alone(setting(FATTR_SIZE)));
    guest.attempt("change_mode", FUSE_SETATTR, file, alone(setting(FATTR_MODE)));
    guest.attempt("change_owner", FUSE_SETATTR, file, alone(setting(FATTR_UID | FATTR_GID)));
    guest.attempt("change_times", FUSE_SETATTR, file, alone(setting(FATTR_ATIME | FATTR_MTIME)));
    guest.attempt("set_attribute", FUSE_SETXATTR, file, attribute("user.x"));
    guest.attempt("remove_attribute", FUSE_REMOVEXATTR, file, Guest::named("user.x"));
    const auto handle = guest.open_file(file);
    guest.attempt("write", FUSE_WRITE, file, writing(handle));
    fuse_fallocate_in space{};
    space.fh = handle;
    space.length = 4096;
    guest.attempt("allocate", FUSE_FALLOCATE, file, alone(space));
    space.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    guest.attempt("punch_hole", FUSE_FALLOCATE, file, alone(space));
    fuse_copy_file_range_in copy{};
    copy.fh_in = copy.fh_out = handle;
    copy.nodeid_out = file;
    copy.len = 4;
    copy.off_out = 1;
    guest.attempt("copy", FUSE_COPY_FILE_RANGE, file, alone(copy));
}

// Names and numbers that lead out of what the box has.
void guess(Guest& guest, std::uint64_t root, const Say& say) {
    for (const char* name : {"..", ".", "", "../caisson.db", "d/../../x", "/etc/shadow"}) guest.attempt("look_up(" + std::string(name) + ")", FUSE_LOOKUP, root, Guest::named(name));
    for (const char* name : {"..", "m0", "m2", "m1/..", "m01x", "etc"}) guest.attempt("look_up_in_root(" + std::string(name) + ")", FUSE_LOOKUP, FUSE_ROOT_ID, Guest::named(name));
    const auto link = guest.look_up(root, "link");
    guest.attempt("open_link", FUSE_OPEN, link, alone(fuse_open_in{O_RDONLY, 0}));
    guest.attempt("look_up_behind_link", FUSE_LOOKUP, link, Guest::named("passwd"));
    const auto pipe = guest.look_up(root, "pipe");
    guest.attempt("open_pipe", FUSE_OPEN, pipe, alone(fuse_open_in{O_RDONLY, 0}));
    int known = 0;
    for (std::uint64_t number = link + pipe + 1; number < link + pipe + 10000; ++number) known += guest.ask(FUSE_GETATTR, number, alone(fuse_getattr_in{})) == 0;
    for (std::uint64_t handle = 1; handle < 10000; ++handle) {
        fuse_read_in in{};
        in.fh = handle;
        in.size = 4096;
        known += guest.ask(FUSE_READ, link, alone(in)) == 0;
    }
    say("guessed " + std::to_string(known));
}

}  // namespace

void attack_read_only_volume(int port, const Say& say) {
    Guest guest(port, say);
    const auto root = guest.look_up(FUSE_ROOT_ID, "m1");
    const auto file = guest.look_up(root, "f");
    say(root > 0 && file > 0 ? "found" : "nothing is there");
    make_names(guest, root, file);
    guest.attempt("remove_file", FUSE_UNLINK, root, Guest::named("f"));
    guest.attempt("remove_directory", FUSE_RMDIR, root, Guest::named("d"));
    guest.attempt("rename_old", FUSE_RENAME, root, Guest::named(fuse_rename_in{root}, "f", "g"));
    fuse_rename2_in rename{};
    rename.newdir = root;
    guest.attempt("rename", FUSE_RENAME2, root, Guest::named(rename, "f", "g"));
    write_to_file(guest, file);
    guess(guest, root, say);
    say("end reached");
}

void change_writable_volume(int port, const Say& say) {
    Guest guest(port, say);
    const auto root = guest.look_up(FUSE_ROOT_ID, "m1");
    const auto file = guest.look_up(root, "f");
    say(root > 0 && file > 0 ? "found" : "nothing is there");
    make_names(guest, root, file);
    guest.attempt("change_mode", FUSE_SETATTR, file, alone(setting(FATTR_MODE)));
    guest.attempt("change_owner", FUSE_SETATTR, file, alone(setting(FATTR_UID | FATTR_GID)));
    for (const char* name : {"security.capability", "trusted.x", "system.posix_acl_access", "user.caisson.metadata", "user.x"})
        guest.attempt("set " + std::string(name), FUSE_SETXATTR, file, attribute(name));
    // Through the link that it has just made.
    const auto link = guest.look_up(root, "new-link");
    guest.attempt("resize_link", FUSE_SETATTR, link, alone(setting(FATTR_SIZE)));
    guest.attempt("mode_of_link", FUSE_SETATTR, link, alone(setting(FATTR_MODE)));
    guest.attempt("open_link", FUSE_OPEN, link, alone(fuse_open_in{O_RDWR, 0}));
    say("end reached");
}

void read_until_refused(int port, const Say& say) {
    Guest guest(port, say);
    const auto root = guest.look_up(FUSE_ROOT_ID, "m1");
    const auto file = guest.look_up(root, "f");
    fuse_read_in in{};
    in.fh = guest.open_file(file);
    in.size = 64;
    say(in.fh > 0 ? "found" : "nothing is there");
    while (guest.ask(FUSE_READ, file, alone(in)) == 0) usleep(50000);
    guest.attempt("read", FUSE_READ, file, alone(in));
    guest.attempt("attributes", FUSE_GETATTR, root, alone(fuse_getattr_in{}));
    guest.attempt("look_up", FUSE_LOOKUP, root, Guest::named("f"));
    guest.attempt("look_up_in_root", FUSE_LOOKUP, FUSE_ROOT_ID, Guest::named("m1"));
    guest.attempt("make", FUSE_MKDIR, root, Guest::named(fuse_mkdir_in{0777, 0}, "late"));
    say("end reached");
}

void send_garbage(int port) {
    Bytes noise(1 << 20);
    std::uint64_t state = 1;
    for (auto& byte : noise) byte = static_cast<std::uint8_t>((state = state * 6364136223846793005u + 1442695040888963407u) >> 56);
    // The server need not take all of it.
    if (write(port, noise.data(), noise.size()) < 0) return;
}

void ask_and_never_read(int port) {
    const auto one = message(FUSE_GETATTR, FUSE_ROOT_ID, alone(fuse_getattr_in{}), 1);
    Bytes many;
    while (many.size() < 65536) many.insert(many.end(), one.begin(), one.end());
    Guest guest(port, [](const std::string&) {});
    for (;;) put(port, many);
}

void open_for_ever(int port) {
    Guest guest(port, [](const std::string&) {});
    for (;;) guest.ask(FUSE_OPENDIR, FUSE_ROOT_ID, alone(fuse_open_in{O_RDONLY, 0}));
}

}  // namespace caisson::attack
