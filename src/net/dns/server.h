// Server: the name server that the guest asks. It answers questions for addresses of names that policy allows, and says
// of every other name that it does not exist (an answer 0.0.0.0 would lead the guest to itself, and REFUSED makes it ask
// twice). Owned by one os::Loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "net/dns/message.h"
#include "net/dns/resolver.h"
#include "os/fd.h"
#include "os/loop.h"

namespace caisson::net::dns {

// How a question ended, for records and pins.
struct Question {
    enum class Verdict : std::uint8_t {
        kAnswered,
        kDenied,       // by judge(); the guest hears that there is no such name
        kNoSuchName,
        kNoData,       // also: a type that is not served, IPv6 where there is none
        kDropped,      // all its addresses were such as may not be used
        kFailed,       // `why`: the resolver's reason
        kLimited,      // too many questions; told once a second at most
        kMalformed,    // `name` is empty; told once a second at most
    };
    std::string name;
    Type type = Type::kA;
    Verdict verdict = Verdict::kAnswered;
    std::vector<Address> addresses;  // as the guest gets them
    std::vector<Address> dropped;
    std::uint32_t ttl = 0;           // seconds, as the guest gets it
    Resolved::Kind why = Resolved::Kind::kAddresses;
    bool over_tcp = false;
};
const char* to_string(Question::Verdict verdict);

class Server {
  public:
    struct Options {
        os::Loop* loop = nullptr;      // both outlive the server
        Resolver* resolver = nullptr;
        // Whether policy lets the guest know of this name (canonical). Asked for each question.
        std::function<bool(const std::string& name)> judge;
        // Told before the guest gets the answer, so that a pin is in place when it connects. May be nullptr.
        std::function<void(const Question&)> on_question;
        bool ipv6 = true;              // false: a question for AAAA has no data
        std::uint32_t questions_per_second = kMostQuestionsPerSecond;
        std::uint32_t questions_at_once = kMostQuestionsAtOnce;
        std::chrono::milliseconds session_idle = kSessionIdle;
    };
    // Sends one datagram to whoever asked. Called from within on_datagram() or long after it, at most once, never after the server
    // was destroyed.
    using SendReply = std::function<void(base::ByteView)>;

    explicit Server(Options options);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    void on_datagram(base::ByteView query, SendReply reply);
    // A connection of the guest to port 53, non-blocking; the server owns it from now on and ends it by itself. Errors:
    // of watching it (it is closed then).
    Result<> on_stream(os::Fd connection);
    void set_ipv6(bool ipv6);

    struct Counts {
        std::uint64_t questions = 0, answered = 0, denied = 0, dropped = 0, failed = 0, limited = 0, malformed = 0;
    };
    const Counts& counts() const;
    std::size_t sessions() const;  // open connections

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace caisson::net::dns
