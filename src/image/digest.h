// The "sha256:<64 hex digits>" names that OCI gives to content.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/text.h"

namespace caisson::image {

// "sha256:" + hex.
std::string digest_of(std::string_view data);
// The 64 hex digits of "sha256:<hex>"; kCorrupt for anything else, other algorithms included.
Result<std::string> digest_hex(std::string_view digest);
using base::is_hex;

}  // namespace caisson::image
