// Which addresses the box was told for which name, for protocols in which a connection shows no name. Filled by whoever
// answers the box's questions. Not thread-safe; time is passed in.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "net/address.h"

namespace caisson::net {

class Pins {
  public:
    using Time = std::chrono::steady_clock::time_point;

    // An answer: `name` (normal, as it was asked for, whatever aliases led on) has `address`. It is kept for `lives`, at
    // least kShortestPin and at most kLongestPin from `now`; an older pin of both is never shortened.
    void add(const std::string& name, const Address& address, std::chrono::seconds lives, Time now);
    // Normal names, in alphabetical order.
    std::vector<std::string> names_of(const Address& address, Time now) const;
    std::size_t size() const { return by_expiry_.size(); }

  private:
    struct Key {
        Address address;
        std::string name;
        auto operator<=>(const Key&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 takes its 0 for a pointer
    };
    void drop(const Key& key);
    void make_room(const std::string& name, Time now);

    std::map<Key, Time> pins_;
    std::set<std::pair<Time, Key>> by_expiry_;
    std::map<std::string, std::set<std::pair<Time, Address>>, std::less<>> of_name_;
};

}  // namespace caisson::net
