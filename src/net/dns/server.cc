#include "net/dns/server.h"

#include <algorithm>
#include <map>
#include <set>
#include <variant>

#include "net/dns/tcp_session.h"

namespace caisson::net::dns {

namespace {

using Verdict = Question::Verdict;
using Clock = os::Loop::Clock;

constexpr std::size_t kTcpMessageBytes = 65535;

// What the guest hears of a name that is not known or may not be known.
Code code_of(Resolved::Kind kind) {
    switch (kind) {
        case Resolved::Kind::kAddresses:
        case Resolved::Kind::kNoData:
        // Not that there is no such name: some resolvers would then forget what they know of its other family.
        case Resolved::Kind::kAllDropped: return Code::kNoError;
        case Resolved::Kind::kNoSuchName:
        case Resolved::Kind::kBadName: return Code::kNoSuchName;
        default: return Code::kServerFailure;
    }
}

Verdict verdict_of(Resolved::Kind kind) {
    switch (kind) {
        case Resolved::Kind::kAddresses: return Verdict::kAnswered;
        case Resolved::Kind::kNoData: return Verdict::kNoData;
        case Resolved::Kind::kAllDropped: return Verdict::kDropped;
        case Resolved::Kind::kNoSuchName:
        case Resolved::Kind::kBadName: return Verdict::kNoSuchName;
        default: return Verdict::kFailed;
    }
}

// So many a second, and so many at once after a pause.
class Allowance {
  public:
    Allowance(std::uint32_t per_second, std::uint32_t at_once) : per_second_(per_second), at_once_(at_once), left_(at_once) {}
    bool take() {
        const auto now = Clock::now();
        left_ = std::min<double>(at_once_, left_ + std::chrono::duration<double>(now - last_).count() * per_second_);
        last_ = now;
        if (left_ < 1) return false;
        left_ -= 1;
        return true;
    }

  private:
    double per_second_, at_once_, left_;
    Clock::time_point last_ = Clock::now();
};

}  // namespace

const char* to_string(Verdict verdict) {
    switch (verdict) {
        case Verdict::kAnswered: return "answered";
        case Verdict::kDenied: return "denied";
        case Verdict::kNoSuchName: return "no-such-name";
        case Verdict::kNoData: return "no-data";
        case Verdict::kDropped: return "dropped";
        case Verdict::kFailed: return "failed";
        case Verdict::kLimited: return "limited";
        case Verdict::kMalformed: return "malformed";
    }
    return "";
}

struct Server::State {
    // One question on its way, and whom to answer.
    struct Asked {
        Query query;
        SendReply reply;
        bool over_tcp = false;
        std::size_t most_bytes() const { return over_tcp ? kTcpMessageBytes : query.udp_bytes; }
    };

    Options options;
    Counts counts;
    Allowance allowance;
    std::map<Verdict, Clock::time_point> last_told;  // of those that are not told each time
    std::map<std::uint64_t, Resolver::Ticket> unanswered;
    std::uint64_t next_question = 1;
    std::map<std::uint64_t, std::unique_ptr<TcpSession>> sessions;
    std::uint64_t next_session = 1;

