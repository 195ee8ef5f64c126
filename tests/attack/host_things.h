// What of the host the attempts of attempts.cc go for. Tests only.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/keyctl.h>
#include <mqueue.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <vector>

#include "os/file.h"
#include "os/process.h"
#include "os/user.h"
#include "place.h"

namespace caisson::attack {

inline os::Fd listen_on(const sockaddr* address, socklen_t length, int type = SOCK_STREAM) {
    os::Fd fd(::socket(address->sa_family, type | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::bind(fd.get(), address, length), 0) << errno;
    EXPECT_EQ(::listen(fd.get(), 64), 0);
    return fd;
}

// Of the host, and out of reach. All of it belongs to the user that the jail works as, or is open to everybody: what
// keeps a jailed process away is the jail, not that it is somebody else's.
class HostThings {
  public:
    explicit HostThings(Place& place) {
        const auto home = place.directory("home");
        place.directory("home/boxes");
        place.directory("home/boxes/other");
        for (const char* name : {"home/caisson.db", "home/secret", "home/boxes/other/disk.qcow2"}) place.file(name, "of the host", 0644);
        arguments_ = {"file=" + place.file("file", "of the host", 0644), "home=" + home};
        listen_everywhere(home + "/boxes/other/socket");
        auto number = std::to_string(::getpid());
        key_ = 0x0ca15508 + static_cast<int>(::getpid());
        segment_ = ::shmget(key_, 4096, IPC_CREAT | 0666);
        EXPECT_GE(segment_, 0);
        queue_name_ = "/caisson-attempts-" + number;
        mq_attr size{.mq_flags = 0, .mq_maxmsg = 1, .mq_msgsize = 8, .mq_curmsgs = 0, .__pad = {}};
        queue_ = ::mq_open(queue_name_.c_str(), O_RDWR | O_CREAT, 0666, &size);
        EXPECT_GE(queue_, 0);
        // A session keyring as a login has one, with a key in it; what this process starts inherits it.
        ::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr);
        ::syscall(SYS_add_key, "user", "caisson-attack-host", "secret", 6, KEY_SPEC_SESSION_KEYRING);
        os::Command sleeper;
        sleeper.arguments = {"/bin/sleep", "1000"};
        if (::geteuid() == 0) {
            auto identity = os::service_identity();
            sleeper.user = identity.user;
            sleeper.group = identity.group;
        }
        victim_ = os::spawn(sleeper).value();
        for (const auto& argument : {"shm=" + std::to_string(key_), "queue=" + queue_name_, "victim=" + std::to_string(victim_.pid())})
            arguments_.push_back(argument);
    }
    ~HostThings() {
        ::shmctl(segment_, IPC_RMID, nullptr);
        ::mq_close(queue_);
        ::mq_unlink(queue_name_.c_str());
        EXPECT_TRUE(victim_.running()) << "the process outside was killed";
    }
    const std::vector<std::string>& arguments() const { return arguments_; }

  private:
    void listen_everywhere(const std::string& path) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        tcp_ = listen_on(reinterpret_cast<sockaddr*>(&address), sizeof address);
        socklen_t length = sizeof address;
        EXPECT_EQ(::getsockname(tcp_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
        arguments_.push_back("port=" + std::to_string(ntohs(address.sin_port)));
        sockaddr_un name{};
        name.sun_family = AF_UNIX;
        path.copy(name.sun_path, sizeof name.sun_path - 1);
        path_ = listen_on(reinterpret_cast<sockaddr*>(&name), sizeof name);
        Place::give(path);
        EXPECT_EQ(::chmod(path.c_str(), 0666), 0);
        arguments_.push_back("socket=" + path);
        // One byte more than the name: attempts.cc counts the zero before it and the one behind it.
        auto abstract = "caisson-attempts-" + std::to_string(::getpid());
        name = {};
        name.sun_family = AF_UNIX;
        abstract.copy(name.sun_path + 1, sizeof name.sun_path - 2);
        abstract_ = listen_on(reinterpret_cast<sockaddr*>(&name), static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + abstract.size()));
        // The same name once more, for local sockets that somebody holds: they are of this type.
        abstract_packets_ = listen_on(reinterpret_cast<sockaddr*>(&name), static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + abstract.size()), SOCK_SEQPACKET);
        arguments_.push_back("abstract=" + abstract);
    }
    std::vector<std::string> arguments_;
    os::Fd tcp_, path_, abstract_, abstract_packets_;
    int key_ = 0;
    int segment_ = -1;
    std::string queue_name_;
    mqd_t queue_ = -1;
    os::Process victim_;
};

}  // namespace caisson::attack
