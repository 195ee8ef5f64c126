// Volumes of a box that are disks: what can be said of them before a machine is started.
#pragma once

#include <string>
#include <vector>

#include "box/state.h"
#include "caisson/runtime.h"
#include "store/home.h"
#include "wire/volume.pb.h"

namespace caisson::box {

bool is_disk(const store::Home& home, const std::string& volume);

// Of a request: not more than a machine has room for, each once, whole. kUsage names the volume.
Result<> check_disks(const store::Home& home, const std::vector<MountOption>& mounts);

// Those of a request, as the catalogue will have them.
std::vector<wire::BoxMount> disks_of(const store::Home& home, const std::vector<MountOption>& mounts);
// Those of a box that is there.
Result<std::vector<wire::BoxMount>> disks_of(const store::Home& home, const std::string& box_id);

// All of them together.
std::uint64_t bytes_of(const std::vector<wire::BoxMount>& disks);

// Places for disks in the machine of a box that has so many.
std::uint32_t places_for(std::size_t disks);

// Nobody uses them in a way that keeps `box_id` (empty: a box yet to be made) from starting: kInUse says which box does.
// Only so that it is refused before anything is made; the box's launcher holds them.
Result<> check_disks_free(internal::RuntimeState& runtime, const std::string& box_id, const std::vector<wire::BoxMount>& disks);

}  // namespace caisson::box
