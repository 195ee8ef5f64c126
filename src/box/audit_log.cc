#include "box/audit_log.h"

#include <poll.h>
#include <sys/inotify.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <queue>
#include <set>

#include "audit/chain.h"
#include "audit/journal.h"
#include "base/id.h"
#include "base/text.h"
#include "box/lifecycle.h"
#include "box/recorder.h"
#include "os/host.h"
#include "os/thread.h"

namespace caisson {

using base::failure;
using internal::RuntimeState;

namespace {

// Without inotify (there is a limit for each user) followers are this late.
constexpr int kFollowPollMs = 1000;

AuditEvent event_of(const std::string& chain, audit::Entry entry) {
    return {chain, entry.sequence, entry.unix_ms, std::move(entry.kind), std::move(entry.box_id), std::move(entry.box_name),
            entry.actor.uid, entry.actor.pid, std::move(entry.actor.process), std::move(entry.details),
            std::move(entry.previous), std::move(entry.hash)};
}

// Where the chains of boxes are, and those of their networks.
constexpr const char* kNetworks = "/networks";
constexpr const char* kOfBoxes[] = {"/boxes", kNetworks};

// One chain, and its next entry.
struct Source {
    std::string chain;
    audit::Cursor cursor;
    std::optional<audit::Entry> next;
};

// Of the chains that are on the disk: all, or those that have to do with one box.
class Reading {
  public:
    Reading(std::string root, const AuditQuery& query, std::string box_id, const std::function<Result<bool>(const AuditEvent&)>& sink)
        : root_(std::move(root)), query_(query), box_id_(std::move(box_id)), sink_(sink) {}

    // Gives what is there. False: the sink wants no more.
    Result<bool> drain() {
        CAISSON_TRY(find_chains());
        // The earliest entry first; each chain is in its own order, whatever the clock did.
        auto later = [](const Source* a, const Source* b) {
            return std::pair(a->next->unix_ms, a->chain) > std::pair(b->next->unix_ms, b->chain);
        };
        std::priority_queue<Source*, std::vector<Source*>, decltype(later)> order(later);
        for (auto& source : sources_) {
            read_next(*source);
            if (source->next) order.push(source.get());
        }
        while (!order.empty()) {
            auto* source = order.top();
            order.pop();
            if (wanted(source->chain, *source->next) && !CAISSON_TRY(sink_(event_of(source->chain, *source->next)))) return false;
            read_next(*source);
            if (source->next) order.push(source);
        }
        return true;
    }

    // Until there may be more. False: `stop` is readable.
    bool wait(int stop) {
        struct pollfd fds[2] = {{inotify_.get(), POLLIN, 0}, {stop, POLLIN, 0}};  // negative ones are left out
        ::poll(fds, 2, inotify_ ? -1 : kFollowPollMs);
        if (fds[1].revents != 0) return false;
        char events[4096];
        while (inotify_ && ::read(inotify_.get(), events, sizeof events) > 0) {}
        return true;
    }

    // Called before drain(): what comes from now on wakes wait().
    void watch() {
        inotify_ = os::Fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
        for (const char* all : kOfBoxes) {
            if (box_id_.empty() || all == kNetworks) add_watch(root_ + all, IN_CREATE);
        }
    }

