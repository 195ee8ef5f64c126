// Volumes in the guest. The file system that holds all of a box's shares is mounted in the agent's own mount namespace
// only; what a container gets is one entry of it at a time, as a mount of its own, and no way from there to the others.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/clone.h"
#include "base/result.h"
#include "os/fd.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

inline constexpr int kMaxShares = 256;

// A share on its way into the container.
struct ShareTree {
    os::Fd tree;  // of open_tree(2): a mount that is nowhere yet
    std::string entry;
    std::string target;
    bool directory = true;
};

// Whether this kernel (uname's release) drops from its memory what was written past it, also if somebody read it meanwhile.
// Source: Linux's "fuse: Invalidate the page cache after FOPEN_DIRECT_IO write", of 6.19 and 6.12.64. Of others it is not known.
bool drops_what_is_written_past(std::string_view release);

class Shares {
  public:
    Shares() = default;
    Shares(Shares&&) = default;
    Shares& operator=(Shares&&) = default;
    ~Shares() { stop(); }

    // Mounts the file system, which the host serves through the port named "shares", as seen by a box whose command has
    // these ids. In the guest's mount namespace.
    static Result<Shares> start(std::uint32_t user, std::uint32_t group);
    // One entry, with the flags that it is to be mounted with. In the guest's mount namespace.
    Result<ShareTree> take(const wire::ShareMount& mount) const;
    bool started() const { return static_cast<bool>(pump_.pidfd); }
    // Writes back what maps of files still hold, if nothing of the container uses a share any more.
    void stop();

  private:
    Child pump_;
};

// One that is in its place.
struct PlacedShare {
    std::string target;
    std::uint64_t mount = 0;  // the kernel's number of it
};

// In the container's mount namespace: makes the target if it is missing, and puts the share there.
Result<PlacedShare> put_in_place(const ShareTree& share);
// The other way round. Not an error if the container has done it itself. EBUSY: it is used, and not `even_if_used`.
Result<> take_away(const PlacedShare& share, bool even_if_used);

}  // namespace caisson::agent
