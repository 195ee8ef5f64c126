#include "volume/usage.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "os/file.h"

namespace caisson::volume {

namespace {

constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
constexpr int kTries = 8;

// One walk down and up through a tree whose owner may have nested it to no end, and may move parts of it meanwhile. The
// way up is "..", but only if that is the directory where the walk came from: else it could lead out of the tree.
class Count {
  public:
    // false: a directory was moved, the walk cannot go on.
    Result<bool> run(const os::Fd& top) {
        current_ = CAISSON_TRY(os::open_at(top, ".", kDirectory));
        CAISSON_TRY(enter());
        while (!levels_.empty()) {
            auto& names = levels_.back().names;
            if (names.empty()) {
                levels_.pop_back();
                if (!levels_.empty() && !CAISSON_TRY(go_up())) return false;
                continue;
            }
            auto name = std::move(names.back());
            names.pop_back();
            auto below = os::open_at(current_, name, kDirectory);
            if (!below) continue;  // it went away, or became something else
            current_ = std::move(*below);
            CAISSON_TRY(enter());
        }
        return true;
    }
    std::uint64_t bytes() const { return bytes_; }

  private:
    struct Level {
        dev_t device;
        ino_t inode;
        std::vector<std::string> names;  // directories in it that wait
    };

    Result<> enter() {
        struct stat status {};
        if (::fstat(current_.get(), &status) != 0) return base::failure_errno("cannot look at a directory of a volume");
        Level level{status.st_dev, status.st_ino, {}};
        bytes_ += static_cast<std::uint64_t>(status.st_blocks) * 512;
        auto dir = CAISSON_TRY(os::open_listing(CAISSON_TRY(os::open_at(current_, ".", kDirectory)), "a directory of a volume"));
        while (dirent* entry = ::readdir(dir.get())) take(entry->d_name, level);
        levels_.push_back(std::move(level));
        return {};
    }

    void take(const std::string& name, Level& level) {
        struct stat status {};
        if (name == "." || name == ".." || ::fstatat(current_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return;
        if (status.st_dev != level.device) return;
        if (S_ISDIR(status.st_mode)) {
            level.names.push_back(name);
        } else if (status.st_nlink == 1 || several_names_.insert(status.st_ino).second) {
            bytes_ += static_cast<std::uint64_t>(status.st_blocks) * 512;
        }
    }

    Result<bool> go_up() {
        auto above = CAISSON_TRY(os::open_at(current_, "..", kDirectory));
        struct stat status {};
        if (::fstat(above.get(), &status) != 0) return base::failure_errno("cannot look at a directory of a volume");
        current_ = std::move(above);
        return status.st_dev == levels_.back().device && status.st_ino == levels_.back().inode;
    }

    os::Fd current_;
    std::vector<Level> levels_;
    std::set<ino_t> several_names_;
    std::uint64_t bytes_ = 0;
};

}  // namespace

Result<std::uint64_t> allocated_bytes(const os::Fd& top) {
    for (int attempt = 0; attempt < kTries; ++attempt) {
        Count count;
        if (CAISSON_TRY(count.run(top))) return count.bytes();
    }
    return base::failure(Errc::kInUse, "the volume's directories are moved while they are counted", "stop the boxes that have it, or try again");
}

}  // namespace caisson::volume
