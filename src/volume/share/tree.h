// The files that a guest knows of: one node for each that it looked up and has not forgotten, under the mount through
// which it came. A node is known to the guest by a number that is never used again, never by anything of the host.
//
// Errors are errno values (0: none), as the guest gets them.
#pragma once

#include <linux/fuse.h>
#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "os/fd.h"
#include "volume/metadata.h"
#include "volume/share/message.h"
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
};

struct Node {
    std::uint64_t number = 0;
    std::shared_ptr<Mount> mount;
    os::Fd file;              // O_PATH | O_NOFOLLOW
    struct stat first {};     // what never changes: device, inode, type
    std::uint64_t lookups = 0;  // times that the guest was told of it
    std::uint64_t handles = 0;  // open files of it

    bool is_directory() const { return S_ISDIR(first.st_mode); }
    bool is_regular() const { return S_ISREG(first.st_mode); }
    // A name for calls that take no O_PATH descriptor. The file system of the name is this process's own /proc.
    std::string path() const { return "/proc/self/fd/" + std::to_string(file.get()); }
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

    // nullptr: never told, or forgotten.
    Node* find(std::uint64_t number);
    // The same file of the same mount is the same node. Takes hold of `file` and counts one lookup.
    int enter(const std::shared_ptr<Mount>& mount, os::Fd file, Node*& node);
    void forget(std::uint64_t number, std::uint64_t lookups);
    // An open file of the node is there no more. A node lives until it is forgotten and closed; only then the space of a
    // file without a name is free again.
    void closed(std::uint64_t number);
    std::size_t size() const { return nodes_.size(); }

    // As the guest sees it.
    int attributes(const Node& node, fuse_attr& attributes) const;
    int metadata(const Node& node, const struct stat& status, Metadata& metadata) const;
    int set_metadata(const Node& node, const Metadata& metadata) const;
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
    void drop_unused(std::uint64_t number);
    std::uint64_t inode_number(const struct stat& status) const;

    wire::ShareIdentity identity_{0, 0};
    std::map<std::uint32_t, std::shared_ptr<Mount>> mounts_;
    std::unordered_map<std::uint64_t, std::unique_ptr<Node>> nodes_;
    std::map<Key, std::uint64_t> numbers_;
    mutable std::map<dev_t, std::uint64_t> devices_;
    std::uint64_t next_ = FUSE_ROOT_ID + 1;
};

}  // namespace caisson::volume::share
