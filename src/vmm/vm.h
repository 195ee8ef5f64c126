// A running virtual machine: QEMU in its jail and the descriptors that lead to it.
#pragma once

#include <functional>
#include <string>

#include "base/bytes.h"
#include "os/fd.h"
#include "os/process.h"
#include "vmm/machine.h"
#include "wire/connection.h"

namespace caisson::vmm {

// Owner of one VMM process; destroying it ends the machine and everything else in its jail. The other three sockets are
// non-blocking.
struct Vm {
    os::Process process;  // bubblewrap's outer process, see jail::Jailed
    jail::Init init;
    os::Fd qmp;
    os::Fd agent;
    os::Fd share;    // what the guest says to the server of its volumes; blocking. None: a template has no port
    os::Fd window;   // the memory by which contents of files come and go (wire/share.h). None: a template has none
    os::Fd console;  // what the guest prints, and QEMU's own messages
};

// The memory for Vm::window, of wire::kShareWindowBytes, none of it used yet. Neither of those who have it can make it
// another size: what the other one has mapped stays.
Result<os::Fd> make_window();

// Starts QEMU as `plan` says, with initial_qmp() already written into its control socket. Returns as soon as the
// process is started. Single-threaded callers only: the VMM dies with the calling thread.
Result<Vm> start_vm(const MachinePlan& plan, const Assets& assets);

// How the end of a machine is told that jail::killed_by_filter() knows.
Error killed_by_filter();

// Opens a session with the machine's agent: the preamble with a fresh marker, and the host's Hello, queued in `agent`.
Result<> greet(wire::Connection& agent);

// Keeps the last bytes of a console and explains a guest that did not answer.
class ConsoleTail {
  public:
    void append(base::ByteView data);
    // Takes what a non-blocking console holds by now, but no more than kReadsAtOnce times 4 KiB: whoever writes faster
    // than this reads must not keep the caller. false: its end has come. `also` (may be empty) gets the same bytes.
    bool read_from(int fd, const std::function<void(base::ByteView)>& also = {});
    static constexpr int kReadsAtOnce = 64;  // at least what a socket holds, for the last words of a machine
    // The error of a guest that went wrong, with the likely cause (its own hint, if it has one) and the console's end as its
    // hint.
    Error explain(Error error, bool process_ended, bool guest_ran = false) const;
    // At least the last kMaxBytes, at most twice as much.
    const std::string& text() const { return text_; }
    static constexpr std::size_t kMaxBytes = 64 * 1024;
    // Last lines fit for a terminal, indented; empty if the guest printed nothing.
    std::string excerpt(std::size_t lines = 12) const;
    // The likely cause in one sentence, from what is known to go wrong; never empty. `guest_ran`: it had answered before.
    std::string likely_cause(bool process_ended, bool guest_ran = false) const;

  private:
    std::string text_;
};

}  // namespace caisson::vmm
