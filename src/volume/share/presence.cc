#include "volume/share/presence.h"

#include <fcntl.h>
#include <poll.h>

namespace caisson::volume::share {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// How long somebody who comes waits for somebody who was alone, and how often it looks.
constexpr milliseconds kPatience{1000};
constexpr int kLookMilliseconds = 1;
constexpr milliseconds kLittlePatience{50}, kForgiven{20000};
// After company has gone; looking costs a call.
constexpr milliseconds kBetweenTries{200};

// Bytes far behind anything that the file holds: the presence of mounts, that of servers, and who is alone.
enum class Place : off_t { kMount = 0, kServer = 1, kAlone = 2 };

struct flock lock_of(Place place, short type) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = (off_t{1} << 40) + static_cast<off_t>(place);
    lock.l_len = 1;
    return lock;
}

Place place_of(Presence::Of of) { return of == Presence::Of::kServer ? Place::kServer : Place::kMount; }

}  // namespace

Result<std::shared_ptr<Presence>> Presence::enter(os::Fd file, Of of) {
    auto lock = lock_of(place_of(of), F_RDLCK);
    if (::fcntl(file.get(), F_OFD_SETLK, &lock) != 0) return base::failure_errno("cannot lock the volume's file");
    auto presence = std::shared_ptr<Presence>(new Presence(std::move(file), of));
    if (of == Of::kMount) presence->announce();
    return presence;
}

bool Presence::has_company() const {
    auto lock = lock_of(place_of(of_), F_WRLCK);
    return ::fcntl(file_.get(), F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

// Once somebody has not answered, the next ones in a row are not waited for as long: a box may come to many volumes at once.
void Presence::announce() const {
    static steady_clock::time_point waited_for_nothing;
    const auto begin = steady_clock::now();
    const auto until = begin + (begin - waited_for_nothing < kForgiven ? kLittlePatience : kPatience);
    for (bool rung = false; steady_clock::now() < until; rung = true) {
        auto alone = lock_of(Place::kAlone, F_WRLCK);
        if (::fcntl(file_.get(), F_OFD_GETLK, &alone) != 0 || alone.l_type == F_UNLCK) return;
        if (!rung) os::Fd(::open(("/proc/self/fd/" + std::to_string(file_.get())).c_str(), O_RDONLY | O_CLOEXEC));
        ::poll(nullptr, 0, kLookMilliseconds);
    }
    waited_for_nothing = steady_clock::now();
}

bool Presence::is_alone() {
    if (alone_ || !may_be_alone_) return alone_;
    const auto now = steady_clock::now();
    if (now < next_try_) return false;
    next_try_ = now + kBetweenTries;
    // Shared, since not everybody may write to the file: that there is no company makes it one's own.
    auto alone = lock_of(Place::kAlone, F_RDLCK);
    if (has_company() || ::fcntl(file_.get(), F_OFD_SETLK, &alone) != 0) return false;
    // Whoever came in between found nobody to wait for.
    if (has_company()) {
        leave_alone();
        return false;
    }
    alone_ = true;
    return true;
}

void Presence::leave_alone() {
    auto nobody = lock_of(Place::kAlone, F_UNLCK);
    static_cast<void>(::fcntl(file_.get(), F_OFD_SETLK, &nobody));
    alone_ = false;
}

}  // namespace caisson::volume::share
