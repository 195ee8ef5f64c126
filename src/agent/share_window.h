// What files hold, on its way between the guest's kernel and the share server, if it is much: through a block device in
// place of the port, which takes it in pieces of 4 KiB (wire/share.h). Not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "os/fd.h"
#include "wire/share.h"

namespace caisson::agent {

class ShareWindow {
  public:
    // What pays: a way to the device costs as much as these bytes over the port.
    static constexpr std::size_t kLeastBytes = 128 << 10;

    // The largest message either way: what one carries and what stands before it. The kernel refuses reads into less.
    static constexpr std::size_t kMessageBytes = wire::kShareSlotBytes + 8192;

    // `device`: open for reading and writing with O_DIRECT, as large as the window. Not open: there is no such device, and all
    // goes through the port.
    explicit ShareWindow(os::Fd device);

    // Where a message of the kernel's is to be read to, so that what a WRITE writes lies as the device wants it.
    std::span<std::uint8_t> message();
    // A message there that is to go to the server now: what of it goes through the port.
    std::span<std::uint8_t> send(std::span<std::uint8_t> message);
    // Each message of the server's, before anything else sees it. Nothing: it was for this. The same message, or the one for
    // the kernel that it stands for, which stays until the next call. EIO in it: the device did not give what it holds.
    std::optional<base::ByteView> receive(base::ByteView message);

  private:
    struct Free {
        std::size_t alignment;
        void operator()(std::uint8_t* memory) const;
    };
    using Memory = std::unique_ptr<std::uint8_t[], Free>;
    static Memory allocate(std::size_t alignment);
    void use_huge_pages();
    base::ByteView fetch(const wire::ShareInSlot& in);
    void free_slot(std::uint64_t unique);

    os::Fd device_;
    bool open_ = false;  // the server has it, too
    Memory sent_, received_;
    bool moves_much_ = false;
    std::array<std::uint64_t, wire::kShareSlots> users_{};  // the request that has each slot; 0: free
};

}  // namespace caisson::agent
