// What goes through the window, and what is done when it cannot.
#include "agent/share_window.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace caisson::agent {
namespace {

// In the device's place a file of the same size.
class ShareWindowTest : public ::testing::Test {
  protected:
    ShareWindowTest() : file_(::memfd_create("window", MFD_CLOEXEC)), window_(os::Fd(::dup(file_.get()))) {
        EXPECT_EQ(::ftruncate(file_.get(), wire::kShareWindowBytes), 0);
    }
    void open() { EXPECT_FALSE(receive(wire::ShareNews::kWindow, {})); }
    std::optional<base::ByteView> receive(wire::ShareNews news, base::ByteView data) {
        return window_.receive(told_ = answer(0, static_cast<std::int32_t>(news), data));
    }
    static base::Bytes answer(std::uint64_t unique, std::int32_t error, base::ByteView data = {}) {
        const fuse_out_header header{static_cast<std::uint32_t>(sizeof header + data.size()), error, unique};
        base::Bytes message;
        base::append(message, base::bytes_of(header));
        base::append(message, data);
        return message;
    }
    // What of a request goes over the port.
    std::span<std::uint8_t> send(std::uint32_t operation, std::uint64_t unique, base::ByteView arguments, std::size_t more = 0) {
        fuse_in_header header{};
        header.len = static_cast<std::uint32_t>(sizeof header + arguments.size() + more);
        header.opcode = operation;
        header.unique = unique;
        const auto room = window_.message();
        EXPECT_GE(room.size(), header.len);
        std::memcpy(room.data(), &header, sizeof header);
        std::memcpy(room.data() + sizeof header, arguments.data(), arguments.size());
        std::memset(room.data() + sizeof header + arguments.size(), 'w', more);
        return window_.send(room.first(header.len));
    }
    std::span<std::uint8_t> read(std::uint64_t unique, std::uint32_t size) {
        fuse_read_in in{};
        in.size = size;
        return send(FUSE_READ, unique, base::bytes_of(in));
    }
    std::span<std::uint8_t> write(std::uint64_t unique, std::uint32_t size) {
        fuse_write_in in{};
        in.size = size;
        return send(FUSE_WRITE, unique, base::bytes_of(in), size);
    }
    static unsigned slot_of(std::span<std::uint8_t> message) {
        fuse_in_header header{};
        std::memcpy(&header, message.data(), sizeof header);
        EXPECT_EQ(header.len, message.size());
        return wire::share_slot(header);
    }
    std::string in_slot(std::size_t slot, std::size_t length) const {
        std::string text(length, 0);
        EXPECT_EQ(::pread(file_.get(), text.data(), length, static_cast<off_t>(slot * wire::kShareSlotBytes)), static_cast<ssize_t>(length));
        return text;
    }

