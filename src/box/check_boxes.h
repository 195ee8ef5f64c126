// What must be true of boxes: record, directory and files, the processes, control groups and mounts of the host.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "store/check.h"
#include "store/database.h"

namespace caisson::box {

// A home as it was found: directories first, then records, since records are written before directories are made and removed
// before them.
struct HomeSeen {
    const store::Home* home = nullptr;
    std::string boot_id;
    std::vector<std::string> directories;  // names below boxes/
    std::vector<store::BoxRecord> records;
    std::set<std::string> ids;             // of all records, also of those that make no sense
    std::vector<store::JournalHead> journal;
};

store::Troubles check_boxes(const HomeSeen& seen);
// Not altered, not cut off. A repair leaves the journal as it is.
store::Troubles check_journal(const HomeSeen& seen);
// Of this user, as far as the host shows them.
store::Troubles check_host(const HomeSeen& seen);

// Takes a box out of the home: its directory, its anonymous volumes, what the catalogue has of it and at last its record, as a
// text. kInUse: it runs, or somebody else works on it.
Result<std::string> put_box_aside(const store::Home& home, const std::string& id, store::Aside& aside);

}  // namespace caisson::box
