#include "box/events.h"

namespace caisson::internal {

std::string mount_text(const MountOption& mount) {
    std::string text = mount.volume.empty() ? "(anonymous)" : mount.volume;
    if (!mount.subpath.empty()) text += "/" + mount.subpath;
    return text + ":" + mount.target + (mount.read_only ? ":ro" : "");
}

audit::Event created_event(const store::BoxRecord& record, const BoxOptions& options) {
    audit::Event event{"box_created", record.id, record.name, {}};
    event.details = {{"image", record.image}, {"image_digest", record.image_digest}, {"auto_remove", record.auto_remove}};
    if (!options.command.empty()) event.details.emplace_back("arguments", options.command);
    if (!options.user.empty()) event.details.emplace_back("user", options.user);
    std::vector<std::string> mounts;
    for (const auto& mount : options.mounts) mounts.push_back(mount_text(mount));
    if (!mounts.empty()) event.details.emplace_back("mounts", mounts);
    std::vector<std::string> copies;
    for (const auto& copy : options.copies) copies.push_back(copy.source + ":" + copy.target);
    if (!copies.empty()) event.details.emplace_back("copies", copies);
    if (auto lowered = lowered_by(options); !lowered.empty()) event.details.emplace_back("lowered", lowered);
    return event;
}

std::vector<std::string> lowered_by(const BoxOptions& options) {
    std::vector<std::string> lowered;
    if (options.security != "jailed") lowered.push_back("security=" + options.security);
    if (options.privileged) lowered.push_back("privileged");
    for (const auto& capability : options.cap_add) lowered.push_back("cap_add=" + capability);
    return lowered;
}

audit::Event volume_event(const char* kind, const std::string& name) { return {kind, "", "", {{"volume", name}}}; }

}  // namespace caisson::internal
