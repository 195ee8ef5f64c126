// Moves an execution's bytes between a shim and the caller's descriptors or callbacks, on the calling thread.
#pragma once

#include "box/state.h"

namespace caisson::box {

// Until the shim said how the box ended and every byte is delivered. The shim's socket is at its first stream frame.
Result<Outcome> pump(internal::BoxState& box, const StreamOptions& streams);

}  // namespace caisson::box
