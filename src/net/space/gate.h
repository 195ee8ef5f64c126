// Which connections of the guest wait for a verdict, and which have had theirs. Pure bookkeeping: packets are numbers here.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "net/space/packet.h"
#include "net/space/protocol.h"

namespace caisson::net {

// A guest's kernel sends the beginning of a connection again and again until it is answered. All of one attempt (the same
// ends and the same first number) is one question and has one verdict.
class Gate {
  public:
    using Time = std::chrono::steady_clock::time_point;
    using Verdict = NetnsMessage::Verdict;

    struct Arrival {
        enum class What {
            kAsk,      // it waits, and `number` is to be asked about
            kWait,     // it waits for what was asked already
            kDrop,     // there is nothing to be done with it
            kDecided,  // `verdict` is known
        };
        What what = What::kDrop;
        std::uint64_t number = 0;            // of kAsk: what the question is known by
        Verdict verdict = Verdict::kSilence;  // of kDecided
        std::optional<std::uint32_t> replaced;  // a packet that waited in this one's place: to be dropped
    };
    Arrival arrive(std::uint32_t packet, const Beginning& beginning, Time now);
    // The packet that waited for it; nullopt: none does (any more).
    std::optional<std::uint32_t> decide(std::uint64_t number, Verdict verdict, Time now);
    // Takes it back: it was not asked after all.
    void forget(std::uint64_t number);
    // Packets that have waited too long. To be called every now and then.
    std::vector<std::uint32_t> expire(Time now);
    // All that wait, and nothing is remembered any more: whoever was asked is gone.
    std::vector<std::uint32_t> give_up();
    std::size_t held() const { return held_.size(); }

  private:
    using Ends = std::pair<Endpoint, Endpoint>;
    struct Held {
        Ends ends;
        std::uint32_t sequence;
        std::uint32_t packet;
        Time since;
    };
    struct Decided {
        std::uint32_t sequence;
        Verdict verdict;
        Time when;
    };
    std::map<std::uint64_t, Held> held_;  // by number, hence by age
    std::map<Ends, std::uint64_t> numbers_;
    std::map<Ends, Decided> decided_;
    std::deque<std::pair<Time, Ends>> order_;  // of what was decided; may name what was decided again since
    std::uint64_t next_ = 1;

    void remember(const Held& held, Verdict verdict, Time now);
    void forget_old(Time now);
};

}  // namespace caisson::net
