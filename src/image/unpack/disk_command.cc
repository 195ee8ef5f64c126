// caisson-unpack disk. Request: {"virtual_size_bytes":n, "bytes_per_inode":n, "max_unpacked_bytes":n, "uuid":"32 hex
// digits", "layers":[{"digest":"sha256:...","diff_id":"sha256:...","size":n}, ...]}, lowest layer first; their
// descriptors from kFirstInputFd on, the empty image file at kOutputFd.
// Result: {"entries":n, "unpacked_bytes":n, "bytes_per_inode":n}.
#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "image/limits.h"
#include "image/protocol.h"
#include "image/unpack/commands.h"
#include "image/unpack/ext4_image.h"
#include "image/unpack/merge.h"
#include "image/unpack/status.h"

namespace caisson::image::unpack {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::uint32_t kLeastBytesPerInode = 1024;
constexpr std::uint32_t kFreeInodes = 1024;  // at least so many files can be made in the guest

struct Request {
    std::vector<LayerSource> layers;
    std::vector<std::uint64_t> sizes;
    std::uint64_t total_bytes = 0;
    Ext4Image::Options disk;
    MergeLimits limits;
};

Result<Request> parse(const nlohmann::json& json) {
    Request request;
    request.disk.fd = kOutputFd;
    request.disk.virtual_size_bytes = json.value("virtual_size_bytes", std::uint64_t{0});
    request.disk.bytes_per_inode = json.value("bytes_per_inode", request.disk.bytes_per_inode);
    request.limits.max_unpacked_bytes = json.value("max_unpacked_bytes", kDefaultMaxUnpackedBytes);
    // One digest gives the file system its identity and the seed of its directory hashes.
    auto identity = base::sha256_hex(base::as_bytes(json.value("identity", std::string())));
    auto take = [&](std::size_t byte) {
        std::uint8_t value = 0;
        std::from_chars(identity.data() + 2 * byte, identity.data() + 2 * byte + 2, value, 16);
        return value;
    };
    for (std::size_t i = 0; i < 16; ++i) {
        request.disk.uuid[i] = take(i);
        request.disk.hash_seed[i] = take(16 + i);
    }
    request.disk.uuid[6] = static_cast<std::uint8_t>((request.disk.uuid[6] & 0x0f) | 0x80);  // version 8, RFC 9562
    request.disk.uuid[8] = static_cast<std::uint8_t>((request.disk.uuid[8] & 0x3f) | 0x80);
    int fd = kFirstInputFd;
    for (const auto& layer : json.at("layers")) {
        request.sizes.push_back(layer.value("size", std::uint64_t{0}));
        request.total_bytes += request.sizes.back();
        request.layers.push_back({layer.at("digest").get<std::string>(), layer.value("diff_id", std::string()),
                                  [fd](StreamLimits limits) -> Result<std::unique_ptr<Stream>> {
                                      if (::lseek(fd, 0, SEEK_SET) != 0) return failure_errno("cannot rewind the layer");
                                      ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
                                      return open_threaded_stream(fd, limits);
                                  }});
        ++fd;
    }
    return request;
}

Result<nlohmann::json> build(Request& request) {
    auto progress = [&](std::size_t layer, std::uint64_t consumed) {
        // Layers are read from the top down.
        std::uint64_t done = consumed;
        for (std::size_t i = 0; i < layer; ++i) done += request.sizes[request.sizes.size() - 1 - i];
        report_progress(layer < request.layers.size() ? "layer " + std::to_string(layer + 1) + " of " +
                                                            std::to_string(request.layers.size())
                                                      : "tables",
                        done, request.total_bytes);
    };
    for (;;) {
        if (::ftruncate(request.disk.fd, 0) != 0) return failure_errno("cannot empty the disk");
        auto image = CAISSON_TRY(Ext4Image::create(request.disk));
        auto merged = CAISSON_TRY(merge(request.layers, *image, request.limits, progress));
        // Inode tables have their place before the contents, so an image of very many small files starts over.
        if (merged.tree.visible_count() + kFreeInodes > image->free_inodes()) {
            if (request.disk.bytes_per_inode / 2 < kLeastBytesPerInode)
                return failure(Errc::kLimit, "the image has too many files (" +
                                                 std::to_string(merged.tree.visible_count()) + ") for a disk of " +
                                                 std::to_string(request.disk.virtual_size_bytes) + " bytes",
                               "ask for a larger disk");
            request.disk.bytes_per_inode /= 2;
            continue;
        }
        CAISSON_TRY(image->finish(merged.tree));
        if (::fsync(request.disk.fd) != 0) return failure_errno("cannot sync the disk");
        return nlohmann::json{{"entries", merged.tree.visible_count()},
                              {"unpacked_bytes", merged.unpacked_bytes},
                              {"bytes_per_inode", request.disk.bytes_per_inode}};
    }
}

}  // namespace

int run_disk() {
    auto json = read_request();
    if (!json) return report_error(json.error());
    Result<nlohmann::json> result;
    try {
        auto request = parse(*json);
        if (!request) return report_error(request.error());
        result = build(*request);
    } catch (const nlohmann::json::exception& error) {
        return report_error(failure(Errc::kInternal, std::string("the request is malformed: ") + error.what()).value());
    } catch (const std::bad_alloc&) {
        return report_error(failure(Errc::kLimit, "out of memory").value());
    }
    if (!result) return report_error(result.error());
    return report_result(*result);
}

}  // namespace caisson::image::unpack