  private:
    // A chain that cannot be read hides no other one; `audit verify` says so.
    static void read_next(Source& source) {
        auto next = source.cursor.next();
        source.next = next ? std::move(*next) : std::nullopt;
    }
    void add_watch(const std::string& path, std::uint32_t events) {
        if (inotify_ && ::inotify_add_watch(inotify_.get(), path.c_str(), events) < 0) inotify_.reset();
    }
    void add(const std::string& chain) {
        if (!known_.insert(chain).second) return;
        const auto directory = audit::chain_directory(root_, chain);
        if (query_.follow) add_watch(directory, IN_MODIFY | IN_CREATE);
        sources_.push_back(std::make_unique<Source>(Source{chain, audit::Cursor(directory), std::nullopt}));
    }
    Result<> find_chains() {
        if (os::exists(root_ + "/home")) add(audit::kHomeChain);
        if (!box_id_.empty()) {
            for (const auto& chain : {box_id_, audit::network_chain(box_id_)})
                if (os::exists(audit::chain_directory(root_, chain))) add(chain);
            return {};
        }
        for (const char* all : kOfBoxes) {
            if (!os::exists(root_ + all)) continue;
            for (const auto& name : CAISSON_TRY(os::list_directory(root_ + all)))
                if (base::is_ulid(name)) add(all == kNetworks ? audit::network_chain(name) : name);
        }
        return {};
    }
    bool wanted(const std::string& chain, const audit::Entry& entry) const {
        if (query_.since_ms && entry.unix_ms < *query_.since_ms) return false;
        if (!box_id_.empty() && chain == audit::kHomeChain && entry.box_id != box_id_) return false;
        return query_.kinds.empty() || std::find(query_.kinds.begin(), query_.kinds.end(), entry.kind) != query_.kinds.end();
    }

