// The port of shares carries FUSE messages and some of ours, which look like them, so that both sides need one way of
// reading only.
//
// What a file holds goes another way if it is much, for a port takes it in pieces of 4 KiB: through the window, memory of
// the host's that the machine has as a block device and the server as memory. It has slots, which are the agent's to give: a
// request that says one (share_slot()) has what it writes there, or wants what it reads there.
//
// To the server, before all others: as whom the box's command runs (kShareIdentity), and that the agent keeps what it is
// promised (kShareKeeps). A request whose `unique` is 0 is not answered.
//
// To the agent: promises, which have the `unique` 0 and one of ShareNews as their `error`. While a box is the only one
// that has a volume, the server tells what the guest's kernel is going to ask, and what of it has changed; the agent
// answers from that, and neither the machine nor the server has work with it.
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace caisson::wire {

inline constexpr std::uint32_t kShareIdentity = 0xca150001;  // its operation; arguments: user, group
inline constexpr std::uint32_t kShareKeeps = 0xca150002;     // ShareKeeps
inline constexpr std::uint32_t kShareList = 0xca150003;      // ShareList: of the header's node, which is not answered but told (kListed)

struct ShareIdentity {
    std::uint32_t user;
    std::uint32_t group;
};

struct ShareKeeps {
    // The guest's kernel has nothing in its memory of what was written past it.
    static constexpr std::uint32_t kWritesPast = 1;
    std::uint32_t flags;
    std::uint32_t unused;
};

inline constexpr char kShareWindowSerial[] = "window";       // of the block device
inline constexpr std::size_t kShareSlotBytes = 1 << 20;  // what one READ or WRITE carries at most
inline constexpr std::size_t kShareSlots = 4;
inline constexpr std::size_t kShareWindowBytes = kShareSlots * kShareSlotBytes;

// Far from errors, which are negative, and from what FUSE tells a kernel, which is small.
enum class ShareNews : std::int32_t {
    kName = 0x0a150001,   // ShareName, ShareFile and the name: it leads there, and was counted as looked up
    kFile = 0x0a150002,   // ShareFile: of a file that was told of with a name
    kNoName = 0x0a150003,  // ShareName and the name: nothing is known of it any more
    kNoFile = 0x0a150004,  // its node (8 bytes): nothing is known of its attributes any more
    kGone = 0x0a150005,  // ShareName and the name: there is none such
    kNothing = 0x0a150006,  // everything that was told is void
    kContents = 0x0a150007,  // its node (8 bytes) and all that is in the file, which was just opened to be read
    kWindow = 0x0a150008,    // no promise: the server has the window
    kInSlot = 0x0a150009,    // no promise, but the answer to a READ: ShareInSlot
    kListed = 0x0a15000a,    // ShareListed and what a READDIR or READDIRPLUS there would be answered with; its lookups were counted
};

struct ShareName {
    std::uint64_t parent;
};

struct ShareFile {
    static constexpr std::uint32_t kNoCapability = 1;  // it has no attribute "security.capability"
    static constexpr std::uint32_t kEmpty = 2;  // a directory: whatever is made in it will be told of
    std::uint64_t node;
    std::uint32_t flags;
    std::uint32_t unused;
    fuse_attr attributes;
};

// Of a small file: what the kernel asks for next when it has opened one.
inline constexpr std::size_t kShareMostContents = 4096;

struct ShareInSlot {
    std::uint64_t unique;  // of the READ
    std::uint32_t slot;    // 0 is the first one
    std::uint32_t length;  // of what was read
};

// A directory's listing goes to the kernel in pieces as large as one of its pages. Those behind the one that it asked for
// are told before it asks for them: the first one when the directory is opened, more when the agent wants them.
inline constexpr std::uint32_t kSharePieceBytes = 4096;
inline constexpr std::uint32_t kShareMostPieces = 4;

struct ShareList {
    std::uint64_t handle;
    std::uint64_t offset;
    std::uint32_t pieces;  // so many are told, or kShareMostPieces, or fewer; then a word that says kDone
    std::uint32_t plus;    // not 0: as READDIRPLUS
};

struct ShareListed {
    static constexpr std::uint32_t kPlus = 1;
    static constexpr std::uint32_t kEnd = 2;   // behind this piece there is nothing
    static constexpr std::uint32_t kDone = 4;  // no piece: all is told that one ShareList asked for
    std::uint64_t handle;
    std::uint64_t offset;
    std::uint64_t next;  // where it goes on
    std::uint32_t flags;
    std::uint32_t unused;
};

// The last bytes of a request's header, which are the kernel's padding: 0, or 1 more than the number of a slot.
using ShareSlot = std::uint16_t;
inline constexpr std::size_t kShareSlotAt = sizeof(fuse_in_header) - sizeof(ShareSlot);
inline ShareSlot share_slot(const fuse_in_header& header) {
    ShareSlot slot = 0;
    std::memcpy(&slot, reinterpret_cast<const std::uint8_t*>(&header) + kShareSlotAt, sizeof slot);
    return slot;
}

// What the agent says first, as it goes over the port.
struct ShareIntroduction {
    fuse_in_header header;
    ShareIdentity identity;
};

inline fuse_in_header share_message(std::uint32_t operation, std::size_t length) {
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(length);
    header.opcode = operation;
    return header;
}
inline ShareIntroduction share_identity(std::uint32_t user, std::uint32_t group) {
    return {share_message(kShareIdentity, sizeof(ShareIntroduction)), {user, group}};
}
struct ShareKeepsMessage {
    fuse_in_header header;
    ShareKeeps keeps;
};
inline ShareKeepsMessage share_keeps(std::uint32_t flags) { return {share_message(kShareKeeps, sizeof(ShareKeepsMessage)), {flags, 0}}; }

}  // namespace caisson::wire
