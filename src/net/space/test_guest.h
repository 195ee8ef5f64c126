// For tests: a box's network with a small guest at it. The guest is a network namespace of this process's own with a tap
// of its own; a thread carries frames between the two taps, as a VMM does.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "net/space/host.h"
#include "net/space/protocol.h"
#include "os/fd.h"

namespace caisson::net::testing_space {

// Whoever is not root can make network namespaces in a user namespace of its own. Before there are threads.
Result<> become_able();

// Runs what it is given on a thread of its own, one after the other.
class OtherThread {
  public:
    OtherThread();
    ~OtherThread();
    void run(const std::function<void()>& body);

  private:
    void loop();
    std::mutex mutex_;
    std::condition_variable changed_;
    const std::function<void()>* body_ = nullptr;
    bool ending_ = false;
    std::thread thread_;
};

// A box's network, with the side of caisson-netd.
struct Box {
    SpaceHost host;

    static Result<Box> start(uid_t user);
    // What netns says next; nullopt: nothing in that time.
    std::optional<NetnsMessage> hear(int milliseconds, std::vector<os::Fd>* descriptors = nullptr) const;
    void tell(const NetnsMessage& message) const;
    void judge(std::uint64_t number, NetnsMessage::Verdict verdict) const;
    // What is asked for, or the errno that came instead.
    Result<os::Fd> make(NetnsMessage::Kind kind, Protocol protocol, const Endpoint& guest, const Endpoint& outside) const;
    // The next accepted connection; none if there is none in that time.
    os::Fd accept(int milliseconds) const;
};

class Guest {
  public:
    // `box_tap` is copied. With `fixed_neighbours` it need not ask who has the gateway's address.
    static Result<std::unique_ptr<Guest>> create(const os::Fd& box_tap, bool fixed_neighbours = true);
    ~Guest();
    // Made in the guest, for all threads. Non-blocking.
    os::Fd socket(int family, int type, int protocol = 0);
    // A connection that is being made.
    os::Fd connect(const Endpoint& outside);
    // From the guest's kernel to the box, as if it had sent it: an Ethernet frame.
    void inject(base::ByteView frame) const;

  private:
    Guest() = default;
    void pump();
    OtherThread world_;
    os::Fd box_tap_, tap_;
    os::FdPair stop_;
    std::thread pump_;
};

// How a connection that is being made turned out: 0 or an errno; nullopt: not yet, after that time.
std::optional<int> outcome(const os::Fd& socket, int milliseconds);
bool readable(const os::Fd& fd, int milliseconds);
ssize_t send_to(const os::Fd& socket, const std::string& bytes, const Endpoint& to);
Endpoint guest_endpoint(bool six, std::uint16_t port);
Endpoint own_name(const os::Fd& socket);
Endpoint peer_name(const os::Fd& socket);

}  // namespace caisson::net::testing_space
