#include "net/policy/pins.h"

#include <algorithm>

#include "net/policy/limits.h"

namespace caisson::net {

void Pins::drop(const Key& key) {
    const auto pin = pins_.find(key);
    const auto of_name = of_name_.find(key.name);
    by_expiry_.erase({pin->second, key});
    of_name->second.erase({pin->second, key.address});
    if (of_name->second.empty()) of_name_.erase(of_name);
    pins_.erase(pin);
}

void Pins::make_room(const std::string& name, Time now) {
    while (!by_expiry_.empty() && by_expiry_.begin()->first <= now) drop(Key(by_expiry_.begin()->second));
    const auto of_name = of_name_.find(name);
    if (of_name != of_name_.end() && of_name->second.size() >= limits::kMostPinsOfName) drop(Key{of_name->second.begin()->second, name});
    if (pins_.size() >= limits::kMostPins) drop(Key(by_expiry_.begin()->second));
}

void Pins::add(const std::string& name, const Address& address, std::chrono::seconds lives, Time now) {
    const Key key{address, name};
    auto expires = now + std::clamp(lives, limits::kShortestPin, limits::kLongestPin);
    if (const auto known = pins_.find(key); known != pins_.end()) {
        expires = std::max(expires, known->second);
        drop(key);
    }
    make_room(name, now);
    pins_.emplace(key, expires);
    by_expiry_.emplace(expires, key);
    of_name_[name].emplace(expires, address);
}

std::vector<std::string> Pins::names_of(const Address& address, Time now) const {
    std::vector<std::string> names;
    for (auto pin = pins_.lower_bound(Key{address, {}}); pin != pins_.end() && pin->first.address == address; ++pin)
        if (pin->second > now) names.push_back(pin->first.name);
    return names;
}

}  // namespace caisson::net
