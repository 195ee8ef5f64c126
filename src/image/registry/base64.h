// Base64 (RFC 4648, section 4), for HTTP's basic authentication and docker's config.json.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace caisson::image::registry {

std::string base64_encode(std::string_view bytes);
// Padding may be missing. kCorrupt for anything else than base64.
Result<std::string> base64_decode(std::string_view text);

}  // namespace caisson::image::registry
