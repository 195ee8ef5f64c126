// Files for boxes that are being made, see new_copies.cc. Internal to this room.
#pragma once

#include <memory>
#include <vector>

#include "box/state.h"

namespace caisson::internal {

// The host's ends, in the order of `copies`: what is missing or may not be read at all is an error before anything is made.
// `runtime` outlives them.
Result<std::vector<std::shared_ptr<HostCopy>>> open_copies(const RuntimeState& runtime, const std::vector<CopyOption>& copies);

// Into a box that has its record (still in the making), its directory and no lock. Its machine is gone again when this
// returns. After an error the disk holds a part.
Result<> copy_into_new(std::shared_ptr<RuntimeState> runtime, const store::BoxRecord& record, const std::vector<CopyOption>& copies,
                       const std::vector<std::shared_ptr<HostCopy>>& opened);

}  // namespace caisson::internal
