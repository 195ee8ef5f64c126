// Which proxy the caller's environment names; pure.
#pragma once

#include <string_view>

#include "base/result.h"
#include "caisson/registry.h"

namespace caisson::image::registry {

// A proxy as people write it, "http://user:password@proxy.example:3128", into the same with scheme and port. Without a
// scheme it is http://, without a port 80 (443 with https://). Empty stays empty. kUsage, without the user's password,
// for what is none; other kinds of proxies are not supported.
Result<Secret> normalized_proxy(std::string_view text);
// "proxy.example:3128" of a normalised one: for people.
std::string name_of_proxy(const Secret& proxy);
// A list of hosts that are asked directly, as NO_PROXY holds it. kUsage for what cannot be one.
Result<std::string> checked_no_proxy(std::string_view text);

}  // namespace caisson::image::registry
