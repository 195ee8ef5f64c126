// Which engine and which template a box of some shape starts with.
#pragma once

#include "box/state.h"

namespace caisson::box {

struct Engine {
    vmm::Assets assets;
    vmm::HostProfile host;
    vmm::AcceleratorChoice choice;
    std::string describe() const;  // for doctor, --dry-run and the run's first log line
};

Result<Engine> choose_engine(const internal::RuntimeState& runtime);

struct Template {
    std::string key;
    std::string directory;
    bool built = false;  // just now
};
// What of an image is in its template.
struct TemplateImage {
    std::string name;
    std::string base_disk_path;
    std::uint64_t disk_bytes = 0;
    std::vector<std::string> warm;  // programs that its boxes are likely to start
};
// /dev/kvm for a shim, open; none under software emulation.
Result<os::Fd> open_kvm(const internal::RuntimeState& runtime, vmm::Accelerator accelerator);
// The tun device for a shim, open as net::open_tun_node() does it; none for a machine without a card. kHostMissing.
Result<os::Fd> open_tun(const internal::RuntimeState& runtime, vmm::Shape shape);
// Is this why a template was not made a reason never to use KVM again on this boot of the host? Only a machine that did
// not say a word is: any other error may be the image's doing, and one bad image must not choose how all boxes run.
bool condemns_kvm(vmm::Accelerator accelerator, const wire::ShimError& error);

// The template of `image` on `shape`, made if it is missing. If KVM was chosen and no guest boots under it, this is
// remembered for this boot of the host, told to the user, and `engine` changes to software emulation.
Result<Template> ensure_template(const internal::RuntimeState& runtime, Engine& engine, vmm::Shape shape,
                                 const TemplateImage& image);

}  // namespace caisson::box
