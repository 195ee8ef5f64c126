// What the share server promised (wire/share.h), and which of the kernel's requests can be answered from it. A way to the
// server and back costs the machine more than anything that the server does; an answer from here costs a quarter of it.
//
// Nothing here is a guess: what is kept is what the server said last, in the order in which it said it, and it says so
// only while no other box has the volume. A kept file is at most kKeptFor old, for those who change volumes behind
// caisson's back. The kernel may believe it for a while, too; when company comes it is told that it may no longer.
//
// Not thread-safe; bytes in, bytes out.
#pragma once

#include <linux/fuse.h>

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "agent/kept.h"
#include "agent/share_listings.h"
#include "base/bytes.h"
#include "wire/share.h"

namespace caisson::agent {

class ShareCache {
  public:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::seconds kKeptFor{60};
    // What the kernel may believe without asking here: it is told to stop, but a notice and an answer may cross.
    static constexpr std::chrono::seconds kBelievedFor{5};
    static constexpr std::size_t kMostKept = 16384;  // files, and names: about 6 MiB; the oldest give way
    // What is in a small file that was just opened, for the kernel to read it once.
    static constexpr std::chrono::seconds kContentsKeptFor{1};
    static constexpr std::size_t kMostContents = 64;

    struct Way {
        bool forward = true;  // the request, as it is now, to the server
        bool soon = true;     // at once; else with the next that has to go, or in a moment
        bool first = false;   // before those that only go with it: it needs no room that they may give back
    };
    // A whole message of the kernel's, which may be changed; what the kernel is to be told already is appended to `answer`.
    Way request(std::span<std::uint8_t> message, base::Bytes& answer, Clock::time_point now = Clock::now());
    // A whole message of the server's. true: it is the kernel's; false: it was for this.
    bool is_for_kernel(base::ByteView message, Clock::time_point now = Clock::now());
    // Notices for the kernel, one behind the other, that what it was told from here holds no more. To write them may have to
    // wait for a lock that is held by somebody who waits for the server: so not in the process that carries the messages.
    base::Bytes take_notices() { return std::exchange(notices_, {}); }
    // After each message, either way: an answer for the kernel to what it asked before; what this asks the server for, soon.
    base::Bytes take_answer() { return listings_.take_answer(); }
    base::Bytes take_requests() { return listings_.take_requests(); }

  private:
    struct File {
        fuse_attr attributes{};
        bool known = false;  // the attributes; the node itself is, or it would not be here
        bool no_capability = false;
        Clock::time_point since;
        bool whole = false;  // a directory: names that are not here are not there
        Clock::time_point whole_since;
    };
    struct Name {
        std::uint64_t node = 0;  // 0: there is none such
        Clock::time_point since;
    };
    Way look_up(const fuse_in_header& header, std::string_view name, base::Bytes& answer, Clock::time_point now);
    Way get_attributes(const fuse_in_header& header, base::Bytes& answer, Clock::time_point now);
    Way get_attribute(const fuse_in_header& header, base::ByteView arguments, base::Bytes& answer, Clock::time_point now);
    Way read(const fuse_in_header& header, base::ByteView arguments, base::Bytes& answer, Clock::time_point now);
    Way flush(const fuse_in_header& header, base::Bytes& answer);
    Way release(std::span<std::uint8_t> message, const fuse_in_header& header, base::Bytes& answer);
    Way forget(std::span<std::uint8_t> message, const fuse_in_header& header);
    Way forget_many(std::span<std::uint8_t> message);
    std::uint64_t left_to_forget(std::uint64_t node, std::uint64_t lookups);
    void closed(base::ByteView arguments);
    Way list(base::ByteView message, base::Bytes& answer, Clock::time_point now);
    void keep_given(const ShareListings::Given& given);
    void begin(base::ByteView arguments);
    void renamed(const fuse_in_header& header, base::ByteView arguments);
    // How long the kernel may believe what it is told now of this name, or of this node.
    std::uint64_t believes(const std::string& name, std::uint64_t node, Clock::time_point now);
    // One belief more would be too many. The old ones are looked for once in a while only.
    bool is_full_of_beliefs(Clock::time_point now);
    void end_beliefs();
    void keep_contents(std::uint64_t node, base::ByteView contents, Clock::time_point now);
    static bool is_fresh(Clock::time_point since, Clock::time_point now);
    const File* fresh(std::uint64_t node, Clock::time_point now) const;
    bool is_missing(std::uint64_t directory, Clock::time_point now) const;
    void keep(const wire::ShareFile& told, bool with_name, Clock::time_point now);
    void keep_name(std::uint64_t parent, std::string_view name, std::uint64_t node, Clock::time_point now);
    void forget_name(std::uint64_t parent, std::string_view name);
    static std::string key_of(std::uint64_t parent, std::string_view name);
    static std::uint64_t parent_of(const std::string& key);

    struct Contents {
        base::Bytes bytes;
        Clock::time_point since;
    };
    Kept<std::uint64_t, File> files_{kMostKept};
    std::unordered_map<std::uint64_t, Contents> contents_;
    ShareListings listings_;
    std::unordered_set<std::uint64_t> changing_;  // requests under way that may change what is in a file, or listed
    Kept<std::string, Name> names_{kMostKept};  // key_of()
    // Lookups that the kernel was answered from here: the server knows nothing of them, and must not hear of their end.
    std::unordered_map<std::uint64_t, std::uint64_t> lookups_;
    // Nodes on which the kernel asked for a lock: then it matters when they are closed.
    std::unordered_set<std::uint64_t> locked_;
    // What the kernel was told for long, until when; names as in key_of().
    std::unordered_map<std::string, Clock::time_point> believed_names_;
    std::unordered_map<std::uint64_t, Clock::time_point> believed_nodes_;
    Clock::time_point beliefs_cleared_{};
    Clock::time_point not_kept_{};  // when something was told of a file that is not known here
    bool can_expire_ = false;  // the kernel knows how to end a belief without more
    base::Bytes notices_;
};

}  // namespace caisson::agent
