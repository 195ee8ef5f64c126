#include "image/unpacker.h"

#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "image/helper.h"
#include "image/limits.h"
#include "image/protocol.h"
#include "jail/jail.h"
#include "jail/kinds.h"
#include "os/file.h"

namespace caisson::image {

using nlohmann::json;

namespace {

// Above what the limits of image/limits.h add up to; a decoder's dictionary is the rest.
[[maybe_unused]] constexpr unsigned long long kUnpackerMemoryBytes = 4ULL << 30;

// Hours of honest work on a slow machine; the end of one that is taken over and has lost its caller.
constexpr unsigned long long kUnpackerCpuSeconds = 4 * 3600;

constexpr unsigned long long kSpareFiles = 32;

// In its jail, unless the store's owner starts it otherwise. Destroying it ends the unpacker and whatever it may have
// started.
Result<jail::Jailed> start(const Store::Options& options, const UnpackJob& job,
                          std::vector<os::Command::Descriptor> descriptors) {
    if (options.spawn) {
        os::Command command;
        command.arguments = {options.unpack_program, job.subcommand};
        command.descriptors = std::move(descriptors);
        return jail::Jailed{CAISSON_TRY(options.spawn(command)), {}};
    }
    auto description = unpacker_jail(options, job.subcommand, job.output_bytes);
    description.descriptors = std::move(descriptors);
    auto jailed = CAISSON_TRY(jail::start(description));
    jailed.init.learn();  // it has read nothing yet
    return jailed;
}

}  // namespace

jail::Description unpacker_jail(const Store::Options& options, const std::string& subcommand, std::uint64_t output_bytes) {
    jail::Description description;
    description.name = "unpacker";
    description.filter = jail::unpacker_filter();
#ifdef CAISSON_STATIC_UNPACKER
    description.mounts = {{jail::Mount::Kind::kReadOnly, options.unpack_program, "/caisson-unpack"}};
    description.arguments = {"/caisson-unpack", subcommand};
    jail::enter_by(description, options.enter_program, "/caisson-enter");
    description.resource_limits = {{RLIMIT_AS, kUnpackerMemoryBytes}};
#else
    description.root = "/";  // sanitizers need shared libraries
    description.arguments = {options.unpack_program, subcommand};
#endif
    // Its life hangs on its standard input instead: an embedding program may run this on a short-lived thread.
    description.die_with_parent = false;
    description.resource_limits.push_back({RLIMIT_CPU, kUnpackerCpuSeconds});
    description.resource_limits.push_back({RLIMIT_FSIZE, output_bytes});
    description.resource_limits.push_back({RLIMIT_NOFILE, kMaxLayers + kSpareFiles});
    return description;
}

Result<json> run_unpacker(const Store::Options& options, const UnpackJob& job, const std::string& what) {
    auto channels = CAISSON_TRY(HelperChannels::create(job.data != nullptr));
    auto descriptors = channels.descriptors();
    if (!job.data && job.output >= 0) descriptors.push_back({job.output, kOutputFd});
    for (std::size_t i = 0; i < job.inputs.size(); ++i)
        descriptors.push_back({job.inputs[i], kFirstInputFd + static_cast<int>(i)});
    auto unpacker = CAISSON_TRY(start(options, job, std::move(descriptors)));
    auto line = job.request + "\n";
    HelperTalk talk{.who = "the unpacker", .what = what, .request = {line}, .data = job.data};
    if (job.progress)
        talk.progress = [&](const json& said) {
            job.progress({text_field(said, "step"), number_field(said, "done"), number_field(said, "total")});
        };
    return converse(std::move(channels), std::move(unpacker), talk);
}

}  // namespace caisson::image
