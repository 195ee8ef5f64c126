// The local image store: an OCI image layout in <home>/images, and the ext4 base disks made from it in <home>/disks.
//
// Several processes use one store at once: index.json changes under a lock and atomically, blobs appear by rename
// after their digest has been verified, a base disk is built by one process while the others wait for it. Whatever is
// killed half-way leaves only temporary files, which the next writer removes.
//
// Source: OCI Image Format Specification 1.1 (image-layout, index, manifest, config).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "caisson/registry.h"
#include "image/limits.h"
#include "os/fd.h"
#include "os/process.h"

namespace caisson::image {

// What the image says about running it.
// HEALTHCHECK of a Dockerfile; docker's own extension of the image configuration. 0: not said.
struct ImageHealthCheck {
    std::vector<std::string> command;  // as it is executed; empty: none
    std::int64_t interval_ms = 0, timeout_ms = 0, start_period_ms = 0;  // at most 24 days
    std::uint32_t retries = 0;
};

struct Config {
    std::vector<std::string> entrypoint, cmd, env;
    std::string working_directory, user, stop_signal;
    std::map<std::string, std::string> labels;
    std::vector<std::string> volumes, exposed_ports;
    std::string architecture, os, created;
    ImageHealthCheck health;
};

struct Layer {
    std::string digest;      // of the blob
    std::string media_type;
    std::uint64_t size_bytes = 0;  // of the blob
    std::string diff_id;     // digest of the uncompressed tar
};

struct Image {
    std::string name;  // normalised: "caisson/base:latest"
    std::string manifest_digest, config_digest;  // config_digest is the image id, as in Docker
    std::string source_digest;  // what a registry's name stood for when it was pulled; may be a list's; else empty
    std::vector<Layer> layers;  // lowest first
    Config config;
    std::uint64_t size_bytes = 0;  // of all its blobs
    std::string created;           // RFC 3339, empty if unknown
};

struct BaseDisk {
    std::string path;  // raw ext4, 0444
    std::uint64_t virtual_size_bytes = 0;
};

struct Progress {
    std::string step;               // "reading layer 2 of 5"
    std::uint64_t done_bytes = 0;
    std::uint64_t total_bytes = 0;  // 0: unknown
};
using ProgressCallback = std::function<void(const Progress&)>;

struct LoadOptions {
    std::string name;  // overrides the name in the source; only for a source with exactly one image
    // Builds each image's base disk of this size before the image comes into the store: what cannot be unpacked does
    // not come in. 0: none is built.
    std::uint64_t disk_bytes = 0;
    ProgressCallback progress;
};

struct ImportOptions {
    std::string name;
    // Goes into the image's config; architecture and os default to the host's, created to now.
    Config config;
    ProgressCallback progress;
};

struct RemoveOptions {
    // Says whether a base disk (its path) still carries a box; such disks stay until collect_garbage(). Asked while no
    // image can come or go.
    std::function<bool(const std::string& path)> disk_in_use;
    // For collect_garbage() alone: what was made or changed in this time stays.
    std::chrono::seconds grace{0};
    bool dry_run = false;  // nothing is removed; the answer is what would be
    // Hears of each thing: "disk", "blob", "download" or "unfinished", its file's name, its bytes.
    std::function<void(const char* kind, const std::string& name, std::uint64_t bytes)> on_removed;
};

struct Removed {
    std::vector<std::string> names;
    std::uint64_t freed_bytes = 0;
};

// Holds paths only; every method may be called from any thread.
class Store {
  public:
    struct Options {
        std::string images_directory;
        std::string disks_directory;
        std::string unpack_program;  // path of caisson-unpack
        std::string fetch_program;   // path of caisson-fetch; only pull() and check_login() need it
        std::string enter_program;   // path of caisson-enter, for Landlock in the jails of both; empty: without
        std::string registries_file;  // registries.json; may be missing
        std::uint64_t max_unpacked_bytes = kDefaultMaxUnpackedBytes;
        std::uint64_t max_source_bytes = kMaxArchiveBytes;  // of what load() and import_rootfs() read
        // Starts caisson-unpack: in a jail (src/jail) unless set. The command needs no paths beyond its own program.
        std::function<Result<os::Process>(const os::Command&)> spawn;
        std::function<std::chrono::system_clock::time_point()> now;  // system clock unless set
    };

