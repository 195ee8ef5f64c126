#include "agent/identity.h"

#include <linux/random.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "base/text.h"

namespace caisson::agent {

using base::failure;
using base::failure_errno;

namespace {

Result<> reseed(std::string& entropy, const os::Fd& device) {
    if (entropy.size() < kMinEntropyBytes || entropy.size() > kMaxEntropyBytes)
        return failure(Errc::kUsage, "the host sent " + std::to_string(entropy.size()) + " bytes of entropy");
    // struct rand_pool_info ends in a flexible array.
    std::vector<int> buffer(2 + (entropy.size() + sizeof(int) - 1) / sizeof(int));
    buffer[0] = static_cast<int>(entropy.size() * 8);
    buffer[1] = static_cast<int>(entropy.size());
    std::memcpy(buffer.data() + 2, entropy.data(), entropy.size());
    bool added = ::ioctl(device.get(), RNDADDENTROPY, buffer.data()) == 0;
    ::explicit_bzero(buffer.data(), buffer.size() * sizeof(int));
    ::explicit_bzero(entropy.data(), entropy.size());
    if (!added) return failure_errno("cannot add entropy");
    // Without this the generator would go on with the template's key until its next regular reseeding.
    if (::ioctl(device.get(), RNDRESEEDCRNG, nullptr) != 0) return failure_errno("cannot reseed the random generator");
    return {};
}

}  // namespace

Result<> set_clock(std::int64_t nanoseconds, std::chrono::steady_clock::time_point received) {
    if (nanoseconds <= 0) return failure(Errc::kUsage, "the host sent no time");
    nanoseconds += std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - received).count();
    timespec now{};
    now.tv_sec = nanoseconds / 1'000'000'000;
    now.tv_nsec = nanoseconds % 1'000'000'000;
    if (::clock_settime(CLOCK_REALTIME, &now) != 0) return failure_errno("cannot set the clock");
    return {};
}

Result<> take_identity(wire::Configure& configure, const os::Fd& random, std::chrono::steady_clock::time_point received) {
    CAISSON_TRY(reseed(*configure.mutable_entropy(), random));
    CAISSON_TRY(set_clock(configure.realtime_nanoseconds(), received));
    const auto& name = configure.hostname();
    if (name.empty() || name.size() > 64) return failure(Errc::kUsage, "the host name must have 1 to 64 characters");
    if (::sethostname(name.data(), name.size()) != 0) return failure_errno("cannot set the host name");
    const auto& machine = configure.machine_id();
    if (!machine.empty() && (machine.size() != 32 || machine.find_first_not_of("0123456789abcdef") != std::string::npos))
        return failure(Errc::kUsage, "the machine id must be 32 lower-case hex digits");
    return {};
}

}  // namespace caisson::agent
