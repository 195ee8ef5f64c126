// The store's files: where they lie, how they are read and changed. An OCI image layout plus a lock and a place for
// temporary files. Internal to src/image.
#pragma once

#include <sys/stat.h>

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/sha256.h"
#include "image/digest.h"
#include "image/oci_json.h"
#include "os/fd.h"
#include "os/file.h"

namespace caisson::image {

// Paths below the images directory.
struct Layout {
    std::string directory;
    std::string index() const { return directory + "/index.json"; }
    std::string lock() const { return directory + "/index.lock"; }
    std::string blobs() const { return directory + "/blobs/sha256"; }
    std::string blob(const std::string& hex) const { return blobs() + "/" + hex; }
    std::string temporary() const { return directory + "/tmp"; }
    std::string downloads() const { return directory + "/downloads"; }
    // Held by each pull as long as it runs, together with others; who sweeps downloads without an age needs it alone.
    std::string pulls() const { return directory + "/pulls.lock"; }
};

// A missing index is an empty one.
Result<Index> read_index(const Layout& layout);
// Where a blob lies that may not be in the store yet.
using BlobPath = std::function<std::string(const std::string& hex)>;
// A small blob, its digest verified. kCorrupt if it is damaged or missing.
Result<std::string> read_json_blob(const std::string& digest, const BlobPath& path_of);
Result<std::string> read_json_blob(const Layout& layout, const std::string& digest);
// The image behind an entry of the index.
Result<Image> read_image(const Descriptor& entry, const BlobPath& path_of);
Result<Image> read_image(const Layout& layout, const Descriptor& entry);

// A file on its way into the store.
struct StagedFile {
    std::string path;
    std::string digest;
    std::uint64_t size = 0;
};

// A directory for one writer's unfinished files, removed with it. If the writer is killed, the next one sweeps it:
// the lock inside is free then.
class Staging {
  public:
    static Result<Staging> create(const Layout& layout);
    Staging(Staging&&) = default;

    // One file, written piece by piece and hashed on the way.
    class Writer {
      public:
        Writer(std::string path, os::Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
        Result<> write(base::ByteView data);
        StagedFile finish();

      private:
        std::string path_;
        os::Fd fd_;
        base::Sha256 hash_;
        std::uint64_t size_ = 0;
    };
    Result<Writer> start();
    // Reads `source` to its end. kLimit beyond `limit`.
    Result<StagedFile> copy(int source, std::uint64_t limit, const std::string& what,
                            const std::function<void(std::uint64_t)>& progress = {});
    Result<StagedFile> text(std::string_view content);
    // A further name for a file of the store's own that is known to have this digest: the first of `candidates` that
    // is there. Whoever removes those names cannot take it away any more. kNotFound if none is there.
    Result<StagedFile> adopt(const std::vector<std::string>& candidates, const std::string& digest, std::uint64_t size);

  private:
    Staging(os::TemporaryDirectory directory, os::FileLock lock)
        : directory_(std::move(directory)), lock_(std::move(lock)) {}
    os::TemporaryDirectory directory_;
    os::FileLock lock_;
    int next_ = 0;
};

// In one step under the index lock: `blobs` become part of the store, `entries` replace those of the same names, and
// blobs that nothing refers to any more go away. kNotFound, and nothing changed, if one of `required` (digests) has gone.
Result<> commit(const Layout& layout, const std::vector<StagedFile>& blobs, const std::vector<Descriptor>& entries,
                const std::vector<std::string>& required = {});

// Whether a sweep leaves a file alone because it was made, renamed or changed within the grace; also one of the future,
// for the clock was set. Its change time counts: nobody can set that.
bool is_young(const struct stat& info, const RemoveOptions& options);

// Removes blobs that `index` does not reach; the index lock is held. Returns the bytes freed.
Result<std::uint64_t> sweep_blobs(const Layout& layout, const Index& index, const RemoveOptions& options = {});
// Removes what killed writers left in the temporary directory. Bytes freed.
Result<std::uint64_t> sweep_temporary(const Layout& layout, const RemoveOptions& options = {});

// The entry's name in the store.
std::string entry_name(const Descriptor& entry);

}  // namespace caisson::image
