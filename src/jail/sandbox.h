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
    // Processes below it die with one that it makes first, see Init. Else what is started is one process, and that one.
    virtual bool has_init() const = 0;
    // For people: one line per rule.
    virtual std::string describe(const Description& description) const = 0;
};

// Namespaces made by bubblewrap, the filter and Landlock. What every box has that does not say otherwise.
const Sandbox& bubblewrap();
// No jail: the program as it is on the host, with the descriptors, environment, limits and control groups that the
// description lists, as the service user where we are root. It refuses a description that asks for anything else (mounts,
// a filter): whoever goes without a jail says so himself.
const Sandbox& no_jail();

inline constexpr const char* kJailedWord = "jailed";
inline constexpr const char* kNoJailWord = "none";
// By the word of --security; empty is the first. kUsage for any other.
Result<const Sandbox*> sandbox_named(const std::string& word);

// The command to os::spawn(), with `sandbox` around it. Errors: those of setup() and apply().
Result<JailCommand> command(const Description& description, const Sandbox& sandbox);
Result<Jailed> start(const Description& description, const Sandbox& sandbox);

}  // namespace caisson::jail
