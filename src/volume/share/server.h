// The share server: FUSE messages from one guest on a stream socket, answered from the volumes that were handed over as
// descriptors. One thread, no path of the host but what lies below those descriptors.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "os/fd.h"
#include "os/loop.h"
#include "volume/share/tree.h"

namespace caisson::volume::share {

// What one request is answered with.
struct Reply {
    base::Bytes data;
    std::size_t in_slot = 0;  // bytes that lie in the request's slot, in place of `data`
    template <typename T>
    void add(const T& value) {
        base::append(data, base::bytes_of(value));
    }
};

// One entry of a directory.
struct Listed {
    std::string name;
    std::uint64_t inode = 0;
    std::uint32_t type = 0;
    std::uint64_t next = 0;  // where the listing goes on behind it
};

struct Request {
    fuse_in_header header{};
    Node* node = nullptr;  // of header.nodeid; nullptr for the root directory
    Arguments arguments{{}};
    // Of the window, if the agent gave it one: what is written lies there, what is read goes there. The guest may change it
    // at any time, so it is given to the host's kernel as it is and never looked at.
    std::span<std::uint8_t> slot;
    Reply reply;
};

class Server {
  public:
    // `port`: the guest's side, a stream. `window`: memory of wire::kShareWindowBytes that the guest has, too, or none.
    // `loop` and the window outlive the server.
    Server(os::Loop& loop, os::Fd port, std::span<std::uint8_t> window = {});
    ~Server();
    Result<> start();
    Tree& tree() { return tree_; }
    // What was written is on the host's disk when this returns, as far as the host's disk can be trusted.
    void write_back();
    // In the tree from now on.
    void add_mount(std::shared_ptr<Mount> mount);
    // Nothing that was promised holds any more, before another mount of the same volume is made.
    void leave_alone();
    // Closes what the guest has open below that mount.
    bool remove_mount(std::uint32_t number);
    // The guest hung up, or broke the rules: `broken` says how, or is empty.
    std::function<void(const std::string& broken)> on_end;

  private:
    // Answers of one kind; kNoAnswer: none is to be sent (now).
    static constexpr int kNoAnswer = -1;
    struct Row {
        std::uint32_t operation;
        int (Server::*handler)(Request&);
        bool writes = false;  // refused where nothing may be written
    };

    // ---- what the agent may answer by itself (promises.cc)
    bool promises(const Mount& mount) const { return keeps_ && (!mount.presence || mount.presence->is_alone()); }
    static void promised(Node& node, const fuse_attr& attributes);
    wire::ShareFile told_of(Node& node, const fuse_attr& attributes, bool empty = false);
    void promise(Node& node);
    // `entry`: the answer that the guest gets, which begins with the node's fuse_entry_out.
    void promise_name(std::uint64_t parent, const std::string& name, Node& node, const Reply& entry, bool empty = false);
    void promise_none(const Node& parent, const std::string& name);
    void promise_contents(const Node& node, const os::Fd& file);
    void take_back(const Node& node);
    void take_back_name(const Node& parent, const std::string& name);
    void tell_of_name(wire::ShareNews news, std::uint64_t parent, const std::string& name, base::ByteView file = {});
    void take_back_all();
    void promise_again(bool changed, Node& node);
    void tell(wire::ShareNews news, base::ByteView data);
    void on_company();

    void readable();
    void take_messages();
    void flush();
    bool is_full() const;
    void end(const std::string& broken);
    void handle(const Message& message);
    int dispatch(Request& request);
    static const Row* row_of(std::uint32_t operation);
    void answer(std::uint64_t unique, int error, base::ByteView data);
    bool find_slot(Request& request) const;

    struct Handle;
    struct LockKey {
        std::uint64_t node, owner;
        bool flock;
        auto operator<=>(const LockKey&) const = default;
    };

    struct Lock {
        os::Fd file;
        std::uint64_t handle = 0;  // through which it was asked for
    };
    using Locks = std::map<LockKey, Lock>;

    // ---- the session
    int initialise(Request& request);
    int forget(Request& request);
    int forget_many(Request& request);
    int interrupt(Request& request);
    int statfs(Request& request);
    int sync_all(Request& request);

    // ---- names (entries.cc)
    int lookup(Request& request);
    int make_node(Request& request);
    int make_directory(Request& request);
    int make_link(Request& request);
    int link(Request& request);
    int read_link(Request& request);
    int remove(Request& request, int flags);
    int remove_file(Request& request);
    int remove_directory(Request& request);
    int rename_old(Request& request);
    int rename(Request& request);
    std::uint64_t hold_before_removal(Node& parent, const std::string& name);
    void renamed(Node& parent, const std::string& from, Node& target, const std::string& to, bool exchanged);
    int rename_to(Request& request, std::uint64_t directory, unsigned flags);
    int lookup_in_root(std::string_view name, Reply& reply);
    int enter(Node& parent, const std::string& name, Reply& reply, Node** entered = nullptr);
    int enter_and_promise(Node& parent, const std::string& name, Reply& reply, Node** entered = nullptr);
    int give_entry(Node& node, Reply& reply);
    // Mode, owner and kind of a file that was just made, as its maker wants them.
    int own(Node& parent, Node& node, const fuse_in_header& maker, std::uint32_t mode, std::uint32_t device);
    int metadata_of_new(Node& parent, const fuse_in_header& maker, std::uint32_t mode, std::uint32_t device, Metadata& metadata);
    int make(Request& request, const std::string& name, std::uint32_t mode, std::uint32_t device);
    int open_directory(Request& request);
    int read_directory(Request& request);
    int read_directory_plus(Request& request);
    int list(Request& request, bool plus);
    int list_ahead(Request& request);
    void tell_done(const Message& message);
    // Where the listing goes on behind a piece, and whether anything is there.
    struct Piece {
        std::uint64_t next = 0;
        bool end = false;
    };
    int list_piece(Node& directory, Handle& handle, const fuse_read_in& in, bool plus, Reply& reply, Piece& piece);
    bool tell_piece(Node& directory, Handle& handle, fuse_read_in& in, bool plus);
    int list_root(const Handle& handle, std::uint64_t offset, std::size_t limit, bool plus, Reply& reply);
    bool list_entry(Node& parent, Listed& listed, bool is_plain, std::size_t limit, bool plus, Reply& reply);
    bool is_plain(const Node& directory) const { return directory.plain_at == plain_ && promises(*directory.mount); }
    int release_directory(Request& request);
    int sync_directory(Request& request);

