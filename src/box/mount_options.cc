// The public door to volume/spec.h.
#include <sys/stat.h>

#include "caisson/volume.h"
#include "volume/spec.h"

namespace caisson {

namespace {
bool is_file(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}
}  // namespace

Result<MountOption> parse_volume_option(std::string_view text) { return volume::parse_volume(text, is_file); }

Result<std::variant<MountOption, TmpfsOption>> parse_mount_option(std::string_view text) { return volume::parse_mount(text, is_file); }

Result<CopyOption> parse_copy_option(std::string_view text) { return volume::parse_copy(text); }

}  // namespace caisson
