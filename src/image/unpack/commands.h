// The subcommands of caisson-unpack. Each returns the process's exit code: 0, or 1 after it reported an error.
#pragma once

namespace caisson::image::unpack {

int run_disk();
int run_scan();
int run_split();
int run_inflate();

}  // namespace caisson::image::unpack