    // ---- attributes (attributes.cc)
    int get_attributes(Request& request);
    int set_attributes(Request& request);
    int change_metadata(Node& node, const fuse_setattr_in& wanted);
    int give_link_metadata(Node& node, const Metadata& metadata);
    int put_link(Node& parent, const std::string& name, const std::string& text, const Metadata& metadata);
    int change_size(Request& request, const fuse_setattr_in& wanted);
    int change_times(Node& node, const fuse_setattr_in& wanted);
    int give_attributes(const Node* node, Reply& reply);
    int get_attribute(Request& request);
    int set_attribute(Request& request);
    int list_attributes(Request& request);
    int remove_attribute(Request& request);
    int drop_set_id(Node& node);
    static void drop_capability(const Node& node);

    // ---- contents (files.cc)
    int open(Request& request);
    int create(Request& request);
    int make_temporary(Request& request);
    int read(Request& request);
    int write(Request& request);
    int flush_file(Request& request);
    int release(Request& request);
    int sync(Request& request);
    int allocate(Request& request);
    int seek(Request& request);
    int copy_range(Request& request);
    // `only`: nobody else in the box has it open.
    std::uint32_t open_flags(Node& node, std::uint32_t flags, bool only);
    int give_handle(Request& request, Node& node, os::Fd file, std::uint32_t flags);
    static int host_flags(std::uint32_t flags, bool read_only);

    // What a file takes on the host's disk, of a volume with a limit; and what it took more, or less, since.
    static std::int64_t allocated(const Node& node);
    static void count(const Node& node, std::int64_t before);
    class Counted {  // the same for the time that it lives
      public:
        explicit Counted(const Node& node) : node_(node), before_(allocated(node)) {}
        ~Counted() { count(node_, before_); }

      private:
        const Node& node_;
        std::int64_t before_;
    };
    std::uint64_t free_bytes(Space& space, std::uint64_t wanted);
    bool is_full(const Node& node);
    std::uint64_t room(const Node& node, std::uint64_t offset, std::uint64_t length);

    // ---- locks (locks.cc)
    int get_lock(Request& request);
    int set_lock(Request& request);
    int wait_for_lock(Request& request);
    int open_for_locks(Node& node, os::Fd& file);
    int lock_file(Node& node, const LockKey& key, std::uint64_t handle, int& file);
    int try_lock(Node& node, const fuse_lk_in& wanted);
    bool has_locks(std::uint64_t node) const;
    void drop_locks_of_handle(std::uint64_t node, std::uint64_t handle);
    void retry_locks();
    void drop_locks(std::uint64_t node, std::uint64_t owner, bool flock);
    Locks::iterator drop_lock(Locks::iterator lock);

    struct Handle {
        os::Fd file;  // none: the root directory
        bool directory = false;
        std::uint64_t node = 0;
        std::shared_ptr<Mount> mount;
        std::vector<std::uint32_t> root_entries;  // of the root directory
        // Of a directory that is listed from its beginning without a gap: where it goes on, and Server::plain_ as it was
        // then, or 0 if something was found that is not plain.
        std::uint64_t listed_to = 0, plain_at = 0;
    };
    // nullptr: no such handle of this node; an open file; an open directory.
    Handle* handle_of(std::uint64_t number, std::uint64_t node);
    Handle* file_of(std::uint64_t number, std::uint64_t node);
    bool too_many_handles() const { return handles_.size() >= budget_.handles; }
    void close(std::uint64_t handle);

    struct Waiting {
        std::uint64_t unique, node;
        fuse_lk_in wanted;
    };

    os::Loop& loop_;
    os::Fd port_;
    std::span<std::uint8_t> window_;
    Tree tree_;
    Budget budget_;
    bool ended_ = false, initialised_ = false;
    bool keeps_ = false;  // the agent keeps what it is promised
    bool writes_past_memory_ = false;  // the guest's kernel does it well, see open_flags()
    std::uint64_t times_alone_ = 1;  // changes when company comes
    std::uint64_t plain_ = 1;        // changes then, and when a directory may have got what only its metadata tells of
    os::Fd company_;      // inotify: somebody opened a volume's file
    std::unique_ptr<std::uint8_t[]> read_;  // what a read(2) gives; in_ would be filled with zeros before each
    base::Bytes in_, out_;
    std::size_t taken_ = 0, sent_ = 0;
    std::unordered_map<std::uint64_t, Handle> handles_;
    std::uint64_t next_handle_ = 1;
    Locks locks_;
    std::deque<Waiting> waiting_;
    os::Loop::TimerId lock_timer_ = 0;
};

}  // namespace caisson::volume::share
