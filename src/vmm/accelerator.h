// Which engine executes guest code, and why. /dev/kvm alone proves nothing: it may exist and run no kernel.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace caisson::vmm {

enum class Accelerator { kTcg, kKvm };

struct AcceleratorChoice {
    Accelerator accelerator = Accelerator::kTcg;
    std::string reason;  // one sentence for doctor, inspect and the run's first log line
};

// What the host shows; gathered apart so that the decision is a pure function.
struct HostFacts {
    bool cpu_flag = false;       // vmx or svm in /proc/cpuinfo
    bool kvm_exists = false;     // /dev/kvm
    bool kvm_opens = false;      // by us, read-write, now or before we left root
    bool kvm_failed_here = false;  // a template did not boot under KVM since the host booted
    std::string forced;          // CAISSON_ACCEL: "", "tcg" or "kvm"
};

// The CPU can run virtual machines itself, as far as this kernel shows it.
bool cpu_virtualises();

// `kvm_fd`: /dev/kvm if it is open already, else -1.
HostFacts gather_host_facts(const std::string& forced, bool kvm_failed_here, int kvm_fd);
// kUsage: `forced` is unknown. kHostMissing: KVM was asked for by name and cannot be had (never replaced silently).
Result<AcceleratorChoice> choose_accelerator(const HostFacts& facts);

// The host's time stamp counter in kHz: from the kernel if it tells, else measured over 50 ms against
// CLOCK_MONOTONIC_RAW. Under TCG the guest's counter is the host's, and a guest left to calibrate it hangs at random.
Result<std::uint64_t> measure_tsc_khz();

}  // namespace caisson::vmm
