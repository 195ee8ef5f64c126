// import_rootfs(): a root file system's tar becomes a one-layer image.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "image/host.h"
#include "image/layout.h"
#include "image/limits.h"
#include "image/name.h"
#include "image/store.h"
#include "image/unpacker.h"
#include "os/file.h"

namespace caisson::image {

using base::failure;

namespace {

enum class Compression { kNone, kGzip, kZstd, kXz, kUnknown };

Result<Compression> compression_of(const StagedFile& file) {
    auto fd = CAISSON_TRY(os::open_file(file.path, O_RDONLY));
    char head[6] = {};
    if (::read(fd.get(), head, sizeof head) < 0) return base::failure_errno("cannot read " + file.path);
    std::string_view start(head, sizeof head);
    if (start.starts_with("\x1f\x8b")) return Compression::kGzip;
    if (start.starts_with("\x28\xb5\x2f\xfd")) return Compression::kZstd;
    if (start == std::string_view("\xfd" "7zXZ\0", 6)) return Compression::kXz;
    if (start.starts_with("BZh")) return Compression::kUnknown;
    return Compression::kNone;
}

}  // namespace

Result<Image> Store::import_rootfs(os::Fd tar, const ImportOptions& options) {
    auto reference = CAISSON_TRY(parse_reference(options.name));
    if (!reference.digest.empty())
        return failure(Errc::kUsage, "\"" + base::printable(options.name, 300) + "\" holds a digest; a new name cannot");
    Layout layout{options_.images_directory};
    static_cast<void>(CAISSON_TRY(sweep_temporary(layout)));
    auto staging = CAISSON_TRY(Staging::create(layout));

    struct stat info {};
    std::uint64_t total = ::fstat(tar.get(), &info) == 0 && S_ISREG(info.st_mode) ? static_cast<std::uint64_t>(info.st_size) : 0;
    auto layer = CAISSON_TRY(staging.copy(tar.get(), options_.max_source_bytes, "the root file system's archive", [&](std::uint64_t done) {
        if (options.progress) options.progress({"reading the archive", done, total});
    }));
    auto compression = CAISSON_TRY(compression_of(layer));
    if (compression == Compression::kUnknown)
        return failure(Errc::kUnsupported, "the root file system's archive is compressed with bzip2",
                       "use a plain tar, or gzip, zstd or xz");
    std::string request = nlohmann::json{{"max_unpacked_bytes", options_.max_unpacked_bytes}}.dump();
    if (compression == Compression::kXz) {
        // OCI has no such layers.
        auto source = CAISSON_TRY(os::open_file(layer.path, O_RDONLY));
        auto writer = CAISSON_TRY(staging.start());
        UnpackJob job{.subcommand = "inflate", .request = request, .inputs = {source.get()}};
        job.data = [&](base::ByteView data) { return writer.write(data); };
        static_cast<void>(CAISSON_TRY(run_unpacker(options_, job, "the root file system's archive")));
        ::unlink(layer.path.c_str());
        layer = writer.finish();
        compression = Compression::kNone;
    }
    if (options.progress) options.progress({"checking the archive", 0, 0});
    auto source = CAISSON_TRY(os::open_file(layer.path, O_RDONLY));
    UnpackJob job{.subcommand = "scan", .request = request, .inputs = {source.get()}};
    auto scanned = CAISSON_TRY(run_unpacker(options_, job, "the root file system's archive"));
    // Said by a process that may have been taken over: any JSON.
    auto found = scanned.find("diff_id");
    if (found == scanned.end() || !found->is_string())
        return failure(Errc::kIo, "the unpacker did not say what the root file system's archive holds");
    std::string diff_id = found->get<std::string>();
    CAISSON_TRY(digest_hex(diff_id));

    Config config = options.config;
    if (config.architecture.empty()) config.architecture = host_architecture();
    if (config.os.empty()) config.os = "linux";
    if (config.created.empty())
        config.created = format_time(options_.now ? options_.now() : std::chrono::system_clock::now());
    auto config_blob = CAISSON_TRY(staging.text(write_config(config, {diff_id})));
    Manifest manifest;
    manifest.config = {std::string(kMediaConfig), config_blob.digest, config_blob.size};
    auto type = compression == Compression::kGzip   ? kMediaLayerGzip
                : compression == Compression::kZstd ? kMediaLayerZstd
                                                    : kMediaLayerTar;
    manifest.layers.push_back({std::string(type), layer.digest, layer.size});
    auto manifest_blob = CAISSON_TRY(staging.text(write_manifest(manifest)));
    Descriptor entry{std::string(kMediaManifest), manifest_blob.digest, manifest_blob.size};
    entry.annotations[std::string(kAnnotationRefName)] = reference.name();
    CAISSON_TRY(commit(layout, {layer, config_blob, manifest_blob}, {entry}));
    return find(reference.name());
}

}  // namespace caisson::image
