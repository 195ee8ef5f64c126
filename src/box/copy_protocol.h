// What HostCopy and the program caisson-copy say to each other: arguments at its start, lines on its status pipe. The
// program reads a hostile stream, so its lines are parsed as hostile.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "tar/extract.h"
#include "tar/pack.h"
#include "volume/archive.h"

namespace caisson::box {

// Descriptors of caisson-copy beside its input or output.
inline constexpr int kCopyStatusFd = 3;
inline constexpr int kCopyDirectoryFd = 4;
inline constexpr int kCopyCountFd = 5;  // of a volume's used bytes, if there is a limit that others count for, too

// What a copy may be beside a plain one.
struct CopyManner {
    bool volume = false;         // the files are a volume's, see volume/archive.h
    volume::OwnerIds owner;      // of that volume's owner
    std::uint64_t limit_bytes = 0;
    bool counted = false;        // by kCopyCountFd
    bool update = false, remove_others = false;  // see tar::ExtractOptions
    bool again = false;          // whenever something changes: a stream of framed archives
};

// Without the program's name. Directories come as kCopyDirectoryFd.
std::vector<std::string> pack_arguments(const tar::Origin& origin, const CopyManner& manner = {});
std::vector<std::string> extract_arguments(const tar::Destination& destination, const std::string& top, bool keep_owner,
                                           std::optional<unsigned> umask, const CopyManner& manner = {});

struct CopyOrder {
    bool packs = false;
    CopyManner manner;
    tar::Origin origin;
    tar::Destination destination;
    tar::ExtractOptions options;     // without the mask
    std::optional<unsigned> umask;  // none: that of the process
};
// kUsage for what the two functions above do not write.
Result<CopyOrder> parse_copy_arguments(const std::vector<std::string>& arguments);

// After a pass of a copy that updates.
std::string pass_line(std::uint64_t changed, std::uint64_t removed);
std::string notice_line(const std::string& text);
std::string error_line(const Error& error);
struct CopyReport {
    std::vector<std::string> notices;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> passes;
    std::optional<Error> error;
};
// Whole lines.
CopyReport parse_copy_report(std::string_view said);

}  // namespace caisson::box