    std::string root_;
    const AuditQuery& query_;
    std::string box_id_;  // empty: all
    const std::function<Result<bool>(const AuditEvent&)>& sink_;
    std::vector<std::unique_ptr<Source>> sources_;
    std::set<std::string> known_;
    os::Fd inotify_;
};

// A box that there is, or one that was removed and has a chain still.
Result<std::string> chain_of(RuntimeState& runtime, const std::string& reference) {
    if (reference == audit::kHomeChain) return reference;
    auto record = internal::find_record(runtime, reference);
    if (record) return record->id;
    if (record.error().code != Errc::kNotFound) return base::failure(std::move(record.error()));
    std::vector<std::string> fitting;
    {
        std::scoped_lock guard(runtime.database_mutex);
        for (const auto& head : CAISSON_TRY(runtime.database->journal_heads()))
            if (!reference.empty() && base::is_ulid(head.chain) && base::starts_with(head.chain, reference)) fitting.push_back(head.chain);
    }
    if (fitting.size() == 1) return fitting[0];
    if (fitting.size() > 1) return failure(Errc::kUsage, "'" + base::printable(reference, 64) + "' fits several boxes", "write more of the id");
    return failure(Errc::kNotFound, "there is no box '" + base::printable(reference, 64) + "', and no journal of one",
                   "one that was removed is known by its id: caisson events --kind chain_closed");
}

// What the home's chain says of the ends of others.
Result<std::map<std::string, audit::Head>> ends_in_home(const std::string& root) {
    std::map<std::string, audit::Head> ends;
    audit::Cursor cursor(audit::chain_directory(root, audit::kHomeChain));
    while (auto entry = CAISSON_TRY(cursor.next())) {
        if (entry->kind != "chain_closed") continue;
        auto details = nlohmann::json::parse(entry->details, nullptr, false);
        if (!details.is_object() || !details["sequence"].is_number_unsigned() || !details["hash"].is_string()) continue;
        const bool of_network = details.value("of", nlohmann::json()) == "network";
        ends[of_network ? audit::network_chain(entry->box_id) : entry->box_id] = {details["sequence"].get<std::uint64_t>(), details["hash"].get<std::string>()};
    }
    return ends;
}

}  // namespace

namespace internal {

Result<> read_journal(RuntimeState& runtime, const AuditQuery& query, const std::function<Result<bool>(const AuditEvent&)>& sink, int stop) {
    std::string box_id;
    if (!query.box.empty()) box_id = CAISSON_TRY(chain_of(runtime, query.box));
    const auto root = runtime.home.audit();
    if (query.follow)
        for (const char* all : kOfBoxes) CAISSON_TRY(os::make_directories(root + all, 0700));
    Reading reading(root, query, std::move(box_id), sink);
    if (query.follow) reading.watch();
    for (;;) {
        if (!CAISSON_TRY(reading.drain()) || !query.follow || !reading.wait(stop)) return {};
    }
}

Result<std::unique_ptr<EventThread>> EventThread::start(RuntimeState& runtime) {
    std::unique_ptr<EventThread> made(new EventThread());
    auto pipe = CAISSON_TRY(os::make_pipe());
    made->stop_read_ = std::move(pipe.first);
    made->stop_write_ = std::move(pipe.second);
    made->thread_ = CAISSON_TRY_CTX(os::start_quiet_thread([&runtime, since = os::unix_ms(), stop = made->stop_read_.get()] {
        AuditQuery query;
        query.follow = true;
        query.since_ms = since;
        auto followed = read_journal(runtime, query, [&runtime](const AuditEvent& event) -> Result<bool> {
            runtime.options.on_event(event);
            return true;
        }, stop);
        if (!followed) runtime.notice("no more events are told: " + followed.error().to_string());
    }), "telling of events");
    return made;
}

EventThread::~EventThread() {
    stop_write_.reset();  // the other end becomes readable: end of file
    if (thread_.joinable()) thread_.join();
}

}  // namespace internal

Result<> Runtime::audit(const AuditQuery& query, const std::function<Result<bool>(const AuditEvent&)>& sink) const {
    return internal::read_journal(*state_, query, sink);
}

Result<AuditVerification> Runtime::verify_audit(const std::string& box, const std::optional<AuditHead>& anchored) const {
    const auto root = state_->home.audit();
    std::string wanted;
    if (!box.empty()) wanted = CAISSON_TRY(chain_of(*state_, box));
    auto chains = [&] {
        std::scoped_lock guard(state_->database_mutex);
        return state_->database->journal_heads();
    }();
    const auto ends = wanted.empty() ? CAISSON_TRY(ends_in_home(root)) : std::map<std::string, audit::Head>();
    AuditVerification verification;
    for (auto& head : CAISSON_TRY(std::move(chains))) {
        if (!wanted.empty() && head.chain != wanted && store::box_of_chain(head.chain) != wanted) continue;
        auto known = audit::known_of(head);
        if (anchored && head.chain == wanted) known.anchored = audit::Head{anchored->sequence, anchored->hash};
        else if (auto end = ends.find(head.chain); end != ends.end()) known.anchored = end->second;
        auto verified = audit::verify_chain(audit::chain_directory(root, head.chain), known);
        // Nothing was ever written, or a box has just been made; or it went by the limits since we asked.
        if (!verified && verified.error().code == Errc::kNotFound && known.acknowledged.sequence == 0) continue;
        ++verification.chains;
        if (!verified) {
            verification.findings.push_back({head.chain, known.acknowledged.sequence, "unreadable", verified.error().to_string()});
            continue;
        }
        const auto& result = *verified;
        verification.entries += result.entries;
        if (result.finding)
            verification.findings.push_back({head.chain, result.finding->sequence, audit::to_string(result.finding->problem), result.finding->text});
    }
    return verification;
}

Result<AuditHead> Runtime::audit_head(const std::string& box) const {
    const auto chain = box.empty() ? std::string(audit::kHomeChain) : CAISSON_TRY(chain_of(*state_, box));
    auto head = CAISSON_TRY(state_->recorder->acknowledge(chain));
    return AuditHead{chain, head.sequence, head.hash};
}

Result<std::vector<AuditEvent>> Box::audit_log() const {
    // Of each chain as many: what a network does must not push out what else there was.
    std::map<std::string, std::deque<AuditEvent>> newest;
    const auto most = state_->runtime->options.audit_events;
    const auto box = CAISSON_TRY(chain_of(*state_->runtime, state_->id));
    for (const auto& chain : {box, audit::network_chain(box)}) {
        audit::Cursor cursor(audit::chain_directory(state_->runtime->home.audit(), chain));
        auto& events = newest[chain];
        for (auto entry = cursor.next(); entry && *entry; entry = cursor.next()) {
            events.push_back(event_of(chain, **entry));
            if (events.size() > most) events.pop_front();
        }
    }
    const auto& own = newest[box];
    const auto& network = newest[audit::network_chain(box)];
    std::vector<AuditEvent> events;
    std::merge(own.begin(), own.end(), network.begin(), network.end(), std::back_inserter(events),
               [](const auto& a, const auto& b) { return a.time_ms < b.time_ms; });
    return events;
}

}  // namespace caisson
