// What a box's name server takes and holds at most; docs/limits.md.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace caisson::net::dns {

// ---- messages ----
inline constexpr std::size_t kMostQueryBytes = 512;         // of a question, from the guest
inline constexpr std::size_t kMostUdpAnswerBytes = 1232;    // that a name server is told it may send in one datagram, and a guest gets
inline constexpr std::size_t kMostTcpAnswerBytes = 16384;   // that are read from a name server
inline constexpr std::size_t kMostAnswerRecords = 256;      // of all kinds in an answer
inline constexpr std::size_t kMostAliases = 16;             // CNAMEs from the name that was asked for to its addresses
inline constexpr std::size_t kMostPointers = 32;            // that one compressed name follows
inline constexpr std::size_t kMostAnswerAddresses = 64;     // further ones are left out
inline constexpr std::uint32_t kShortestTtl = 5;            // seconds
inline constexpr std::uint32_t kLongestTtl = 300;

// ---- asking name servers ----
inline constexpr std::size_t kMostServers = 8;              // that are asked, in turn
inline constexpr std::size_t kMostRounds = 2;               // through all of them
inline constexpr std::chrono::milliseconds kTryTimeout{1500};      // of one server's answer
inline constexpr std::chrono::milliseconds kResolveDeadline{4500}; // of all together: a guest gives up after 5 s
inline constexpr std::chrono::milliseconds kOtherFamilyWait{250};  // for the other family's addresses once there are some
inline constexpr std::size_t kMostStrayAnswers = 32;        // datagrams that answer something else, until the server counts as failed
inline constexpr std::size_t kMostLookups = 256;            // under way at once
inline constexpr std::size_t kMostWaiters = 1024;           // for them, together
inline constexpr std::size_t kMostCachedNames = 1024;       // the one that ends first goes
inline constexpr std::uint32_t kFailureTtl = 5;             // seconds for which a name is known not to exist

// ---- serving the guest ----
inline constexpr std::uint32_t kMostQuestionsPerSecond = 500;
inline constexpr std::uint32_t kMostQuestionsAtOnce = 1000;        // burst
inline constexpr std::size_t kMostUnansweredQuestions = 256;
inline constexpr std::size_t kMostTcpSessions = 32;                // of a guest with its name server; the idlest goes
inline constexpr std::size_t kMostSessionQuestions = 32;           // unanswered in one of them: no further one is read
inline constexpr std::size_t kMostSessionUnsentBytes = 16384;      // answers that the guest does not take: no further question is read
inline constexpr std::chrono::milliseconds kSessionIdle{10000};    // until it is closed

}  // namespace caisson::net::dns
