// Defaults and limits of boxes, in one place. docs/limits.md lists them for users; a test compares the two.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace caisson::box::limits {

// ---- defaults of a box ----
inline constexpr std::chrono::milliseconds kStopTimeout{10000};        // between stop signal and kill
inline constexpr std::chrono::milliseconds kHealthInterval{30000};
inline constexpr std::chrono::milliseconds kHealthTimeout{30000};
inline constexpr std::uint32_t kHealthRetries = 3;

// ---- limits ----
inline constexpr std::chrono::milliseconds kLongestTime{0x7fffffff};   // of any of a box's times: 24 days
inline constexpr std::size_t kMostClients = 256;                       // connected to one box at once
inline constexpr std::size_t kMostSupervisorDescriptors = 1024;          // that one box's supervisor has open
inline constexpr std::int64_t kMostSupervisorLogBytes = 1048576;       // of its own words (shim.log); what is longer goes
inline constexpr std::uint64_t kMostSupervisorFileBytes = 1073741824;  // that a supervisor writes: logs, and the database
inline constexpr std::size_t kMostExecutions = 128;                    // in one box at once, its command among them
inline constexpr std::size_t kLongestShownCommand = 4096;              // bytes of an execution's command that records keep
inline constexpr std::uint64_t kRoomBytes = 1073741824;                // left on the home's file system, or a twentieth of it
inline constexpr std::size_t kMostMounts = 256;                        // of volumes in one box
inline constexpr std::size_t kMostDisks = 4;                           // of them, volumes of type disk
inline constexpr std::size_t kMostLabels = 64;
inline constexpr std::size_t kLongestLabel = 256;                      // bytes, of a key; a value may have 4096
inline constexpr std::size_t kLongestLabelValue = 4096;
inline constexpr std::size_t kMostTmpfs = 60;                          // the agent takes 64 with its own files
inline constexpr std::size_t kMostCopies = 64;                         // --copy of one box

// ---- the network ----
inline constexpr int kMostToldAddresses = 256;                          // of the host's own that its process is told at its start
inline constexpr std::uint32_t kMostNetworkRecordsAtOnce = 500;        // in the box's journal; how many more there were is recorded
inline constexpr std::uint32_t kNetworkRecordsPerSecond = 5;           // of which this many come back: the older ones are not to be pushed out soon
inline constexpr std::size_t kMostLearntTargets = 2048;                // of --net-learn, each of which is recorded whatever the two above say
inline constexpr std::chrono::milliseconds kNetworkPatience{30000};    // of a supervisor, until its launcher has changed it: longer than each of its processes may take
inline constexpr std::chrono::milliseconds kNetworkAnswer{35000};      // of whoever asked for that
inline constexpr std::chrono::milliseconds kUpdateTurn{40000};         // until another change of the same box is done

// ---- what QEMU may take on the host beside the machine that it runs; see docs/limits.md ----
inline constexpr std::uint64_t kVmmMib = 128;                          // its own memory, and bubblewrap's
inline constexpr std::uint64_t kVmmMibPerCpu = 16;
inline constexpr std::uint64_t kVmmMemoryShare = 32;                   // and a 32nd of the machine's memory, for tables
inline constexpr std::uint32_t kVmmCpuMillis = 500;                    // of a CPU: devices, disk, control
inline constexpr std::uint32_t kVmmThreads = 128;                      // 64 of them for its disk; one for each CPU besides

// ---- until the guest of a box that starts answers; a loaded host needs seconds, an idle one a twentieth ----
inline constexpr std::uint32_t kRestoreDeadlineMs = 20000;
inline constexpr std::uint32_t kColdDeadlineMs = 120000;

// ---- a policy that starts a box again ----
inline constexpr std::chrono::milliseconds kFirstRestartDelay{100};    // doubled each time
inline constexpr std::chrono::milliseconds kLongestRestartDelay{60000};
inline constexpr std::chrono::milliseconds kRestartForgiven{10000};    // a life this long makes the delay short again

}  // namespace caisson::box::limits
