// What a box's network may take of the host, in one place. docs/limits.md lists them for users; a test compares the two.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace caisson::net::relay {

// ---- of a box that does not say otherwise ----
inline constexpr std::uint32_t kConnections = 1024;        // of TCP at once, both ways, those that are being dialled included
inline constexpr std::uint32_t kFlows = 1024;              // of UDP at once; the idlest gives way
inline constexpr std::uint32_t kConnectsPerSecond = 500;   // and as many at once

inline constexpr std::uint32_t kMostConnections = 4096;    // that may be asked for, and as many flows: netd's memory and descriptors hold so many

inline constexpr std::uint64_t kLeastBurstBytes = 65536;   // of bytes that have a rate: a datagram passes whole or not at all

// ---- of each connection ----
inline constexpr std::size_t kBufferBytes = 65536;         // that are read at once, and that wait for the other side, each way
inline constexpr std::chrono::seconds kDialTimeout{130};   // a little more than the kernel tries
inline constexpr std::chrono::seconds kNameTimeout{15};    // until its name has been shown
inline constexpr std::chrono::seconds kClaimTimeout{30};   // until a connection that was dialled for it arrives
inline constexpr std::size_t kMostDialledAddresses = 8;    // of one name, one after the other
inline constexpr std::size_t kMostAcceptsAtOnce = 64;      // before others have their turn
inline constexpr std::chrono::milliseconds kAcceptPause{100};  // once there is no descriptor left for a connection

// ---- of each flow of UDP ----
inline constexpr std::chrono::seconds kFlowIdle{90};
inline constexpr std::size_t kMostDatagramBytes = 65535;
inline constexpr std::size_t kMostWaitingDatagrams = 16;   // for the socket through which they go
inline constexpr std::size_t kMostDatagramsAtOnce = 64;    // before others have their turn

// ---- records ----
inline constexpr std::size_t kMostEventBytes = 4096;
inline constexpr int kMostEventAddresses = 32;             // of an answer, and as many that were dropped of it

// ---- of what it is told ----
inline constexpr std::size_t kMostHostAddresses = 4096;    // of the host's own that it knows, those found later included
inline constexpr std::size_t kMostSpecBytes = 98304;       // a network as it was asked for, its policy included
inline constexpr std::size_t kMostOrderBytes = 131072;     // that, and what the host adds
inline constexpr std::size_t kMostPorts = 64;              // that one box publishes
inline constexpr std::chrono::milliseconds kObeyPatience{5000};  // until it has carried out a change; then it is killed

}  // namespace caisson::net::relay
