// The files that a guest knows of: one node for each that it looked up and has not forgotten, under the mount through
// which it came. A node is known to the guest by a number that is never used again, never by anything of the host.
//
// A guest may know of more files than this process may have open. So those that were used longest ago are closed, if the
// name under which they were found leads to them, and opened again by that name when they are needed. What is there then
// must be the very same file (Identity); if not, the guest gets ESTALE and looks the name up again. Telling the guest to
// forget would be no way: its kernel takes the directory's lock for it, which whoever waits for our answer may hold, and
// it detaches what is mounted below.
//
// Errors are errno values (0: none), as the guest gets them.
#pragma once

#include <linux/fuse.h>
#include <sys/stat.h>

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "os/fd.h"
#include "volume/metadata.h"
#include "volume/share/limits.h"
#include "volume/share/message.h"
#include "volume/share/presence.h"
#include "volume/share/space.h"
#include "wire/share.h"

namespace caisson::volume::share {

// One directory, or one single file, of a volume.
struct Mount {
    std::uint32_t number = 0;
    os::Fd root;  // O_PATH
    bool read_only = false;
    std::uint32_t owner = 0, group = 0;  // of the volume, on the host
    std::shared_ptr<Space> space;  // null: no limit
    std::shared_ptr<Presence> presence;  // null: nobody else can have it
};

// What tells a file from every other one, also from one that takes its inode later.
struct Identity {
    dev_t device = 0;
    ino_t inode = 0;
    mode_t type = 0;  // S_IFMT
    std::int64_t born_seconds = 0;  // 0 where the file system does not say
    std::uint32_t born_nanoseconds = 0;
    bool operator==(const Identity&) const = default;
};

// 0 or an errno. `file` may be O_PATH.
int identify(int file, Identity& identity);
// A name of a directory, O_PATH, or nothing with errno: never through a link, never out of the directory.
os::Fd open_entry(int directory, const std::string& name);
// What caisson keeps of a regular file or a directory; `kept` stays empty if that is nothing. 0 or an errno.
int read_metadata(int file, std::optional<Metadata>& kept);
// A name for calls that take no O_PATH descriptor. The file system of the name is this process's own /proc.
inline std::string path_of(int file) { return "/proc/self/fd/" + std::to_string(file); }

// Where setcap(8) of a guest is kept: it is the guest's alone, under a name that means nothing here.
inline constexpr char kKeptCapability[] = "user.caisson.capability";

// On the host every file is the volume owner's alone. Metadata says what the guest made of it.
inline constexpr mode_t kHostFile = 0600;

struct Node {
    std::uint64_t number = 0;
    std::shared_ptr<Mount> mount;
    os::Fd file;                // O_PATH | O_NOFOLLOW; there while Tree::open() says so
    Identity is;
    std::uint64_t lookups = 0;  // times that the guest was told of it
    std::uint64_t handles = 0;  // open files of it
    bool gone = false;          // its mount was removed, or its inode is another file's

    // Where it was found last. No parent: it cannot be opened again, and stays open.
    Node* parent = nullptr;
    std::string name;
    std::uint64_t children = 0;  // nodes whose parent it is
    std::list<Node*>::iterator place{};  // among the open ones, if it is open
    // The agent was told of its attributes, and that it was last read then.
    bool promised = false;
    using Time = std::pair<std::uint64_t, std::uint32_t>;
    Time promised_access{};
    std::uint64_t opened_alone = 0;  // when it was opened last, see Server::open_flags()
    std::uint64_t plain_at = 0;      // a directory: what Server::plain_ was when all in it was what the host takes it for

    bool is_directory() const { return S_ISDIR(is.type); }
    bool is_regular() const { return S_ISREG(is.type); }
    std::string path() const { return path_of(file.get()); }
};

class Tree {
  public:
    // What stays the same for a node's owner and mode.
    void set_identity(wire::ShareIdentity identity) { identity_ = identity; }
    const wire::ShareIdentity& identity() const { return identity_; }

