// What a jail is made with. A Sandbox turns the command of a program into the command of that program in its jail; which
// one a box has is decided once, by the word --security, and never by what happens to work.
#pragma once

#include <string>

#include "jail/jail.h"

namespace caisson::jail {

// What one start needs beside its command. Lives until the command is spawned.
struct SandboxContext {
    Description description;
    std::string program;                  // setup(): what makes the jail
    bool forbid_user_namespaces = false;  // setup(): it can
    os::Fd filter;                        // setup(): the rendered system call filter
};

// Stateless; any thread.
class Sandbox {
  public:
    virtual ~Sandbox() = default;
    // As boxes record it and people read it: "jailed", "none".
    virtual std::string_view name() const = 0;
    // Is there what it takes on this host? Looks at files only.
    virtual bool available() const = 0;
    // Makes one for a trial. Errors: kHostMissing, naming what refuses and the fix.
    virtual Result<> preflight() const = 0;
    // Makes what the jail of context.description needs. Errors: kHostMissing.
    virtual Result<> setup(SandboxContext& context) const = 0;
    // Puts `command`, which starts the program as it is, into the jail that was set up.
    virtual Result<> apply(const SandboxContext& context, os::Command& command) const = 0;
};

// Namespaces made by bubblewrap, the filter and Landlock. What every box has that does not say otherwise.
const Sandbox& bubblewrap();

// The command to os::spawn(), with `sandbox` around it. Errors: those of setup() and apply().
Result<JailCommand> command(const Description& description, const Sandbox& sandbox);
Result<Jailed> start(const Description& description, const Sandbox& sandbox);

}  // namespace caisson::jail
