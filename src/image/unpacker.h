// Runs caisson-unpack and speaks its protocol (image/protocol.h). Internal to src/image.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "image/store.h"
#include "jail/jail.h"
#include "os/fd.h"

namespace caisson::image {

struct UnpackJob {
    std::string subcommand;
    std::string request;           // JSON
    std::vector<int> inputs;       // become kFirstInputFd and following
    int output = -1;               // becomes kOutputFd
    std::uint64_t output_bytes = 0;  // how large it may become, if it is a file
    // If set, kOutputFd is a pipe whose bytes come here instead.
    std::function<Result<>(base::ByteView)> data;
    ProgressCallback progress;
};

// Pure: the unpacker's jail, which shows it nothing but its own (static) program. No file that it writes to becomes
// larger than `output_bytes`. Descriptors are the job's.
jail::Description unpacker_jail(const Store::Options& options, const std::string& subcommand, std::uint64_t output_bytes);

// The "result" object. Errors are those that caisson-unpack reports, with `what` as context; kIo if it dies.
// Its words are treated as hostile.
Result<nlohmann::json> run_unpacker(const Store::Options& options, const UnpackJob& job, const std::string& what);

}  // namespace caisson::image
