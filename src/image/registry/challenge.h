// What a registry asks for before it answers: the WWW-Authenticate header; pure.
//
// Source: RFC 9110 section 11.6.1; the distribution project's token authentication specification.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace caisson::image::registry {

struct Challenge {
    std::string scheme;                             // lower case: "bearer", "basic"
    std::map<std::string, std::string> parameters;  // names in lower case

    std::string get(const std::string& name) const {
        auto found = parameters.find(name);
        return found == parameters.end() ? std::string() : found->second;
    }
};

// One header may hold several challenges. kLimit for its size and counts, kProtocol for what the grammar does not allow.
Result<std::vector<Challenge>> parse_challenges(std::string_view header);

}  // namespace caisson::image::registry
