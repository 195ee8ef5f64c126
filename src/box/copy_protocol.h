// What HostCopy and the program caisson-copy say to each other: arguments at its start, lines on its status pipe. The
// program reads a hostile stream, so its lines are parsed as hostile.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "tar/extract.h"
#include "tar/pack.h"

namespace caisson::box {

// Descriptors of caisson-copy beside its input or output.
inline constexpr int kCopyStatusFd = 3;
inline constexpr int kCopyDirectoryFd = 4;

// Without the program's name. Directories come as kCopyDirectoryFd.
std::vector<std::string> pack_arguments(const tar::Origin& origin);
std::vector<std::string> extract_arguments(const tar::Destination& destination, const std::string& top, bool keep_owner,
                                           std::optional<unsigned> umask);

struct CopyOrder {
    bool packs = false;
    tar::Origin origin;
    tar::Destination destination;
    tar::ExtractOptions options;     // without the mask
    std::optional<unsigned> umask;  // none: that of the process
};
// kUsage for what the two functions above do not write.
Result<CopyOrder> parse_copy_arguments(const std::vector<std::string>& arguments);

std::string notice_line(const std::string& text);
std::string error_line(const Error& error);
struct CopyReport {
    std::vector<std::string> notices;
    std::optional<Error> error;
};
CopyReport parse_copy_report(std::string_view said);

}  // namespace caisson::box
