// What a proxy may say before it carries a box's connection; docs/limits.md.
#pragma once

#include <cstddef>

namespace caisson::net {

inline constexpr std::size_t kMostProxyAnswerBytes = 8192;  // of the head of its answer, its empty line among them

}  // namespace caisson::net
