#include "audit/journal.h"

#include "os/file.h"

namespace caisson::audit {

namespace {
// Of chains that are not being written to just now.
constexpr std::size_t kMostWriters = 16;
}  // namespace

std::string chain_directory(const std::string& root, const std::string& chain) {
    if (chain == kHomeChain) return root + "/home";
    if (chain.ends_with(store::kNetworkChain)) return root + "/networks/" + chain.substr(0, chain.size() - store::kNetworkChain.size());
    return root + "/boxes/" + chain;
}

std::string network_chain(const std::string& box_id) { return box_id + std::string(store::kNetworkChain); }

Known known_of(const store::JournalHead& head) { return {{static_cast<std::uint64_t>(head.sequence), head.hash}, static_cast<std::uint64_t>(head.first), std::nullopt}; }

Result<Writer*> Journal::writer(const std::string& chain) {
    auto found = writers_.find(chain);
    if (found == writers_.end()) {
        if (writers_.size() >= kMostWriters) std::erase_if(writers_, [](const auto& one) { return one.first != kHomeChain; });
        found = writers_.emplace(chain, CAISSON_TRY(Writer::open(chain_directory(root_, chain), limits_))).first;
    }
    return &found->second;
}

Result<> Journal::open(const std::string& chain) { return writer(chain).map([](Writer*) {}); }

Result<> Journal::record(store::Database& database, const std::string& chain, const Event& event, const Actor& actor, std::int64_t unix_ms) {
    auto acknowledged = [&]() -> Result<Head> {
        return known_of(CAISSON_TRY(database.journal_head(chain))).acknowledged;
    };
    auto recorded = [&]() -> Result<> {
        auto* one = CAISSON_TRY(writer(chain));
        if (auto lost = lost_.find(chain); lost != lost_.end()) {
            const Event told{"events_lost", event.box_id, event.box_name, {{"count", static_cast<std::int64_t>(lost->second)}}};
            batch_.heads[chain] = CAISSON_TRY(one->append(told, actor, unix_ms, acknowledged));
            lost_.erase(lost);
        }
        batch_.heads[chain] = CAISSON_TRY(one->append(event, actor, unix_ms, acknowledged));
        return {};
    }();
    if (!recorded) ++lost_[chain];
    return recorded;
}

Result<> Journal::leave_out_acknowledged(const store::Database& database, Batch& batch) const {
    for (auto one = batch.heads.begin(); one != batch.heads.end();) {
        const auto known = CAISSON_TRY(database.journal_head(one->first));
        if (known.sequence == 0) batch.fresh.insert(one->first);
        one = static_cast<std::uint64_t>(known.sequence) >= one->second.sequence ? batch.heads.erase(one) : std::next(one);
    }
    return {};
}

Result<> Journal::sync(const std::string& root, const Batch& batch) {
    for (const auto& [chain, head] : batch.heads)
        CAISSON_TRY(CAISSON_TRY(Writer::open(chain_directory(root, chain))).sync(batch.fresh.count(chain) > 0));
    return {};
}

Result<> Journal::acknowledge(store::Database& database, const Batch& batch) {
    for (const auto& [chain, head] : batch.heads) {
        CAISSON_TRY(database.acknowledge_journal(chain, static_cast<std::int64_t>(head.sequence), head.hash));
        auto* one = CAISSON_TRY(writer(chain));
        CAISSON_TRY(one->trim([&database, &name = chain](std::uint64_t first) { return database.keep_journal_from(name, static_cast<std::int64_t>(first)); }));
    }
    return {};
}

void Journal::put_back(Batch batch) {
    for (auto& [chain, head] : batch.heads) {
        auto& now = batch_.heads[chain];
        if (now.sequence < head.sequence) now = std::move(head);
    }
}

Result<> Journal::commit(store::Database& database) {
    auto batch = take();
    auto done = [&]() -> Result<> {
        CAISSON_TRY(leave_out_acknowledged(database, batch));
        for (const auto& [chain, head] : batch.heads) CAISSON_TRY(CAISSON_TRY(writer(chain))->sync(batch.fresh.count(chain) > 0));
        return acknowledge(database, batch);
    }();
    if (!done) put_back(std::move(batch));
    return done;
}

Result<> Journal::close(store::Database& database, const std::string& chain, const Actor& actor, std::int64_t unix_ms) {
    const auto directory = chain_directory(root_, chain);
    const auto last = CAISSON_TRY(CAISSON_TRY(writer(chain))->last());
    const auto name = last ? last->box_name : std::string(), box = store::box_of_chain(chain);
    const bool of_network = chain != box;
    // Of a network nothing more is said: what became of its box is in the box's own chain.
    if (last && (of_network || last->kind == "box_removed")) batch_.heads[chain] = {last->sequence, last->hash};
    else if (!of_network) CAISSON_TRY(record(database, chain, {"box_removed", box, name, {}}, actor, unix_ms));
    const auto newest = batch_.heads.find(chain);
    const auto head = newest == batch_.heads.end() ? Head() : newest->second;
    const auto bytes = os::disk_usage(directory).value_or(0);
    Event closed{"chain_closed", box, name, {{"sequence", static_cast<std::int64_t>(head.sequence)}, {"hash", head.hash}}};
    if (of_network) closed.details.emplace_back("of", std::string("network"));
    return database.close_journal(chain, unix_ms, bytes, [&]() -> Result<> {
        if (head.sequence == 0) return {};  // a network that did nothing
        return record(database, kHomeChain, closed, actor, unix_ms);
    });
}

Result<> Journal::close_removed(store::Database& database, const Actor& actor, std::int64_t unix_ms) {
    const auto chains = CAISSON_TRY(database.journals_to_close());
    // One that cannot be read or locked keeps nobody from closing the others.
    Result<> closed;
    for (const auto& chain : chains) {
        if (auto one = close(database, chain, actor, unix_ms); !one) closed = std::move(one);
        writers_.erase(chain);
    }
    if (!chains.empty()) CAISSON_TRY(remove_oldest(database));
    return closed;
}

Result<> Journal::remove_oldest(store::Database& database) {
    // Some more than there are too many, so that this is rare.
    const auto gone = CAISSON_TRY(database.forget_journals(limits::kMostRemovedChains, limits::kMostRemovedBytes));
    for (const auto& chain : gone) {
        batch_.heads.erase(chain);
        writers_.erase(chain);
        CAISSON_TRY(os::remove_tree(chain_directory(root_, chain)));
    }
    return {};
}

}  // namespace caisson::audit
