#include "volume/share/presence.h"

#include <fcntl.h>

namespace caisson::volume::share {

namespace {

// Far behind anything that the file holds.
struct flock place_of(Presence::Of of, short type) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = (off_t{1} << 40) + (of == Presence::Of::kServer ? 1 : 0);
    lock.l_len = 1;
    return lock;
}

}  // namespace

Result<std::shared_ptr<Presence>> Presence::enter(os::Fd file, Of of) {
    auto lock = place_of(of, F_RDLCK);
    if (::fcntl(file.get(), F_OFD_SETLK, &lock) != 0) return base::failure_errno("cannot lock the volume's file");
    return std::shared_ptr<Presence>(new Presence(std::move(file), of));
}

bool Presence::has_company() const {
    auto lock = place_of(of_, F_WRLCK);
    return ::fcntl(file_.get(), F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

}  // namespace caisson::volume::share