    // Makes what is missing of the two directories.
    static Result<Store> open(Options options);

    // By name ("debian", "debian:12", "name@sha256:..."), by manifest or config digest, or by a unique prefix (at least
    // four hex digits) of either. kNotFound names it and says how to get images; kUsage for an ambiguous prefix.
    Result<Image> find(const std::string& name) const;
    // Sorted by name.
    Result<std::vector<Image>> list() const;

    // An OCI layout (`source` is a directory), an OCI archive or a `docker save` archive, plain or compressed with
    // gzip, zstd or xz, from a file or a pipe. Only this host's architecture is taken. A name that exists moves to the
    // new image.
    Result<std::vector<Image>> load(os::Fd source, const LoadOptions& options);
    // Makes a one-layer image of a root file system's tar (plain, gzip, zstd or xz).
    Result<Image> import_rootfs(os::Fd tar, const ImportOptions& options);
    // From a registry, over caisson-fetch; "debian:12", "ghcr.io/owner/name@sha256:...". What is here already is not
    // downloaded again, several processes share one download, and a broken one goes on where it stopped. An image for
    // this host gets its base disk of `disk_bytes` (unless 0) before it gets its name: what cannot be unpacked does not
    // come in. kNotFound and
    // kPermission as the registry says; kCorrupt or kLimit for bytes that are not what they should be.
    Result<Image> pull(const std::string& name, const PullOptions& options, std::uint64_t disk_bytes,
                       const ProgressCallback& progress);
    // Asks a registry whether it takes a login. kPermission if not.
    Result<> check_login(const std::string& registry, const RegistryAccess& access, bool plain_http);
    // An OCI archive of these images, to a file or pipe: manifests, configs and layers byte for byte as they came.
    Result<> save(const std::vector<std::string>& names, int fd, const ProgressCallback& progress) const;
    // Gives an image a further name.
    Result<Image> tag(const std::string& name, const std::string& new_name);
    // Removes the name (an id removes all its names), then whatever nothing else uses: blobs and base disks.
    Result<Removed> remove(const std::string& name, const RemoveOptions& options);
    // Removes base disks and blobs that no image uses, and what killed processes left behind; nothing that a pull, an
    // import or a build which runs just now works on.
    Result<Removed> collect_garbage(const RemoveOptions& options);
    // Its two halves: base disks; and all else. Bytes freed.
    Result<std::uint64_t> collect_disks(const RemoveOptions& options);
    Result<std::uint64_t> collect_blobs(const RemoveOptions& options);

    // The read-only disk of this image with this virtual size, built when it is missing. kLimit if the image does not
    // fit, kCorrupt if a layer is damaged or hostile (the message names layer and entry).
    Result<BaseDisk> base_disk(const Image& image, std::uint64_t virtual_size_bytes, const ProgressCallback& progress);
    // Its path if it exists already: no lock, one stat(2).
    Result<std::optional<std::string>> cached_base_disk(const Image& image, std::uint64_t virtual_size_bytes) const;

    // An empty ext4, its root directory root's and 0755, as a new file (0600) of this size (from kMinDiskBytes, in steps of
    // 4096). `identity`: any text; file systems of the same text and size are the same. After an error there is no file.
    Result<> make_empty_disk(const std::string& path, std::uint64_t size_bytes, const std::string& identity) const;

  private:
    explicit Store(Options options) : options_(std::move(options)) {}
    Options options_;
};

}  // namespace caisson::image
