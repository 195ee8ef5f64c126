// The smallest policy that allows what a box wanted, from what its journal tells of that. Pure. Nothing is invented: no
// wildcards, no ranges of addresses, no port that was not wanted (but 80 and 443 of TCP together, which is what a bare name
// means). What the operator denied, and what was refused for not being the internet, is told apart and not suggested.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "net/policy/policy.h"

namespace caisson::net {

struct Suggestion {
    struct Reason {
        std::string rule;              // of `policy`
        std::set<std::string> wanted;  // what it is for: "9.9.9.9:443/tcp"; or "asked for"
    };
    Policy policy;                               // of mode `rules`
    std::vector<Reason> reasons;                 // one for each of its rules, in their order
    std::map<std::string, std::string> refused;  // targets that it does not allow, and why; clauses without a dot
};

// To be told the entries of a journal in their order: which name an address stands for is the one that was asked for last.
class Wishes {
  public:
    struct Connection {
        Endpoint target;
        Protocol protocol = Protocol::kTcp;
        std::string name;          // that it showed, or that stands for it; empty: none is known
        bool looked = false;       // its first bytes were read, so without a name it shows none
        bool denied = false;
        std::string rule, reason;  // that denied it
    };
    struct Question {
        std::string name;
        bool denied = false;                     // by the policy
        std::vector<Address> addresses;          // that the box was told
        std::vector<Address> dropped;            // that may not stand for a name
    };
    // `own`: the box's policy. `host_addresses`: of the host's interfaces; what was denied there is not suggested.
    Wishes(Policy own, std::set<Address> host_addresses) : own_(std::move(own)), host_addresses_(std::move(host_addresses)) {}
    void add(const Connection& connection);
    void add(const Question& question);
    // kLimit: more rules than a policy may have.
    Result<Suggestion> suggest() const;

  private:
    using Place = std::pair<Protocol, std::uint16_t>;
    using Places = std::map<Place, std::set<std::string>>;  // and for which targets
    std::string refusal_of(const Connection& connection, const std::string& name) const;
    void add_surroundings(const Connection& connection);

    Policy own_;
    std::set<Address> host_addresses_;
    std::map<Address, std::string> name_of_;
    std::set<std::string> asked_;
    std::map<std::string, Places> names_;
    std::map<Address, Places> addresses_;
    std::map<std::string, std::string> refused_;
};

}  // namespace caisson::net
