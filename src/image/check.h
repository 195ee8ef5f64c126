// What must be true of the image store: see image/README.md, "On disk".
#pragma once

#include <set>
#include <string>

#include "image/store.h"
#include "store/check.h"

namespace caisson::image {

struct CheckRequest {
    std::string home;
    std::string images_directory, disks_directory;
    bool deep = false;
    // Paths of base disks that records of boxes name, each with the name of one such box.
    std::map<std::string, std::string> disks_of_boxes;
};
// What was counted.
struct CheckCounts {
    std::size_t images = 0, blobs = 0, disks = 0;
};
// Blobs and base disks that nothing names are no trouble, but what garbage collection is for.
store::Troubles check_images(const CheckRequest& request, CheckCounts& counts);

}  // namespace caisson::image
