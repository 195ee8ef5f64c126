#include "agent/share_window.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

namespace caisson::agent {

namespace {

constexpr std::size_t kPage = 4096;  // what the device transfers lies at multiples of this, and is as long
constexpr std::size_t kHugePage = 2 << 20;
constexpr std::size_t kBeforeWritten = sizeof(fuse_in_header) + sizeof(fuse_write_in);

std::size_t whole_pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// All of it or nothing.
template <typename Move>
bool transfer(std::size_t length, std::size_t slot, Move move) {
    const auto wanted = whole_pages(length);
    for (std::size_t done = 0; done < wanted;) {
        const ssize_t moved = move(done, wanted - done, static_cast<off_t>(slot * wire::kShareSlotBytes + done));
        if (moved < 0 && errno == EINTR) continue;
        if (moved <= 0) return false;
        done += static_cast<std::size_t>(moved);
    }
    return true;
}

}  // namespace

void ShareWindow::Free::operator()(std::uint8_t* memory) const { ::operator delete[](memory, std::align_val_t(alignment)); }

ShareWindow::Memory ShareWindow::allocate(std::size_t alignment) {
    const auto bytes = std::max(alignment, kPage + whole_pages(kMessageBytes));
    return Memory(new (std::align_val_t(alignment)) std::uint8_t[bytes], Free{alignment});
}

ShareWindow::ShareWindow(os::Fd device) : device_(std::move(device)), sent_(allocate(kPage)), received_(allocate(kPage)) {}

// One page in place of 256: a third less for the device's driver to do. Not before it pays, for each takes 2 MiB of the guest.
void ShareWindow::use_huge_pages() {
    for (auto* memory : {&sent_, &received_}) {
        *memory = allocate(kHugePage);
        static_cast<void>(::madvise(memory->get(), kHugePage, MADV_HUGEPAGE));
    }
}

std::span<std::uint8_t> ShareWindow::message() {
    if (moves_much_ && sent_.get_deleter().alignment != kHugePage) use_huge_pages();
    return {sent_.get() + kPage - kBeforeWritten, kMessageBytes};
}

std::span<std::uint8_t> ShareWindow::send(std::span<std::uint8_t> message) {
    fuse_in_header header{};
    const auto unused = std::find(users_.begin(), users_.end(), 0);
    if (!open_ || unused == users_.end() || message.size() < sizeof header) return message;
    std::memcpy(&header, message.data(), sizeof header);
    const auto slot = static_cast<std::size_t>(unused - users_.begin());
    if (header.opcode == FUSE_READ) {
        fuse_read_in in{};
        if (message.size() != sizeof header + sizeof in) return message;
        std::memcpy(&in, message.data() + sizeof header, sizeof in);
        if (in.size < kLeastBytes || in.size > wire::kShareSlotBytes) return message;
    } else if (header.opcode == FUSE_WRITE) {
        const auto written = message.size() - std::min(message.size(), kBeforeWritten);
        if (written < kLeastBytes || written > wire::kShareSlotBytes) return message;
        const auto* from = message.data() + kBeforeWritten;
        if (!transfer(written, slot, [&](std::size_t at, std::size_t length, off_t to) { return ::pwrite(device_.get(), from + at, length, to); }))
            return message;
        message = message.first(kBeforeWritten);
        header.len = kBeforeWritten;
    } else {
        return message;
    }
    *unused = header.unique;
    moves_much_ = true;
    std::memcpy(message.data(), &header, sizeof header);
    const auto said = static_cast<wire::ShareSlot>(slot + 1);
    std::memcpy(message.data() + wire::kShareSlotAt, &said, sizeof said);
    return message;
}

std::optional<base::ByteView> ShareWindow::receive(base::ByteView message) {
    fuse_out_header header{};
    if (message.size() < sizeof header) return message;
    std::memcpy(&header, message.data(), sizeof header);
    if (header.unique != 0) {
        free_slot(header.unique);
        return message;
    }
    if (header.error == static_cast<std::int32_t>(wire::ShareNews::kWindow)) {
        open_ = static_cast<bool>(device_);
        return std::nullopt;
    }
    wire::ShareInSlot in{};
    if (header.error != static_cast<std::int32_t>(wire::ShareNews::kInSlot) || message.size() != sizeof header + sizeof in) return message;
    std::memcpy(&in, message.data() + sizeof header, sizeof in);
    const auto fetched = fetch(in);
    free_slot(in.unique);
    return fetched;
}

base::ByteView ShareWindow::fetch(const wire::ShareInSlot& in) {
    fuse_out_header header{};
    header.unique = in.unique;
    header.len = sizeof header;
    const bool is_known = in.slot < users_.size() && users_[in.slot] == in.unique && in.length <= wire::kShareSlotBytes;
    auto* to = received_.get() + kPage;
    if (is_known && transfer(in.length, in.slot, [&](std::size_t at, std::size_t length, off_t from) { return ::pread(device_.get(), to + at, length, from); }))
        header.len += in.length;
    else header.error = -EIO;
    std::memcpy(to - sizeof header, &header, sizeof header);
    return {to - sizeof header, header.len};
}

void ShareWindow::free_slot(std::uint64_t unique) { std::replace(users_.begin(), users_.end(), unique, std::uint64_t{0}); }

}  // namespace caisson::agent
