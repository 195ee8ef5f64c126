// What each room says about its part of a home when all of it is checked: what is not as it should be, and how it is mended.
// Looking changes nothing and waits for nobody for long; mending takes the locks that everybody takes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "caisson/check.h"
#include "store/home.h"

namespace caisson::store {

// Where a repair puts what it takes out of a home: <home>/aside/<time>-<id>/, in which everything lies under the path that it
// had in the home. Made with the first thing that goes there. Nothing in it is ever used again by caisson.
class Aside {
  public:
    explicit Aside(std::string home) : home_(std::move(home)) {}
    // Moves a file or a directory of the home. One that is gone is no error.
    Result<> take(const std::string& path);
    // Writes a text beside what was taken, as `name` (a path relative to the home).
    Result<> note(const std::string& name, const std::string& text);
    // The same as a copy of a file of the home that stays.
    Result<> keep_copy(const std::string& path);
    // Empty as long as nothing was put there.
    const std::string& directory() const { return directory_; }

  private:
    Result<std::string> place_for(const std::string& name);
    std::string home_, directory_;
};

struct Trouble {
    Finding finding;
    // Somebody who is just at work may cause it for a moment, so it is looked at again before it is told.
    bool passing = true;
    // Says what it did; it looks again first, under the locks that its room uses. Empty: nothing is done about it here, but
    // Finding::repairable says whether what is done in the end, the usual tidying up, takes care of it.
    std::function<Result<std::string>(Aside&)> mend;
};
using Troubles = std::vector<Trouble>;

// `path` relative to the home, if it lies below it.
std::string object_of(const std::string& home, const std::string& path);

Trouble warning(std::string code, std::string object, std::string what, std::string remedy);
Trouble error(std::string code, std::string object, std::string what, std::string remedy);

// Holds somebody this file's lock (flock(2))? One that is not there is held by nobody. The file is neither made nor written; as
// for an instant the lock may be taken here, whoever tries for it has to try twice.
bool is_held(const std::string& path);

// Temporary files of writers (os::write_file_atomic()) in `directory` that nobody finished.
void find_unfinished(const std::string& home, const std::string& directory, Troubles& found);

// The home's own directories: whose they are and who else may write to them, what its file system lacks. Directories that
// are missing are no trouble: opening the home makes them.
Troubles check_home(const Home& home);

// A trouble of a directory that others may write to, or anybody but its owner reach if `closed`.
void check_mode(const std::string& home, const std::string& path, bool closed, const std::string& code, Troubles& found);

}  // namespace caisson::store
