#include "net/space/gate.h"

#include "net/space/limits.h"

namespace caisson::net {

Gate::Arrival Gate::arrive(std::uint32_t packet, const Beginning& beginning, Time now) {
    const Ends ends{beginning.guest, beginning.outside};
    forget_old(now);
    if (auto decided = decided_.find(ends); decided != decided_.end() && decided->second.sequence == beginning.sequence)
        return {.what = Arrival::What::kDecided, .verdict = decided->second.verdict};
    if (auto known = numbers_.find(ends); known != numbers_.end()) {
        auto& held = held_.at(known->second);
        if (held.sequence == beginning.sequence) return {};
        // The guest gave up and began anew between the same ends: the answer to the question is for this one.
        held.sequence = beginning.sequence;
        return {.what = Arrival::What::kWait, .replaced = std::exchange(held.packet, packet)};
    }
    if (held_.size() >= kMostHeldConnections) return {};
    const auto number = next_++;
    held_.emplace(number, Held{ends, beginning.sequence, packet, now});
    numbers_.emplace(ends, number);
    return {.what = Arrival::What::kAsk, .number = number};
}

std::optional<std::uint32_t> Gate::decide(std::uint64_t number, Verdict verdict, Time now) {
    const auto found = held_.find(number);
    if (found == held_.end()) return std::nullopt;
    const auto held = found->second;
    forget(number);
    remember(held, verdict, now);
    return held.packet;
}

void Gate::forget(std::uint64_t number) {
    const auto found = held_.find(number);
    if (found == held_.end()) return;
    numbers_.erase(found->second.ends);
    held_.erase(found);
}

void Gate::remember(const Held& held, Verdict verdict, Time now) {
    decided_[held.ends] = {held.sequence, verdict, now};
    order_.emplace_back(now, held.ends);
    forget_old(now);
}

void Gate::forget_old(Time now) {
    const auto oldest = now - std::chrono::milliseconds(kVerdictRememberedMs);
    while (!order_.empty() && (order_.front().first < oldest || order_.size() > kMostRememberedVerdicts)) {
        const auto decided = decided_.find(order_.front().second);
        if (decided != decided_.end() && decided->second.when == order_.front().first) decided_.erase(decided);
        order_.pop_front();
    }
}

std::vector<std::uint32_t> Gate::expire(Time now) {
    std::vector<std::uint32_t> packets;
    const auto oldest = now - std::chrono::milliseconds(kLongestHoldMs);
    while (!held_.empty() && held_.begin()->second.since < oldest) {
        packets.push_back(held_.begin()->second.packet);
        forget(held_.begin()->first);
    }
    forget_old(now);
    return packets;
}

std::vector<std::uint32_t> Gate::give_up() {
    std::vector<std::uint32_t> packets;
    for (const auto& [number, held] : held_) packets.push_back(held.packet);
    held_.clear();
    numbers_.clear();
    decided_.clear();
    order_.clear();
    return packets;
}

}  // namespace caisson::net