    explicit State(Options with) : options(std::move(with)), allowance(options.questions_per_second, options.questions_at_once) {}
    bool on_query(base::ByteView bytes, bool over_tcp, SendReply reply);
    void judge(Asked asked);
    void resolve(Asked asked);
    void answer(const Asked& asked, const Resolved& resolved);
    void finish(const Asked& asked, Code code, Verdict verdict, const Resolved& resolved = {});
    void tell(const Question& question);
    void tell_sometimes(Verdict verdict, bool over_tcp);
    void count(Verdict verdict);
    void make_room_for_a_session();
};

// false: it gets no answer, and reply was not kept.
bool Server::State::on_query(base::ByteView bytes, bool over_tcp, SendReply reply) {
    ++counts.questions;
    if (!allowance.take()) {
        // Silence makes an honest resolver slow down and ask again.
        ++counts.limited;
        tell_sometimes(Verdict::kLimited, over_tcp);
        return false;
    }
    auto parsed = parse_query(bytes);
    if (auto* bad = std::get_if<BadQuery>(&parsed)) {
        ++counts.malformed;
        tell_sometimes(Verdict::kMalformed, over_tcp);
        const auto built = build_reply(*bad);
        if (built) reply(*built);
        return built.has_value();
    }
    judge({std::get<Query>(std::move(parsed)), std::move(reply), over_tcp});
    return true;
}

// What can be answered without asking anybody, in the order in which it tells the guest least.
void Server::State::judge(Asked asked) {
    const auto& query = asked.query;
    if (query.is_root) return finish(asked, Code::kNoError, Verdict::kNoData);
    if (query.name.empty()) return finish(asked, Code::kNoSuchName, Verdict::kNoSuchName);
    if (query.type == Type::kPtr) return finish(asked, Code::kNoSuchName, Verdict::kNoSuchName);
    if (!options.judge(query.name)) return finish(asked, Code::kNoSuchName, Verdict::kDenied);
    // Only addresses. HTTPS and SVCB least of all: they carry keys that hide the name of a connection (ECH), and lead to
    // other names, ports and protocols.
    if (query.type != Type::kA && query.type != Type::kAaaa) return finish(asked, Code::kNoError, Verdict::kNoData);
    if (query.type == Type::kAaaa && !options.ipv6) return finish(asked, Code::kNoError, Verdict::kNoData);
    if (unanswered.size() >= kMostUnansweredQuestions) {
        ++counts.limited;
        tell_sometimes(Verdict::kLimited, asked.over_tcp);
        return asked.reply(build_reply(query, Reply{Code::kServerFailure, {}, 0}, asked.most_bytes()));
    }
    resolve(std::move(asked));
}

void Server::State::resolve(Asked asked) {
    const auto name = asked.query.name;
    const auto family = asked.query.type == Type::kAaaa ? Family::kV6 : Family::kV4;
    const auto number = next_question++;
    unanswered[number] = options.resolver->resolve(name, family, [this, number, asked = std::move(asked)](const Resolved& resolved) {
        unanswered.erase(number);
        answer(asked, resolved);
    });
}

void Server::State::answer(const Asked& asked, const Resolved& resolved) {
    // Policy may have changed while the question was under way.
    if (!options.judge(asked.query.name)) return finish(asked, Code::kNoSuchName, Verdict::kDenied);
    finish(asked, code_of(resolved.kind), verdict_of(resolved.kind), resolved);
}

void Server::State::finish(const Asked& asked, Code code, Verdict verdict, const Resolved& resolved) {
    const Reply reply{code, resolved.addresses, std::clamp(resolved.ttl, kShortestTtl, kLongestTtl)};
    count(verdict);
    tell({asked.query.name, asked.query.type, verdict, reply.addresses, resolved.dropped, reply.ttl, resolved.kind, asked.over_tcp});
    asked.reply(build_reply(asked.query, reply, asked.most_bytes()));
}

void Server::State::tell(const Question& question) {
    if (options.on_question) options.on_question(question);
}

void Server::State::tell_sometimes(Verdict verdict, bool over_tcp) {
    const auto now = Clock::now();
    const auto [last, is_first] = last_told.emplace(verdict, now);
    if (!is_first && now - last->second < std::chrono::seconds(1)) return;
    last->second = now;
    Question question;
    question.verdict = verdict;
    question.over_tcp = over_tcp;
    tell(question);
}

void Server::State::count(Verdict verdict) {
    if (verdict == Verdict::kAnswered) ++counts.answered;
    if (verdict == Verdict::kDenied) ++counts.denied;
    if (verdict == Verdict::kDropped) ++counts.dropped;
    if (verdict == Verdict::kFailed) ++counts.failed;
}

void Server::State::make_room_for_a_session() {
    if (sessions.size() < kMostTcpSessions) return;
    sessions.erase(std::min_element(sessions.begin(), sessions.end(), [](const auto& a, const auto& b) {
        return a.second->last_used() < b.second->last_used();
    }));
}

Server::Server(Options options) : state_(std::make_unique<State>(std::move(options))) {}

Server::~Server() {
    for (const auto& [number, ticket] : state_->unanswered) state_->options.resolver->cancel(ticket);
}

void Server::on_datagram(base::ByteView query, SendReply reply) { state_->on_query(query, false, std::move(reply)); }

Result<> Server::on_stream(os::Fd connection) {
    auto* state = state_.get();
    state->make_room_for_a_session();
    const auto number = state->next_session++;
    // Answers find their session by number, since it may have ended before they come.
    const auto reply = [state, number](base::ByteView message) {
        if (const auto session = state->sessions.find(number); session != state->sessions.end()) session->second->reply(message);
    };
    const auto on_query = [state, number, reply](base::ByteView query) {
        if (state->on_query(query, true, reply)) return;
        if (const auto session = state->sessions.find(number); session != state->sessions.end()) session->second->refuse();
    };
    const auto on_end = [state, number] { state->sessions.erase(number); };
    auto session = CAISSON_TRY(TcpSession::create(std::move(connection), {state->options.loop, state->options.session_idle, on_query, on_end}));
    state->sessions.emplace(number, std::move(session));
    return {};
}

void Server::set_ipv6(bool ipv6) { state_->options.ipv6 = ipv6; }

const Server::Counts& Server::counts() const { return state_->counts; }

std::size_t Server::sessions() const { return state_->sessions.size(); }

}  // namespace caisson::net::dns
