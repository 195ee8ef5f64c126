// Where a jailed test program finds its files. Tests only.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "os/file.h"
#include "os/user.h"

namespace caisson::attack {

// Everything lies in one directory below /var/tmp, owned by the user that the jail works as.
class Place {
  public:
    Place() {
        char name[] = "/var/tmp/caisson-attack-XXXXXX";
        EXPECT_NE(::mkdtemp(name), nullptr);
        path_ = name;
        EXPECT_EQ(::chmod(name, 0711), 0);
        give(path_);
    }
    ~Place() { EXPECT_TRUE(os::remove_tree(path_).has_value()); }
    const std::string& path() const { return path_; }
    std::string directory(const std::string& name) {
        EXPECT_TRUE(os::make_directories(path_ + "/" + name, 0755).has_value());
        give(path_ + "/" + name);
        return path_ + "/" + name;
    }
    std::string file(const std::string& name, std::string_view content, unsigned mode) {
        auto fd = os::open_file(path_ + "/" + name, O_WRONLY | O_CREAT | O_EXCL, 0600).value();
        EXPECT_TRUE(os::write_all(fd.get(), content).has_value());
        EXPECT_EQ(::fchmod(fd.get(), mode), 0);
        give(path_ + "/" + name);
        return path_ + "/" + name;
    }
    // Open as long as the place is there.
    int keep(os::Fd fd) { return kept_.emplace_back(std::move(fd)).get(); }
    // Also for what is no file of ours.
    static void give(const std::string& path) {
        if (::geteuid() != 0) return;
        auto identity = os::service_identity();
        EXPECT_EQ(::chown(path.c_str(), identity.user, identity.group), 0);
    }

  private:
    std::string path_;
    std::vector<os::Fd> kept_;
};

}  // namespace caisson::attack
