// caisson-unpack: reads hostile archives in a process of its own. It opens no path: everything arrives as a descriptor.
//
//   caisson-unpack disk     layers → ext4
//   caisson-unpack scan     one layer → is it a sound tar archive, and which digest has its content
//   caisson-unpack split    an archive of images → its files, framed
//   caisson-unpack inflate  a compressed stream → its bytes
//
// src/image/README.md describes what each reads and writes.
#include <cstdio>
#include <string_view>

#include "image/unpack/commands.h"

int main(int argc, char** argv) {
    std::string_view command = argc == 2 ? argv[1] : "";
    using namespace caisson::image::unpack;
    if (command == "disk") return run_disk();
    if (command == "scan") return run_scan();
    if (command == "split") return run_split();
    if (command == "inflate") return run_inflate();
    std::fputs("caisson-unpack is started by caisson; it has no use of its own\n", stderr);
    return 2;
}
