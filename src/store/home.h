// The home directory: where everything of one operator lives.
#pragma once

#include <string>

#include "base/result.h"

namespace caisson::store {

struct Home {
    std::string root;
    std::string database() const { return root + "/caisson.db"; }
    std::string images() const { return root + "/images"; }
    std::string disks() const { return root + "/disks"; }
    std::string boxes() const { return root + "/boxes"; }
    std::string box(const std::string& id) const { return boxes() + "/" + id; }
    std::string templates() const { return root + "/templates"; }
    std::string audit() const { return root + "/audit"; }      // made with the first entry
    std::string volumes() const { return root + "/volumes"; }  // made when the first one is
};

// $CAISSON_HOME, else /var/lib/caisson for root, else ~/.caisson. Arguments are passed in so that tests can fake them.
// kUsage: a relative CAISSON_HOME, or no HOME.
Result<std::string> default_home(const char* caisson_home, const char* user_home, bool as_root);

// Makes what is missing (0700) and checks what is there: owned by us, writable by nobody else.
Result<Home> open_home(const std::string& path);

// For root, before it drops its privileges: makes `path` (0711) and gives it to `user` and `group`. A home that is
// there already and belongs to another user is refused.
Result<> prepare_home_as_root(const std::string& path, unsigned user, unsigned group);

}  // namespace caisson::store
