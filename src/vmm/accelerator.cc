#include "vmm/accelerator.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <vector>

#include "base/text.h"
#include "os/file.h"

namespace caisson::vmm {

using base::failure;

bool cpu_virtualises() {
    auto cpuinfo = os::read_file("/proc/cpuinfo", 4 << 20);
    if (!cpuinfo) return false;
    auto flags = cpuinfo->find("\nflags");
    if (flags == std::string::npos) return false;
    auto line = std::string_view(*cpuinfo).substr(flags + 1, cpuinfo->find('\n', flags + 1) - flags - 1);
    auto words = base::split(line, ' ');
    return std::find(words.begin(), words.end(), "vmx") != words.end() ||
           std::find(words.begin(), words.end(), "svm") != words.end();
}

HostFacts gather_host_facts(const std::string& forced, bool kvm_failed_here, int kvm_fd) {
    HostFacts facts;
    facts.forced = forced;
    facts.kvm_failed_here = kvm_failed_here;
    facts.kvm_exists = os::exists("/dev/kvm");
    if (!facts.kvm_exists) return facts;
    facts.kvm_opens = kvm_fd >= 0 || os::open_file("/dev/kvm", O_RDWR).has_value();
    facts.cpu_flag = cpu_virtualises();
    return facts;
}

Result<AcceleratorChoice> choose_accelerator(const HostFacts& facts) {
    if (facts.forced == "tcg") return AcceleratorChoice{Accelerator::kTcg, "software emulation, as CAISSON_ACCEL asks"};
    if (!facts.forced.empty() && facts.forced != "kvm")
        return failure(Errc::kUsage, "CAISSON_ACCEL is '" + base::printable(facts.forced, 32) + "'; it can be tcg or kvm");
    std::string why;
    if (!facts.kvm_exists) why = "/dev/kvm does not exist";
    else if (!facts.cpu_flag) why = "/dev/kvm exists, but the CPU shows neither vmx nor svm";
    else if (!facts.kvm_opens) why = "/dev/kvm cannot be opened by this user";
    else if (facts.kvm_failed_here) why = "a guest did not start under KVM since this host booted";
    if (why.empty()) return AcceleratorChoice{Accelerator::kKvm, "hardware virtualisation (KVM)"};
    if (facts.forced == "kvm")
        return failure(Errc::kHostMissing, "KVM was asked for (CAISSON_ACCEL=kvm), but " + why,
                       "unset CAISSON_ACCEL to use software emulation");
    return AcceleratorChoice{Accelerator::kTcg, "software emulation (TCG): " + why};
}

namespace {
std::int64_t raw_nanoseconds() {
    struct timespec now {};
    ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}
}  // namespace

Result<std::uint64_t> measure_tsc_khz() {
    if (auto told = os::read_file("/sys/devices/system/cpu/cpu0/tsc_freq_khz", 64)) {
        auto khz = base::parse_u64(base::trim(*told));
        if (khz && *khz > 100000) return *khz;
    }
    // Five short rounds, median: a preemption between the two clock reads spoils one round, not the result.
    std::vector<std::uint64_t> rounds;
    for (int round = 0; round < 5; ++round) {
        auto time_before = raw_nanoseconds();
        auto counter_before = __rdtsc();
        ::usleep(10000);
        auto time_after = raw_nanoseconds();
        auto counter_after = __rdtsc();
        auto nanoseconds = static_cast<std::uint64_t>(time_after - time_before);
        if (nanoseconds == 0 || counter_after <= counter_before) continue;
        rounds.push_back(static_cast<std::uint64_t>(static_cast<double>(counter_after - counter_before) * 1e6 /
                                                    static_cast<double>(nanoseconds)));
    }
    if (rounds.size() < 3) return failure(Errc::kHostMissing, "the CPU's time stamp counter does not advance steadily");
    std::sort(rounds.begin(), rounds.end());
    return rounds[rounds.size() / 2];
}

}  // namespace caisson::vmm
