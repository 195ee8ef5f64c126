// Policies as words of a command line and as JSON.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "net/policy/limits.h"
#include "net/policy/policy.h"

namespace caisson::net {

using base::Failure;
using nlohmann::json;

namespace {

constexpr std::uint64_t kVersion = 1;
constexpr std::array kModes{Mode::kNone, Mode::kPublic, Mode::kOpen, Mode::kRules};

Failure wrong(const std::string& why, const std::string& instead) { return base::failure(Errc::kUsage, why, instead); }

std::optional<Mode> mode_of(std::string_view word) {
    const auto found = std::find_if(kModes.begin(), kModes.end(), [&](Mode mode) { return word == to_string(mode); });
    return found == kModes.end() ? std::nullopt : std::optional(*found);
}

Result<std::vector<Rule>> parse_rules(const std::vector<std::string>& texts, Effect effect) {
    std::vector<Rule> rules;
    for (const auto& text : texts) {
        auto rule = CAISSON_TRY(Rule::parse(text, effect));
        if (std::find(rules.begin(), rules.end(), rule) == rules.end()) rules.push_back(std::move(rule));
    }
    return rules;
}

Failure too_many_rules() {
    return base::failure(Errc::kLimit, "a network policy has more than " + std::to_string(limits::kMostRules) + " rules",
                         "write ranges, *.SUFFIX or FROM-TO instead of single hosts and ports");
}

// A policy file: an object of texts, numbers and lists of texts, nothing deeper. Read word by word, so that a key that is
// there twice is seen, and a hostile file stops where it goes wrong.
class Reader : public nlohmann::json_sax<json> {
  public:
    struct File {
        std::optional<std::uint64_t> version;
        std::optional<std::string> mode;
        std::vector<std::string> allow, deny;
    };
    const File& file() const { return file_; }
    const std::optional<base::Error>& error() const { return error_; }

    bool key(string_t& name) override {
        constexpr std::array<std::string_view, 4> kKnown{"version", "mode", "allow", "deny"};
        const auto shown = base::printable(name, 60);
        if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end())
            return fails("unknown key \"" + shown + "\"", "a policy has the keys version, mode, allow and deny");
        if (std::find(seen_.begin(), seen_.end(), name) != seen_.end()) return fails("the key \"" + shown + "\" is there twice", "write it once");
        seen_.push_back(name);
        key_ = name;
        return true;
    }
    bool number_unsigned(number_unsigned_t number) override {
        if (!in_object_ || in_list_ || key_ != "version") return unfit();
        file_.version = number;
        return true;
    }
    bool string(string_t& text) override {
        if (in_list_) return add_rule(text);
        if (!in_object_ || key_ != "mode") return unfit();
        file_.mode = text;
        return true;
    }
    bool start_object(std::size_t) override {
        if (in_object_) return unfit();
        return in_object_ = true;
    }
    bool start_array(std::size_t) override {
        if (!in_object_ || in_list_ || (key_ != "allow" && key_ != "deny")) return unfit();
        return in_list_ = true;
    }
    bool end_array() override {
        in_list_ = false;
        return true;
    }
    bool end_object() override { return true; }
    bool null() override { return unfit(); }
    bool boolean(bool) override { return unfit(); }
    bool number_integer(number_integer_t) override { return unfit(); }
    bool number_float(number_float_t, const string_t&) override { return unfit(); }
    bool binary(binary_t&) override { return unfit(); }
    bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
        return fails("it is not valid JSON, from byte " + std::to_string(position) + " on",
                     "write {\"version\": 1, \"mode\": \"rules\", \"allow\": [\"api.example.com\"]}");
    }

  private:
    bool fails(const std::string& why, const std::string& instead) {
        if (!error_) error_ = base::Error{.code = Errc::kUsage, .message = "network policy: " + why, .sys_errno = 0, .hint = instead, .context = {}};
        return false;
    }
    bool unfit() {
        if (!in_object_) return fails("it is no object", "write {\"version\": 1, \"mode\": ...}");
        if (in_list_) return fails("\"" + key_ + "\" has something else than texts in it", "write rules in quotes");
        if (key_ == "version") return fails("\"version\" is no number from 1", "write \"version\": 1");
        if (key_ == "mode") return fails("\"mode\" is no text", "write \"none\", \"public\", \"open\" or \"rules\"");
        return fails("\"" + key_ + "\" is no list", "write \"" + key_ + "\": [\"RULE\", ...]");
    }
    bool add_rule(const std::string& text) {
        if (file_.allow.size() + file_.deny.size() >= limits::kMostRules) {
            error_ = too_many_rules().value();
            return false;
        }
        (key_ == "allow" ? file_.allow : file_.deny).push_back(text);
        return true;
    }

