// Messages of a guest's kernel to a share server, and what it answers and tells: for its tests.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "os/file.h"
#include "volume/share/server.h"

namespace caisson::volume::share {

using News = std::vector<wire::ShareNews>;
using enum wire::ShareNews;

struct Answer {
    int error = -1;  // -1: none
    base::Bytes data;
    template <typename T>
    T as() const {
        T value{};
        if (data.size() >= sizeof value) std::memcpy(&value, data.data(), sizeof value);
        return value;
    }
};

// Messages of a kernel, one by one, to a server on the same thread.
class ShareServer : public ::testing::Test {
  protected:
    static constexpr std::uint32_t kWritten = 0, kRead = 1;
    ShareServer()
        : place_(os::TemporaryDirectory::create("/tmp", "share").value()),
          loop_(os::Loop::create().value()),
          pair_(os::make_socketpair(SOCK_STREAM).value()),
          window_(wire::kShareWindowBytes),
          server_(loop_, std::move(pair_.second), window_) {
        for (const char* name : {"written", "read", "outside"}) EXPECT_EQ(::mkdir(path(name).c_str(), 0700), 0);
        for (const char* name : {"written/f", "read/f", "outside/f"}) EXPECT_TRUE(os::write_file_atomic(path(name), "kept"));
        EXPECT_EQ(::symlink("../outside/f", path("written/out").c_str()), 0);
        EXPECT_EQ(::mkfifo(path("written/pipe").c_str(), 0600), 0);
        add(kWritten, "written", false);
        add(kRead, "read", true);
        server_.on_end = [this](const std::string& broken) { ended_ = broken.empty() ? "hung up" : broken; };
        EXPECT_TRUE(server_.start());
        fuse_init_in init{};
        init.major = FUSE_KERNEL_VERSION;
        init.minor = FUSE_KERNEL_MINOR_VERSION;
        EXPECT_EQ(ask(FUSE_INIT, 0, {of(init)}).error, 0);
        written_ = look_up(FUSE_ROOT_ID, "m0").as<fuse_entry_out>().nodeid;
        read_ = look_up(FUSE_ROOT_ID, "m1").as<fuse_entry_out>().nodeid;
    }
    void add(std::uint32_t number, const char* name, bool read_only) {
        auto mount = std::make_shared<Mount>();
        mount->number = number;
        mount->root = os::Fd(::open(path(name).c_str(), O_PATH | O_CLOEXEC));
        mount->read_only = read_only;
        server_.tree().add(mount);
    }
    std::string path(const std::string& name) const { return place_.path() + "/" + name; }
    std::string text(const std::string& name) const { return os::read_file(path(name), 1000).value_or("?"); }

