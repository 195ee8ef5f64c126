// A map that holds so many things and no more: for a new one, the one that was put longest ago gives way.
//
// Not thread-safe. Pointers to values hold until the value gives way or is erased.
#pragma once

#include <cstddef>
#include <list>
#include <unordered_map>

namespace caisson::agent {

template <typename Key, typename Value>
class Kept {
  public:
    explicit Kept(std::size_t most) : most_(most) {}

    Value* find(const Key& key) {
        const auto found = entries_.find(key);
        return found == entries_.end() ? nullptr : &found->second.value;
    }
    const Value* find(const Key& key) const { return const_cast<Kept*>(this)->find(key); }
    // There already, or a new one; the last to give way from now on. `gone` is called with the key and value of what gives way.
    template <typename Gone>
    Value& put(const Key& key, Gone gone) {
        const auto [at, is_new] = entries_.try_emplace(key);
        auto& entry = at->second;
        if (!is_new) {
            order_.splice(order_.end(), order_, entry.place);
            return entry.value;
        }
        entry.place = order_.insert(order_.end(), &at->first);
        if (entries_.size() > most_) {
            const auto first = entries_.find(*order_.front());
            order_.pop_front();
            gone(first->first, first->second.value);
            entries_.erase(first);
        }
        return entry.value;
    }
    void erase(const Key& key) {
        const auto found = entries_.find(key);
        if (found == entries_.end()) return;
        order_.erase(found->second.place);
        entries_.erase(found);
    }
    template <typename Visit>
    void each(Visit visit) {
        for (auto& [key, entry] : entries_) visit(entry.value);
    }
    void clear() {
        entries_.clear();
        order_.clear();
    }

  private:
    struct Entry {
        Value value{};
        typename std::list<const Key*>::iterator place;
    };
    std::size_t most_;
    std::unordered_map<Key, Entry> entries_;
    std::list<const Key*> order_;  // of when they were put; the keys are those of `entries_`
};

}  // namespace caisson::agent
