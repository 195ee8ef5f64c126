// What boxes keep of images, and what a full disk means for a box. Internal to this room.
#pragma once

#include <map>
#include <set>
#include <string>

#include "box/state.h"

namespace caisson::internal {

// What boxes need of the image store.
struct UsedByBoxes {
    std::map<std::string, std::string> images;  // manifest digest → name of a box
    std::map<std::string, int> disks;  // path → boxes that have it; an image may have lost its name to a newer one
    bool unknown = false;              // a record makes no sense, so nobody knows what its box needs
    bool has_disk(const std::string& path) const { return unknown || disks.contains(path); }
};
// The database is locked.
Result<UsedByBoxes> used_by_boxes(RuntimeState& state);

}  // namespace caisson::internal