    template <typename T>
    static std::string of(const T& value) {
        return {reinterpret_cast<const char*>(&value), sizeof value};
    }
    static std::string name(const std::string& text) { return text + '\0'; }
    static base::Bytes message(std::uint32_t operation, std::uint64_t node, const std::vector<std::string>& parts) {
        std::string arguments;
        for (const auto& part : parts) arguments += part;
        fuse_in_header header{};
        header.len = static_cast<std::uint32_t>(sizeof header + arguments.size());
        header.opcode = operation;
        header.unique = 77;
        header.nodeid = node;
        auto all = of(header) + arguments;
        return {all.begin(), all.end()};
    }
    Answer ask(std::uint32_t operation, std::uint64_t node, const std::vector<std::string>& parts) {
        const auto bytes = message(operation, node, parts);
        EXPECT_EQ(::send(pair_.first.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
        for (int i = 0; i < 3; ++i) EXPECT_TRUE(loop_.step(std::chrono::milliseconds(0)));
        Answer answer;
        fuse_out_header header{};
        if (::recv(pair_.first.get(), &header, sizeof header, MSG_DONTWAIT) != sizeof header) return answer;
        EXPECT_EQ(header.unique, 77u);
        answer.error = -header.error;
        answer.data.resize(header.len - sizeof header);
        const ssize_t rest = answer.data.empty() ? 0 : ::recv(pair_.first.get(), answer.data.data(), answer.data.size(), MSG_DONTWAIT);
        EXPECT_EQ(rest, static_cast<ssize_t>(answer.data.size()));
        return answer;
    }
    // What the server sent: what it tells the agent, and at the end the answer, if there is one.
    struct Heard {
        std::vector<wire::ShareNews> news;
        Answer answer;
        std::vector<base::Bytes> data;
    };
    Heard hear() {
        Heard heard;
        for (int i = 0; i < 3; ++i) EXPECT_TRUE(loop_.step(std::chrono::milliseconds(0)));
        fuse_out_header header{};
        while (::recv(pair_.first.get(), &header, sizeof header, MSG_DONTWAIT) == sizeof header) {
            base::Bytes data(header.len - sizeof header);
            const ssize_t rest = data.empty() ? 0 : ::recv(pair_.first.get(), data.data(), data.size(), MSG_DONTWAIT);
            EXPECT_EQ(rest, static_cast<ssize_t>(data.size()));
            if (header.unique != 0) {
                heard.answer = {-header.error, data};
                continue;
            }
            heard.news.push_back(static_cast<wire::ShareNews>(header.error));
            heard.data.push_back(data);
        }
        return heard;
    }
    Heard send(base::ByteView bytes) {
        EXPECT_EQ(::send(pair_.first.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
        return hear();
    }
    // As ask_and_hear(), of a request with a slot: 1 is the first one.
    Heard ask_with_slot(std::uint32_t operation, std::uint64_t node, const std::vector<std::string>& parts, wire::ShareSlot slot) {
        auto bytes = message(operation, node, parts);
        std::memcpy(bytes.data() + wire::kShareSlotAt, &slot, sizeof slot);
        return send(bytes);
    }
    Heard ask_and_hear(std::uint32_t operation, std::uint64_t node, const std::vector<std::string>& parts) {
        return send(message(operation, node, parts));
    }
    // From now on the server tells what it promises.
    void keep(std::uint32_t flags = 0) {
        const auto message = wire::share_keeps(flags);
        EXPECT_EQ(send(base::bytes_of(message)).news, std::vector<wire::ShareNews>{wire::ShareNews::kWindow});
    }
    os::Fd presence_file() const { return os::Fd(::open(path("presence").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)); }
    // Somebody who comes to that volume while the server serves, and what it tells its agent meanwhile.
    std::shared_ptr<Presence> company(std::vector<wire::ShareNews>& news) {
        std::shared_ptr<Presence> other;
        std::atomic<bool> entered{false};
        std::thread comes([&] {
            other = Presence::enter(presence_file()).value();
            entered = true;
        });
        while (!entered) {
            EXPECT_TRUE(loop_.step(std::chrono::milliseconds(1)));
            for (auto one : hear().news) news.push_back(one);
        }
        comes.join();
        return other;
    }
    // A mount of a volume that others may have as well. The node of its directory.
    std::uint64_t add_shared() {
        auto mount = std::make_shared<Mount>();
        mount->number = 2;
        mount->root = os::Fd(::open(path("written").c_str(), O_PATH | O_CLOEXEC));
        mount->presence = Presence::enter(presence_file()).value();
        server_.add_mount(std::move(mount));
        return ask_and_hear(FUSE_LOOKUP, FUSE_ROOT_ID, {name("m2")}).answer.as<fuse_entry_out>().nodeid;
    }
    // A message that nobody waits for, and what is told then.
    Heard say(std::uint32_t operation, std::uint64_t node, const std::vector<std::string>& parts) {
        auto bytes = message(operation, node, parts);
        std::memset(bytes.data() + offsetof(fuse_in_header, unique), 0, sizeof(std::uint64_t));
        return send(bytes);
    }
    Answer look_up(std::uint64_t node, const std::string& text) { return ask(FUSE_LOOKUP, node, {name(text)}); }
    std::uint64_t node_of(std::uint64_t parent, const std::string& text) { return look_up(parent, text).as<fuse_entry_out>().nodeid; }
    Answer open(std::uint64_t node, std::uint32_t flags) { return ask(FUSE_OPEN, node, {of(fuse_open_in{flags, 0})}); }
    Answer write(std::uint64_t node, std::uint64_t handle) {
        fuse_write_in in{};
        in.fh = handle;
        in.size = 3;
        return ask(FUSE_WRITE, node, {of(in), "new"});
    }

    os::TemporaryDirectory place_;
    os::Loop loop_;
    os::FdPair pair_;
    base::Bytes window_;
    Server server_;
    std::string ended_;
    std::uint64_t written_ = 0, read_ = 0;
};

}  // namespace caisson::volume::share
