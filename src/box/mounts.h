// What is mounted in a box and copied into it: from what was asked and what the image declares to what the catalogue of
// volumes is told. Nothing here makes anything.
#pragma once

#include <string>
#include <vector>

#include "caisson/runtime.h"
#include "image/store.h"
#include "store/home.h"
#include "volume/catalogue.h"
#include "wire/agent.pb.h"

namespace caisson::box {

// All of BoxOptions::mounts, tmpfs and copies: names, places, their number, and that no two share a place. kUsage.
Result<> validate_mounts(const BoxOptions& options);

// The mounts that were asked for, and as Docker does it one anonymous volume for each VOLUME of the image where nothing
// else is mounted. kUsage if the image declares "/" to be one, or more than a box can have.
Result<std::vector<MountOption>> plan_mounts(const BoxOptions& options, const image::Config& config);

// Whether what must exist does: parts of volumes, and volumes that are named by their path. Only so that a request is
// refused before anything is made; whoever makes the box lets the gate look again.
Result<> check_parts(const store::Home& home, const std::vector<MountOption>& mounts);

std::vector<volume::Request> requests_of(const std::vector<MountOption>& mounts);

MountInfo mount_info(const wire::BoxMount& mount);
// For people and `inspect`, by target.
std::vector<MountInfo> mount_infos(const wire::BoxMounts& mounts, const wire::Configure& configure);

// "/data: volume 'myvol', etc/app.conf of it, read-only"
std::string describe_mount(const MountOption& mount);

}  // namespace caisson::box
