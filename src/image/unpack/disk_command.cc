// caisson-unpack disk. Request: {"virtual_size_bytes":n, "bytes_per_inode":n, "max_unpacked_bytes":n, "uuid":"32 hex
// digits", "layers":[{"digest":"sha256:...","diff_id":"sha256:...","size":n}, ...]}, lowest layer first; their
// descriptors from kFirstInputFd on, the empty image file at kOutputFd.
// Result: {"entries":n, "unpacked_bytes":n, "bytes_per_inode":n}.
#include <charconv>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/sha256.h"
#include "image/limits.h"
#include "image/protocol.h"
#include "image/status.h"
#include "image/unpack/build_disk.h"
#include "image/unpack/commands.h"

namespace caisson::image::unpack {

using base::failure;

namespace {

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
    std::vector<int> fds(json.at("layers").size());
    std::iota(fds.begin(), fds.end(), kFirstInputFd);
    auto streams = std::make_shared<StreamsAhead>(std::move(fds));  // merging reads the last layer first
    for (const auto& layer : json.at("layers")) {
        request.sizes.push_back(layer.value("size", std::uint64_t{0}));
        request.total_bytes += request.sizes.back();
        request.layers.push_back({layer.at("digest").get<std::string>(), layer.value("diff_id", std::string()),
                                  [streams, index = request.layers.size()](StreamLimits limits) { return streams->open(index, limits); }});
    }
    return request;
}

Result<nlohmann::json> build(Request& request) {
    auto progress = [&](std::size_t layer, std::uint64_t consumed) {
        // Layers are read from the top down.
        std::uint64_t done = consumed;
        for (std::size_t i = 0; i < layer; ++i) done += request.sizes[request.sizes.size() - 1 - i];
        report_progress(layer < request.layers.size() ? "unpacking layer " + std::to_string(layer + 1) + " of " +
                                                            std::to_string(request.layers.size())
                                                      : "writing the file system's tables",
                        done, request.total_bytes);
    };
    auto built = CAISSON_TRY(build_disk(request.layers, request.disk, request.limits, progress));
    return nlohmann::json{{"entries", built.entries},
                          {"unpacked_bytes", built.unpacked_bytes},
                          {"bytes_per_inode", built.bytes_per_inode}};
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