    // `number` is not in use. Its entry in the root directory is called "m" and the number.
    void add(std::shared_ptr<Mount> mount);
    // Its nodes answer ESTALE from now on. false: there is none.
    bool remove(std::uint32_t number);
    const std::map<std::uint32_t, std::shared_ptr<Mount>>& mounts() const { return mounts_; }

    // nullptr: never told, or forgotten. It may be closed: see open().
    Node* find(std::uint64_t number);
    // Opens it if it was closed. Until the next few calls of open() or enter() it stays open. ESTALE: what was known is
    // not there any more.
    int open(Node& node);
    // find() and open().
    int open(std::uint64_t number, Node*& node);
    // The same file of the same mount is the same node. Takes hold of `file` and counts one lookup. With the directory and
    // the name that it was found under, if there are any. ENFILE: the guest knows of too many.
    int enter(const std::shared_ptr<Mount>& mount, os::Fd file, Node*& node, Node* parent = nullptr, const std::string& name = {});
    // The guest knows of this file.
    bool knows(const Mount& mount, const Identity& identity) const;
    // What has that name now came there under another one. nullptr: the guest does not know of it.
    Node* moved(Node& parent, const std::string& name);
    // Another file is in this one's place from now on, with a name in the same directory.
    int replace(Node& node, os::Fd file);
    void forget(std::uint64_t number, std::uint64_t lookups);
    // An open file of the node is there no more. A node lives until it is forgotten and closed; only then the space of a
    // file without a name is free again.
    void closed(std::uint64_t number);
    // A name of it was removed, and maybe the last one.
    void unnamed(std::uint64_t number);
    // Lets go of files without a name that nobody has open, whose space is counted: the guest's kernel has not said yet that
    // it forgot them, and somebody needs room. Whoever still looks at one there gets ESTALE.
    void let_go_of_unnamed();
    std::size_t size() const { return nodes_.size(); }
    void set_most_open(std::size_t count) { most_open_ = count; }

    // As the guest sees it.
    int attributes(const Node& node, fuse_attr& attributes) const;
    int metadata(const Node& node, const struct stat& status, Metadata& metadata) const;
    int set_metadata(const Node& node, const Metadata& metadata) const;
    std::uint64_t inode_number(dev_t device, ino_t inode) const;
    // For new files: who makes them.
    std::optional<std::uint32_t> stored_user(std::uint32_t user) const;
    std::optional<std::uint32_t> stored_group(std::uint32_t group) const;

  private:
    struct Key {
        std::uint32_t mount;
        dev_t device;
        ino_t inode;
        auto operator<=>(const Key&) const = default;
    };
    static Key key_of(const Mount& mount, const Identity& identity) { return {mount.number, identity.device, identity.inode}; }
    void drop_unused(Node* node);
    bool give_back(const Node& node);
    void lose(Node& node);
    Space* counted_in(const Node& node) const;
    void leave_parent(Node& node);
    void set_parent(Node& node, Node& parent, const std::string& name);
    bool would_be_above_itself(const Node& node, Node& parent);
    int find_again(const Node& node, os::Fd& file) const;
    void hold(Node& node, os::Fd file);
    void let_go(Node& node);
    bool can_be_closed(const Node& node) const;
    int make_room();
    wire::ShareIdentity identity_{0, 0};
    std::map<std::uint32_t, std::shared_ptr<Mount>> mounts_;
    std::unordered_map<std::uint64_t, std::unique_ptr<Node>> nodes_;
    std::map<Key, std::uint64_t> numbers_;
    std::list<Node*> open_;  // the one used last is the last
    std::size_t most_open_ = kMostNodes;
    std::deque<std::uint64_t> unnamed_;  // removed lately
    mutable std::map<dev_t, std::uint64_t> devices_;
    std::uint64_t next_ = FUSE_ROOT_ID + 1;
};

}  // namespace caisson::volume::share
