// Who else has a volume. All share servers of a volume hold a shared lock on one file of it, whose end their process's end
// is; whoever could not have it exclusively is not alone.
#pragma once

#include <memory>

#include "base/result.h"
#include "os/fd.h"

namespace caisson::volume::share {

class Presence {
  public:
    // `file`: opened for this mount alone, for reading and writing. What it holds is not touched.
    static Result<std::shared_ptr<Presence>> enter(os::Fd file);
    // Another mount, of this box or of another one, has the volume now. Then what one guest's kernel keeps of it is
    // wrong as soon as the other writes.
    bool has_company() const;

  private:
    explicit Presence(os::Fd file) : file_(std::move(file)) {}
    os::Fd file_;
};

}  // namespace caisson::volume::share
