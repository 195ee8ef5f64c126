// Outcome: how a box or an execution ended. Never an Error: a command that exits with 7 has not failed caisson.
#pragma once

#include <string>

namespace caisson {


struct Outcome {
    enum class Kind {
        kExited,   // exit_code holds
        kSignalled,  // signal holds
        kTimedOut,   // its deadline passed; it and all its children were killed
        kFailed,     // caisson, the VMM or the guest ended it; reason says why
        kDetached,   // it has not ended: the caller left it, see StreamOptions::detach_keys
    };
    Kind kind = Kind::kFailed;
    int exit_code = 0;
    int signal = 0;
    std::string reason;

    // The code a shell sees: the command's, 128+N, 124 or 125.
    int shell_code() const {
        switch (kind) {
            case Kind::kExited: return exit_code;
            case Kind::kSignalled: return 128 + signal;
            case Kind::kTimedOut: return 124;
            case Kind::kFailed: return 125;
            case Kind::kDetached: return 0;
        }
        return 125;
    }
};

}  // namespace caisson