    os::Fd file_;
    ShareWindow window_;
    base::Bytes told_;
    static constexpr std::uint32_t kMuch = wire::kShareSlotBytes;
};

TEST_F(ShareWindowTest, IsUsedOnceTheServerHasIt) {
    EXPECT_EQ(slot_of(read(1, kMuch)), 0u);
    EXPECT_EQ(write(1, kMuch).size(), sizeof(fuse_in_header) + sizeof(fuse_write_in) + kMuch);
    open();
    EXPECT_EQ(slot_of(read(1, kMuch)), 1u);
    EXPECT_EQ(slot_of(read(2, ShareWindow::kLeastBytes - 1)), 0u) << "little is faster over the port";
    const auto written = write(3, kMuch - 1);
    EXPECT_EQ(written.size(), sizeof(fuse_in_header) + sizeof(fuse_write_in));
    EXPECT_EQ(slot_of(written), 2u);
    EXPECT_EQ(in_slot(1, kMuch - 1), std::string(kMuch - 1, 'w'));
}

TEST_F(ShareWindowTest, ASlotIsFreeAfterItsAnswer) {
    open();
    for (std::uint64_t unique = 1; unique <= wire::kShareSlots; ++unique) EXPECT_EQ(slot_of(read(unique, kMuch)), unique);
    EXPECT_EQ(slot_of(read(9, kMuch)), 0u);
    EXPECT_EQ(write(9, kMuch).size(), sizeof(fuse_in_header) + sizeof(fuse_write_in) + kMuch) << "all goes over the port";
    const auto refused = answer(2, -EIO);
    EXPECT_EQ(window_.receive(refused)->data(), refused.data());
    EXPECT_EQ(slot_of(read(10, kMuch)), 2u);
    EXPECT_TRUE(receive(wire::ShareNews::kInSlot, base::bytes_of(wire::ShareInSlot{3, 2, 10})));
    EXPECT_EQ(slot_of(write(11, kMuch)), 3u);
}

TEST_F(ShareWindowTest, TheKernelGetsWhatWasRead) {
    open();
    EXPECT_EQ(slot_of(read(1, kMuch)), 1u);
    EXPECT_EQ(slot_of(read(2, kMuch)), 2u);
    EXPECT_EQ(::pwrite(file_.get(), "what was read", 13, wire::kShareSlotBytes), 13);
    const auto given = receive(wire::ShareNews::kInSlot, base::bytes_of(wire::ShareInSlot{2, 1, 13}));
    ASSERT_TRUE(given);
    fuse_out_header header{};
    std::memcpy(&header, given->data(), sizeof header);
    EXPECT_EQ(header.unique, 2u);
    EXPECT_EQ(header.error, 0);
    EXPECT_EQ(header.len, given->size());
    EXPECT_EQ(base::as_text(given->subspan(sizeof header)), "what was read");
}

TEST_F(ShareWindowTest, WhatCannotBeIsAnError) {
    open();
    auto error_of = [&](wire::ShareInSlot in) {
        const auto given = receive(wire::ShareNews::kInSlot, base::bytes_of(in));
        fuse_out_header header{};
        EXPECT_TRUE(given && given->size() == sizeof header);
        std::memcpy(&header, given->data(), sizeof header);
        EXPECT_EQ(header.unique, in.unique);
        return -header.error;
    };
    EXPECT_EQ(error_of({7, 0, 10}), EIO) << "nobody asked for it";
    EXPECT_EQ(slot_of(read(1, kMuch)), 1u);
    EXPECT_EQ(error_of({1, 1, 10}), EIO) << "in another slot";
    EXPECT_EQ(slot_of(read(1, kMuch)), 1u);
    EXPECT_EQ(error_of({1, 9, 10}), EIO);
    EXPECT_EQ(slot_of(read(1, kMuch)), 1u);
    EXPECT_EQ(error_of({1, 0, wire::kShareSlotBytes + 1}), EIO);
    // A device that is smaller than it said.
    EXPECT_EQ(::ftruncate(file_.get(), 4096), 0);
    EXPECT_EQ(slot_of(read(1, kMuch)), 1u);
    EXPECT_EQ(error_of({1, 0, 8192}), EIO);
}

TEST(ShareWindowNone, AllGoesOverThePort) {
    ShareWindow window{os::Fd()};
    base::Bytes told;
    base::append(told, base::bytes_of(fuse_out_header{sizeof(fuse_out_header), static_cast<std::int32_t>(wire::ShareNews::kWindow), 0}));
    EXPECT_FALSE(window.receive(told));
    const auto room = window.message();
    fuse_in_header header{};
    fuse_read_in in{};
    in.size = wire::kShareSlotBytes;
    header.len = sizeof header + sizeof in;
    header.opcode = FUSE_READ;
    header.unique = 1;
    std::memcpy(room.data(), &header, sizeof header);
    std::memcpy(room.data() + sizeof header, &in, sizeof in);
    const auto sent = window.send(room.first(header.len));
    EXPECT_EQ(std::memcmp(sent.data(), &header, sizeof header), 0);
}

}  // namespace
}  // namespace caisson::agent