    File file_;
    std::optional<base::Error> error_;
    std::vector<std::string> seen_;
    std::string key_;
    bool in_object_ = false, in_list_ = false;
};

// What makes no sense together: it would look as if it did something.
Result<> check_rules(Mode mode, const std::vector<Rule>& allow, const std::vector<Rule>& deny) {
    if (mode == Mode::kNone && !(allow.empty() && deny.empty()))
        return wrong("mode none reaches nothing, so rules say nothing", "leave the rules out, or use another mode");
    if (mode != Mode::kPublic && mode != Mode::kOpen) return {};
    for (const auto& rule : allow)
        if (rule.host() == Rule::Host::kName || rule.host() == Rule::Host::kBelow)
            return wrong(std::string("mode ") + to_string(mode) + " allows every name, so \"" + rule.to_string() + "\" says nothing",
                         "leave it out, or use mode rules if nothing else is to be reached; addresses, ranges and host.caisson.internal may be "
                         "allowed in addition");
    return {};
}

Result<Mode> mode_of_words(const PolicyWords& words) {
    if (words.net.empty()) return words.allow.empty() ? Mode::kPublic : Mode::kRules;
    const auto mode = mode_of(words.net);
    if (!mode || mode == Mode::kRules)
        return wrong("--net " + base::printable(words.net, 60) + " is no mode",
                     "use none, public or open; or only --allow-net RULE, and nothing else is reached");
    if (words.allow.empty()) return *mode;
    if (mode == Mode::kNone) return wrong("--net none reaches nothing, so --allow-net says nothing", "leave one of them out");
    return wrong("--net " + words.net + " with --allow-net could mean two things",
                 "leave --net out to reach nothing but what --allow-net allows; to reach more than " + words.net +
                     ", write both into a policy file (--net-policy)");
}

}  // namespace

Result<Policy> Policy::from_words(const PolicyWords& words) {
    if (words.allow.size() + words.deny.size() > limits::kMostRules) return too_many_rules();
    Policy policy;
    policy.mode_ = CAISSON_TRY(mode_of_words(words));
    policy.allow_ = CAISSON_TRY_CTX(parse_rules(words.allow, Effect::kAllow), "--allow-net");
    policy.deny_ = CAISSON_TRY_CTX(parse_rules(words.deny, Effect::kDeny), "--deny-net");
    CAISSON_TRY(check_rules(policy.mode_, policy.allow_, policy.deny_));
    return policy;
}

Result<Policy> Policy::parse(std::string_view text) {
    if (text.size() > limits::kLargestPolicyBytes)
        return base::failure(
            Errc::kLimit,
            "network policy: it has " + base::format_size(text.size()) + " (the limit is " + base::format_size(limits::kLargestPolicyBytes) + ")",
            "write ranges and *.SUFFIX instead of single hosts");
    Reader reader;
    if (!json::sax_parse(text, &reader)) return Failure(*reader.error());
    const auto& file = reader.file();
    if (!file.version) return wrong("network policy: \"version\" is missing", "write \"version\": 1");
    if (*file.version != kVersion)
        return base::failure(Errc::kUnsupported, "network policy: version " + std::to_string(*file.version) + " is not known here",
                             "this caisson reads version 1");
    if (!file.mode)
        return wrong("network policy: \"mode\" is missing",
                     "write \"mode\": \"rules\" to reach nothing but what is allowed, or \"public\", \"open\", \"none\"");
    const auto mode = mode_of(*file.mode);
    if (!mode) return wrong("network policy: \"" + base::printable(*file.mode, 60) + "\" is no mode", "write none, public, open or rules");
    Policy policy;
    policy.mode_ = *mode;
    policy.allow_ = CAISSON_TRY_CTX(parse_rules(file.allow, Effect::kAllow), "\"allow\" of the network policy");
    policy.deny_ = CAISSON_TRY_CTX(parse_rules(file.deny, Effect::kDeny), "\"deny\" of the network policy");
    CAISSON_TRY_CTX(check_rules(policy.mode_, policy.allow_, policy.deny_), "network policy");
    return policy;
}

std::string Policy::to_json() const {
    auto texts = [](const std::vector<Rule>& rules) {
        auto list = nlohmann::ordered_json::array();
        for (const auto& rule : rules) list.push_back(rule.text());
        return list;
    };
    nlohmann::ordered_json document{{"version", kVersion}, {"mode", to_string(mode_)}};
    if (!allow_.empty() || mode_ == Mode::kRules) document["allow"] = texts(allow_);
    if (!deny_.empty()) document["deny"] = texts(deny_);
    return document.dump();
}

}  // namespace caisson::net
