// What a connection may send before it has shown its name; docs/limits.md.
#pragma once

#include <cstddef>

namespace caisson::net {

inline constexpr std::size_t kMostFirstBytes = 32768;      // of any kind: whoever peeks has to keep no more
inline constexpr std::size_t kMostHelloBytes = 16384;      // of a ClientHello, put together from its records
inline constexpr std::size_t kMostHelloRecords = 64;       // that it is cut into
inline constexpr std::size_t kMostHelloExtensions = 128;
inline constexpr std::size_t kMostProtocolNames = 32;      // that ALPN lists
inline constexpr std::size_t kMostHeadBytes = 32768;       // of a request's head, its empty line among them
inline constexpr std::size_t kMostHeadLines = 256;
inline constexpr std::size_t kLongestMethod = 24;

}  // namespace caisson::net
