// Who else has a volume. All share servers of a volume hold a shared lock on one file of it, whose end their process's end
// is; whoever could not have it exclusively is not alone.
#pragma once

#include <chrono>
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

    // Of mounts: as long as this is true nobody else has the volume, and whoever comes waits until leave_alone() (a moment
    // at most: a server that does not answer harms its own guest only). Who comes opens the file once more, for inotify(7).
    bool is_alone();
    bool thinks_it_is_alone() const { return alone_; }
    void leave_alone();
    bool may_be_alone() const { return may_be_alone_; }
    void never_be_alone() { may_be_alone_ = false; }
    int file() const { return file_.get(); }

  private:
    Presence(os::Fd file, Of of) : file_(std::move(file)), of_(of), may_be_alone_(of == Of::kMount) {}
    void announce() const;
    os::Fd file_;
    Of of_;
    bool may_be_alone_, alone_ = false;
    std::chrono::steady_clock::time_point next_try_{};
};

}  // namespace caisson::volume::share
