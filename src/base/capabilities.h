// Linux capabilities by name, and the sets that container processes get; pure. A set has a bit for each number of
// linux/capability.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace caisson::base {

// Docker's default set of 14 (moby, oci/caps/defaults.go).
std::uint64_t default_capabilities();
// Every one that Linux 6.1 knows.
std::uint64_t all_capabilities();

// The number of "CAP_NET_ADMIN", "net_admin"; nothing for other words.
std::optional<int> capability_number(std::string_view name);
// Of a set, by number: "CAP_CHOWN" first.
std::vector<std::string> names_of_capabilities(std::uint64_t set);
// "NET_ADMIN" of what a person may have meant by "NET_ADMN".
std::string nearest_capability(std::string_view name);

// Names as Docker keeps them: "CAP_NET_ADMIN" or "ALL", each once, in the order in which they came. kUsage names
// `option` and the word that is no capability.
Result<std::vector<std::string>> capability_names(const std::string& option, const std::vector<std::string>& words);

// What is left of Docker's default set, or with `privileged` of all: first without what is dropped, then with what is
// added. So ALL dropped and some added are just these, ALL added and some dropped are all but these, and one that is
// both dropped and added by its name is there. Docker's rules (moby, oci/caps/utils.go), but that `privileged` does not
// make it forget what is to be dropped. Names are capability_names()'s.
std::uint64_t capability_set(const std::vector<std::string>& add, const std::vector<std::string>& drop, bool privileged);

}  // namespace caisson::base
