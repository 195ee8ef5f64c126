// Who else has a volume. All share servers of a volume hold a shared lock on one file of it, whose end their process's end
// is; whoever could not have it exclusively is not alone.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::volume::share {

class Presence {
  public:
    // Who is counted: each mount, of this box or of another one, or each server (see space.h).
    enum class Of : std::uint8_t { kMount, kServer };
    // `file`: opened for this one alone. What it holds is not touched.
    static Result<std::shared_ptr<Presence>> enter(os::Fd file, Of of = Of::kMount);
    // Another one has the volume now. Of mounts: then what one guest's kernel keeps of it is wrong as soon as the other
    // writes.
    bool has_company() const;

  private:
    Presence(os::Fd file, Of of) : file_(std::move(file)), of_(of) {}
    os::Fd file_;
    Of of_;
};

}  // namespace caisson::volume::share
