// caisson-unpack scan, inflate and split: what reads one stream.
#include <archive.h>
#include <archive_entry.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "image/limits.h"
#include "image/protocol.h"
#include "image/unpack/commands.h"
#include "image/unpack/layer_reader.h"
#include "image/unpack/tree.h"
#include "image/status.h"
#include "os/file.h"

namespace caisson::image::unpack {

using base::failure;

namespace {

// Runs a subcommand's body and reports what came of it.
template <typename Body>
int report(Body body) {
    auto run = [&]() -> Result<nlohmann::json> {
        auto request = CAISSON_TRY(read_request());
        return body(request);
    };
    try {
        auto result = run();
        if (!result) return report_error(result.error());
        return report_result(*result);
    } catch (const nlohmann::json::exception& error) {
        return report_error(failure(Errc::kInternal, std::string("the request is malformed: ") + error.what()).value());
    } catch (const std::bad_alloc&) {
        return report_error(failure(Errc::kLimit, "out of memory").value());
    }
}


}  // namespace

// Request: {"max_unpacked_bytes":n}. Result: {"diff_id":"sha256:...","unpacked_bytes":n,"entries":n}.
int run_scan() {
    return report([](const nlohmann::json& request) -> Result<nlohmann::json> {
        StreamLimits limits{request.value("max_unpacked_bytes", kDefaultMaxUnpackedBytes)};
        auto stream = CAISSON_TRY(open_threaded_stream(kFirstInputFd, limits));
        auto reader = CAISSON_TRY(LayerReader::open(std::move(stream)));
        Tree tree;
        Entry entry;
        When when{0, 0};
        for (;;) {
            bool more = CAISSON_TRY(reader->next(entry));
            if (!more) break;
            if (++when.sequence > kMaxEntries)
                return failure(Errc::kLimit, "it has more than " + std::to_string(kMaxEntries) + " entries");
            if (entry.type == EntryType::kHardLink)
                CAISSON_TRY(tree.add_hard_link(entry, when));
            else
                static_cast<void>(CAISSON_TRY(tree.add(entry, when)));
        }
        auto sum = CAISSON_TRY(reader->finish());
        if (when.sequence == 0) return failure(Errc::kCorrupt, "it holds no files");
        tree.end_layer();
        CAISSON_TRY(tree.finish());
        return nlohmann::json{{"diff_id", sum.diff_id}, {"unpacked_bytes", sum.bytes}, {"entries", when.sequence}};
    });
}

// Request: {"max_unpacked_bytes":n}. The bytes go to kOutputFd. Result: {"bytes":n}.
int run_inflate() {
    return report([](const nlohmann::json& request) -> Result<nlohmann::json> {
        StreamLimits limits{request.value("max_unpacked_bytes", kDefaultMaxUnpackedBytes)};
        auto stream = CAISSON_TRY(open_stream(kFirstInputFd, limits));
        std::uint64_t bytes = 0;
        for (;;) {
            auto chunk = CAISSON_TRY(stream->next());
            if (chunk.empty()) break;
            bytes += chunk.size();
            CAISSON_TRY(os::write_all(kOutputFd, chunk));
        }
        return nlohmann::json{{"bytes", bytes}};
    });
}

// Request: {"max_bytes":n}. Frames go to kOutputFd. Result: {"files":n}.
int run_split() {
    return report([](const nlohmann::json& request) -> Result<nlohmann::json> {
        StreamLimits limits{request.value("max_bytes", kMaxArchiveBytes)};
        auto stream = CAISSON_TRY(open_stream(kFirstInputFd, limits));
        auto reader = CAISSON_TRY(LayerReader::open(std::move(stream)));
        Entry entry;
        std::uint64_t files = 0;
        for (;;) {
            bool more = CAISSON_TRY(reader->next(entry));
            if (!more) break;
            bool link = entry.type == EntryType::kSymlink || entry.type == EntryType::kHardLink;
            if (entry.type != EntryType::kFile && !link) continue;
            if (++files > kMaxArchiveFiles)
                return failure(Errc::kLimit, "it holds more than " + std::to_string(kMaxArchiveFiles) + " files");
            if (entry.path.size() > kMaxPathBytes || entry.link_target.size() > kMaxPathBytes)
                return failure(Errc::kLimit, "it has a path longer than " + std::to_string(kMaxPathBytes) + " bytes");
            if (entry.size > kMaxArchiveBytes || entry.sparse)
                return failure(Errc::kLimit, "its file " + base::printable(entry.path, 300) +
                                                 " is sparse or larger than " + base::format_size(kMaxArchiveBytes));
            SplitFrame frame{kSplitMagic, static_cast<std::uint32_t>(entry.path.size()),
                             static_cast<std::uint32_t>(link ? entry.link_target.size() : 0), 0, link ? 0 : entry.size};
            CAISSON_TRY(os::write_all(kOutputFd, std::string_view(reinterpret_cast<const char*>(&frame), sizeof frame)));
            CAISSON_TRY(os::write_all(kOutputFd, entry.path));
            if (link) {
                CAISSON_TRY(os::write_all(kOutputFd, entry.link_target));
                continue;
            }
            std::uint64_t written = 0;
            CAISSON_TRY(reader->read_data([&](std::uint64_t offset, base::ByteView data) -> Result<> {
                if (offset != written || data.size() > entry.size - written)
                    return failure(Errc::kCorrupt, "its file " + base::printable(entry.path, 300) + " is damaged");
                written += data.size();
                return os::write_all(kOutputFd, data);
            }));
            if (written != entry.size)
                return failure(Errc::kCorrupt, "its file " + base::printable(entry.path, 300) + " is cut short");
        }
        return nlohmann::json{{"files", files}};
    });
}

}  // namespace caisson::image::unpack
