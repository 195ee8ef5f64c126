#include "image/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/text.h"
#include "image/disks.h"
#include "image/downloads.h"
#include "image/layout.h"
#include "image/limits.h"
#include "image/name.h"
#include "os/file.h"
#include "os/lasting.h"

namespace caisson::image {

using base::failure;
using base::printable;

namespace {

constexpr std::size_t kMinPrefixDigits = 4;
constexpr const char* kNoImageHint =
    "caisson image ls shows what is there; caisson image pull NAME and caisson image load FILE bring images in";

bool has_digest_prefix(const std::string& digest, std::string_view hex_prefix) {
    constexpr std::string_view kAlgorithm = "sha256:";
    return std::string_view(digest).substr(kAlgorithm.size()).starts_with(hex_prefix);
}

// The hex digits of what could be (the beginning of) a digest.
std::string_view digest_prefix(std::string_view name) {
    if (name.starts_with("sha256:")) name.remove_prefix(7);
    if (name.size() < kMinPrefixDigits || name.size() > 64 || !is_hex(name)) return {};
    return name;
}

// Entries of the index that `name` means, all of one image.
Result<std::vector<Descriptor>> find_entries(const Layout& layout, const Index& index, const std::string& name) {
    auto reference = parse_reference(name);
    std::vector<Descriptor> found;
    if (reference) {
        for (const auto& entry : index.manifests) {
            bool named = entry_name(entry) == reference->name();
            if (!reference->digest.empty()) {
                auto source = entry.annotations.find(std::string(kAnnotationSourceDigest));
                named = entry.digest == reference->digest ||
                        (source != entry.annotations.end() && source->second == reference->digest);
            }
            if (named && !reference->digest.empty()) {
                // "name@digest": the name must be one of that image's names.
                auto own = parse_reference(entry_name(entry));
                named = own && own->repository == reference->repository &&
                        (reference->tag.empty() || own->tag == reference->tag);
            }
            if (named) found.push_back(entry);
        }
        if (!found.empty()) return found;
    }
    if (auto prefix = digest_prefix(name); !prefix.empty()) {
        for (const auto& entry : index.manifests) {
            bool matches = has_digest_prefix(entry.digest, prefix);
            if (!matches) {
                auto manifest = read_json_blob(layout, entry.digest);
                auto parsed = manifest ? parse_manifest(*manifest) : Result<Manifest>(failure(manifest.error()));
                matches = parsed && has_digest_prefix(parsed->config.digest, prefix);
            }
            if (!matches) continue;
            if (!found.empty() && found.front().digest != entry.digest)
                return failure(Errc::kUsage, "\"" + name + "\" is the beginning of several image ids",
                               "give more digits, or the name; caisson image ls shows both");
            found.push_back(entry);
        }
        if (!found.empty()) return found;
    }
    if (!reference && digest_prefix(name).empty()) return failure(std::move(reference).error());
    return failure(Errc::kNotFound, "there is no image \"" + printable(name, 300) + "\"", kNoImageHint);
}

}  // namespace

Result<Store> Store::open(Options options) {
    Layout layout{options.images_directory};
    // The usual case costs three system calls. What is made here stays: removing it would race with others.
    if (!os::exists(layout.blobs())) CAISSON_TRY(os::make_lasting_directories(layout.blobs(), 0700));
    if (!os::exists(layout.downloads())) CAISSON_TRY(os::make_lasting_directories(layout.downloads(), 0700));
    if (!os::exists(options.disks_directory)) CAISSON_TRY(os::make_lasting_directories(options.disks_directory, 0700));
    return Store(std::move(options));
}

Result<Image> Store::find(const std::string& name) const {
    Layout layout{options_.images_directory};
    auto index = CAISSON_TRY(read_index(layout));
    auto entries = CAISSON_TRY(find_entries(layout, index, name));
    return CAISSON_TRY_CTX(read_image(layout, entries.front()), "image " + printable(name, 300));
}

Result<std::vector<Image>> Store::list() const {
    Layout layout{options_.images_directory};
    auto index = CAISSON_TRY(read_index(layout));
    std::vector<Image> images;
    for (const auto& entry : index.manifests) {
        auto image = CAISSON_TRY_CTX(read_image(layout, entry), "image " + printable(entry_name(entry), 300));
        images.push_back(std::move(image));
    }
    std::sort(images.begin(), images.end(), [](const Image& a, const Image& b) { return a.name < b.name; });
    return images;
}

Result<Image> Store::tag(const std::string& name, const std::string& new_name) {
    auto reference = CAISSON_TRY(parse_reference(new_name));
    if (!reference.digest.empty())
        return failure(Errc::kUsage, "\"" + printable(new_name, 300) + "\" holds a digest; a new name cannot");
    Layout layout{options_.images_directory};
    auto index = CAISSON_TRY(read_index(layout));
    auto entries = CAISSON_TRY(find_entries(layout, index, name));
    Descriptor entry = entries.front();
    entry.annotations[std::string(kAnnotationRefName)] = reference.name();
    CAISSON_TRY(commit(layout, {}, {entry}, {entry.digest}));
    return find(reference.name());
}

Result<Removed> Store::remove(const std::string& name, const RemoveOptions& options) {
    Layout layout{options_.images_directory};
    auto lock = CAISSON_TRY(os::FileLock::acquire(layout.lock()));
    auto index = CAISSON_TRY(read_index(layout));
    auto entries = CAISSON_TRY(find_entries(layout, index, name));
    Removed removed;
    for (const auto& entry : entries) removed.names.push_back(entry_name(entry));
    std::erase_if(index.manifests, [&](const Descriptor& entry) {
        return std::find(removed.names.begin(), removed.names.end(), entry_name(entry)) != removed.names.end();
    });
    CAISSON_TRY(os::write_file_atomic(layout.index(), write_index(index), 0644));
    removed.freed_bytes = CAISSON_TRY(sweep_blobs(layout, index));
    removed.freed_bytes += CAISSON_TRY(sweep_disks(layout, options_.disks_directory, index, options));
    return removed;
}

Result<Removed> Store::collect_garbage(const RemoveOptions& options) {
    Removed removed;
    removed.freed_bytes = CAISSON_TRY(collect_disks(options));
    removed.freed_bytes += CAISSON_TRY(collect_blobs(options));
    return removed;
}

Result<std::uint64_t> Store::collect_disks(const RemoveOptions& options) {
    Layout layout{options_.images_directory};
    auto lock = CAISSON_TRY(os::FileLock::acquire(layout.lock()));
    return sweep_disks(layout, options_.disks_directory, CAISSON_TRY(read_index(layout)), options);
}

Result<std::uint64_t> Store::collect_blobs(const RemoveOptions& options) {
    Layout layout{options_.images_directory};
    auto freed = CAISSON_TRY(sweep_temporary(layout, options));
    {
        auto lock = CAISSON_TRY(os::FileLock::acquire(layout.lock()));
        freed += CAISSON_TRY(sweep_blobs(layout, CAISSON_TRY(read_index(layout)), options));
    }
    auto alone = os::FileLock::try_acquire(layout.pulls());
    if (!alone && alone.error().code == Errc::kInUse) return freed;  // what pulls that run have downloaded is theirs
    if (!alone) return failure(std::move(alone).error());
    return freed + CAISSON_TRY(sweep_downloads({layout.downloads()}, options));
}

}  // namespace caisson::image
