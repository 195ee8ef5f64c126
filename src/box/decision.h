// What run(), create(), plan() and build_template() decide before anything is made.
#pragma once

#include <optional>
#include <string>

#include "box/engine.h"
#include "image/store.h"
#include "vmm/shape.h"
#include "wire/agent.pb.h"
#include "wire/volume.pb.h"

namespace caisson::box {

struct Decision {
    image::Image image;
    wire::Exec exec;
    vmm::Shape shape;
    std::optional<wire::NetworkSpec> network;  // none: the box has no network
    Engine engine;
    std::uint64_t base_disk_bytes = 0;
    std::vector<MountOption> mounts;  // with those that the image declares
    std::vector<wire::BoxMount> disks;  // those of them that are disks
};

// Validates; the image must be in the store, and what is to be mounted of a volume must be in it.
Result<Decision> decide(const internal::RuntimeState& runtime, const BoxOptions& options);
// The base disk if it is there. An image that is too large for the usual one has one of the box's own size.
Result<std::optional<std::string>> cached_base_disk(const internal::RuntimeState& runtime, Decision& decision,
                                                    std::uint64_t disk_bytes);
// The same, made if it is missing.
Result<std::string> ensure_base_disk(internal::RuntimeState& runtime, Decision& decision, std::uint64_t disk_bytes);
// The root disk that a box was made from, among those of this home, whichever place that had then: only its file's name is
// taken from the record, which is what a supervisor wrote last, and that may have been taken over. It need not be there.
// kCorrupt: no such name.
Result<std::string> recorded_base_disk(const store::Home& home, const store::BoxRecord& record);

// What of the image is in its template.
TemplateImage template_image(const image::Image& image, const std::string& base_disk, std::uint64_t disk_bytes);

}  // namespace caisson::box
