// Runtime's image store: a thin layer over image::Store that knows about boxes.
#include <fcntl.h>

#include "base/text.h"
#include "box/recorder.h"
#include "box/space.h"
#include "box/state.h"
#include "caisson/runtime.h"
#include "vmm/shape.h"

namespace caisson {

using base::failure;
using internal::RuntimeState;

namespace {
ImageInfo info_of(const image::Image& image) {
    return {image.name,    image.config_digest, image.manifest_digest, image.created,
            image.config.os + "/" + image.config.architecture, image.size_bytes, image.layers.size()};
}
image::RemoveOptions keeping(const internal::UsedByBoxes& used) {
    image::RemoveOptions options;
    options.disk_in_use = [&used](const std::string& path) { return used.has_disk(path); };
    return options;
}
// Names and digests, as the store has them now.
void record_image(RuntimeState& state, const char* kind, const image::Image& image) {
    internal::record(state, {kind, "", "", {{"image", image.name}, {"digest", image.manifest_digest}}});
}
Result<os::Fd> duplicate_of(int fd) {
    int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return base::failure_errno("cannot read the given file");
    return os::Fd(copy);
}
}  // namespace

Result<std::vector<ImageInfo>> Runtime::images() const {
    std::vector<ImageInfo> infos;
    for (const auto& image : CAISSON_TRY(state_->images->list())) infos.push_back(info_of(image));
    return infos;
}

Result<std::vector<ImageInfo>> Runtime::load_images(int fd, const std::string& name) {
    image::LoadOptions options;
    options.name = name;
    options.disk_bytes = vmm::kDefaultDiskBytes;
    options.progress = state_->image_progress();
    auto loaded = state_->images->load(CAISSON_TRY(duplicate_of(fd)), options);
    state_->progress("");
    std::vector<ImageInfo> infos;
    for (const auto& image : CAISSON_TRY(std::move(loaded))) {
        record_image(*state_, "image_loaded", image);
        infos.push_back(info_of(image));
    }
    return infos;
}

Result<ImageInfo> Runtime::import_image(int fd, const std::string& name, const ImageConfig& config) {
    image::ImportOptions options;
    options.name = name;
    options.config.entrypoint = config.entrypoint;
    options.config.cmd = config.cmd;
    options.config.env = config.env;
    options.config.working_directory = config.working_directory;
    options.config.user = config.user;
    options.config.labels = config.labels;
    options.progress = state_->image_progress();
    auto imported = state_->images->import_rootfs(CAISSON_TRY(duplicate_of(fd)), options);
    state_->progress("");
    const auto image = CAISSON_TRY(std::move(imported));
    record_image(*state_, "image_imported", image);
    return info_of(image);
}

namespace {
Result<std::vector<std::string>> remove_unused(RuntimeState& state, const std::string& reference) {
    std::scoped_lock guard(state.database_mutex);
    auto image = CAISSON_TRY(state.images->find(reference));
    // Boxes keep only an overlay: without its base disk such a box is lost.
    auto used = CAISSON_TRY(internal::used_by_boxes(state));
    if (auto box = used.images.find(image.manifest_digest); box != used.images.end())
        return failure(Errc::kInUse, "image " + image.name + " is used by box " + box->second,
                       "remove the box first: caisson rm " + box->second);
    return CAISSON_TRY(state.images->remove(reference, keeping(used))).names;
}
}  // namespace

Result<std::vector<std::string>> Runtime::remove_image(const std::string& reference) {
    auto names = CAISSON_TRY(remove_unused(*state_, reference));
    for (const auto& name : names) internal::record(*state_, {"image_removed", "", "", {{"image", name}}});
    return names;
}

namespace internal {

Result<> ensure_image(RuntimeState& runtime, const BoxOptions& options) {
    if (options.pull == PullPolicy::kNever) return {};
    if (options.pull == PullPolicy::kMissing) {
        auto found = runtime.images->find(options.image);
        if (found) return {};
        if (found.error().code != Errc::kNotFound) return failure(std::move(found).error());
        // What is written like an id is none of a registry's names.
        if (options.image.starts_with("sha256:")) return failure(std::move(found).error());
        runtime.notice("there is no image " + options.image + " here yet; pulling it");
    }
    auto pulled = runtime.images->pull(options.image, options.pull_options, vmm::kDefaultDiskBytes, runtime.image_progress());
    runtime.progress("");
    if (!pulled) return failure(std::move(pulled).error());
    record_image(runtime, "image_pulled", *pulled);
    return {};
}

}  // namespace internal

Result<ImageInfo> Runtime::pull_image(const std::string& name, const PullOptions& options) {
    auto pulled = state_->images->pull(name, options, vmm::kDefaultDiskBytes, state_->image_progress());
    state_->progress("");
    const auto image = CAISSON_TRY(std::move(pulled));
    record_image(*state_, "image_pulled", image);
    return info_of(image);
}

Result<> Runtime::check_registry_login(const std::string& registry, const RegistryAccess& access, bool plain_http) {
    return state_->images->check_login(registry, access, plain_http);
}

Result<> Runtime::save_images(const std::vector<std::string>& references, int fd) {
    auto saved = state_->images->save(references, fd, state_->image_progress());
    state_->progress("");
    return saved;
}

Result<ImageInfo> Runtime::tag_image(const std::string& reference, const std::string& new_name) {
    const auto image = CAISSON_TRY(state_->images->tag(reference, new_name));
    record_image(*state_, "image_tagged", image);
    return info_of(image);
}

Result<ImageDetails> Runtime::inspect_image(const std::string& reference) const {
    auto image = CAISSON_TRY(state_->images->find(reference));
    ImageDetails details;
    details.info = info_of(image);
    details.source_digest = image.source_digest;
    for (const auto& layer : image.layers) details.layers.push_back({layer.digest, layer.media_type, layer.diff_id, layer.size_bytes});
    auto& config = image.config;
    details.entrypoint = std::move(config.entrypoint);
    details.cmd = std::move(config.cmd);
    details.env = std::move(config.env);
    details.volumes = std::move(config.volumes);
    details.exposed_ports = std::move(config.exposed_ports);
    details.working_directory = std::move(config.working_directory);
    details.user = std::move(config.user);
    details.stop_signal = std::move(config.stop_signal);
    details.labels = std::move(config.labels);
    return details;
}

namespace {
Result<Pruned> prune_unused(RuntimeState& state, const PruneOptions& options) {
    std::scoped_lock guard(state.database_mutex);
    Pruned pruned;
    auto used = CAISSON_TRY(internal::used_by_boxes(state));
    if (options.all) {
        for (const auto& image : CAISSON_TRY(state.images->list())) {
            if (used.images.contains(image.manifest_digest)) continue;
            auto removed = CAISSON_TRY(state.images->remove(image.name, keeping(used)));
            pruned.images.insert(pruned.images.end(), removed.names.begin(), removed.names.end());
            pruned.freed_bytes += removed.freed_bytes;
        }
    }
    pruned.freed_bytes += CAISSON_TRY(state.images->collect_garbage(keeping(used))).freed_bytes;
    return pruned;
}
}  // namespace

Result<Pruned> Runtime::prune_images(const PruneOptions& options) {
    auto pruned = CAISSON_TRY(prune_unused(*state_, options));
    for (const auto& name : pruned.images) internal::record(*state_, {"image_removed", "", "", {{"image", name}}});
    return pruned;
}

}  // namespace caisson
