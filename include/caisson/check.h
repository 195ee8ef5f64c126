// What Runtime::check() finds out about a home: where the database, the files and the processes of the host disagree with
// each other or with what caisson made of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caisson/export.h"
#include "caisson/result.h"

namespace caisson {

struct RuntimeOptions;

struct CheckOptions {
    bool repair = false;  // else nothing in the home is changed, not even what opening it would tidy up
    bool deep = false;    // reads all blobs of images and compares their digests, which takes as long as reading does
};

struct Finding {
    enum class Severity {
        kWarning,  // left over, or goes away by itself when the home is opened next
        kError,    // something is damaged or missing
    };
    std::string code;    // stable snake_case, see docs/check.md
    Severity severity = Severity::kError;
    std::string object;  // path, relative to the home if it lies below it; or "box ID", "image NAME", "process PID"
    std::string what;    // one sentence for a person
    std::string remedy;  // what a repair does about it, or what the reader has to do
    bool repairable = false;
    std::string done;    // what this repair did; empty: nothing
    bool left = true;    // still so after the repair, if there was one
};

struct CheckReport {
    std::string home;
    std::vector<Finding> findings;
    std::string aside;  // the directory that a repair moved things into; empty: nothing was moved
    // How much was looked at.
    std::size_t boxes = 0, images = 0, blobs = 0, disks = 0, volumes = 0, templates = 0;
    bool clean() const {
        for (const auto& finding : findings)
            if (finding.left) return false;
        return true;
    }
};

// As leave_root(), for a process that is to look at a home and change nothing: nothing is made and nothing is given away,
// and no descriptor is opened. Does nothing for ordinary users.
CAISSON_API Result<RuntimeOptions> leave_root_to_look(RuntimeOptions options);

}  // namespace caisson
