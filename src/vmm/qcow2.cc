#include "vmm/qcow2.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "os/file.h"

namespace caisson::vmm {

namespace {
constexpr std::uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
constexpr std::uint32_t kClusterBits = 16;
constexpr std::uint64_t kCluster = 1ull << kClusterBits;
constexpr std::uint64_t kBytesPerL1Entry = kCluster * (kCluster / 8);  // 512 MiB
}  // namespace

base::Bytes make_empty_qcow2(std::uint64_t virtual_size_bytes) {
    CAISSON_CHECK(virtual_size_bytes % 512 == 0 && virtual_size_bytes <= kMaxDiskBytes);
    const auto l1_entries = static_cast<std::uint32_t>((virtual_size_bytes + kBytesPerL1Entry - 1) / kBytesPerL1Entry);
    // Cluster 0: header. 1: refcount table. 2: first refcount block. 3: L1 table (1 TiB needs 2048 entries, 16 KiB).
    base::Bytes image(3 * kCluster + ((l1_entries * 8 + 511) & ~511u), 0);
    auto* header = image.data();
    base::store_be32(header + 0, kMagic);
    base::store_be32(header + 4, 3);           // version
    base::store_be32(header + 20, kClusterBits);
    base::store_be64(header + 24, virtual_size_bytes);
    base::store_be32(header + 36, l1_entries);
    base::store_be64(header + 40, 3 * kCluster);  // L1 table
    base::store_be64(header + 48, 1 * kCluster);  // refcount table
    base::store_be32(header + 56, 1);             // its clusters
    base::store_be32(header + 96, 4);             // refcounts of 16 bits
    base::store_be32(header + 100, 104);          // header length; the zeros after it end the extensions
    base::store_be64(image.data() + kCluster, 2 * kCluster);
    for (std::size_t cluster = 0; cluster < 4; ++cluster) image[2 * kCluster + 2 * cluster + 1] = 1;
    return image;
}

namespace {

Error tampered(const std::string& path, const std::string& what) {
    Error error;
    error.code = Errc::kCorrupt;
    error.message = "the disk " + path + " " + what + ", which no box's disk does";
    error.hint = "somebody has rewritten it; remove the box, do not start it";
    return error;
}

std::string kind_of(mode_t mode) {
    if (S_ISLNK(mode)) return "is a symbolic link";
    if (S_ISDIR(mode)) return "is a directory";
    if (S_ISFIFO(mode)) return "is a pipe";
    if (S_ISSOCK(mode)) return "is a socket";
    return "is a device";
}

// Looked at before it is opened: opening a device or a pipe may do something already.
Result<os::Fd> look_at_disk(const std::string& path) {
    auto fd = CAISSON_TRY(os::open_file(path, O_PATH | O_NOFOLLOW));
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return base::failure_errno("cannot look at " + path);
    if (!S_ISREG(info.st_mode)) return base::failure(tampered(path, kind_of(info.st_mode)));
    // Under another name it may be anybody's file.
    if (info.st_uid != ::geteuid()) return base::failure(tampered(path, "belongs to another user"));
    return fd;
}

}  // namespace

Result<> check_base_disk(const std::string& path) {
    CAISSON_TRY(look_at_disk(path));
    return {};
}

Result<> check_overlay(const std::string& path, std::uint64_t virtual_size_bytes) {
    constexpr std::size_t kHeaderBytes = 104;
    constexpr std::uint64_t kKnownIncompatible = 3;  // dirty and corrupt, which QEMU sets and deals with
    auto looked_at = CAISSON_TRY(look_at_disk(path));
    // The very file that was looked at.
    auto fd = CAISSON_TRY(os::open_file("/proc/self/fd/" + std::to_string(looked_at.get()), O_RDONLY | O_NONBLOCK));
    std::uint8_t header[kHeaderBytes]{};
    auto refuse = [&](const char* what) { return base::failure(tampered(path, what)); };
    if (::pread(fd.get(), header, sizeof header, 0) != static_cast<ssize_t>(sizeof header) ||
        base::load_be32(header) != kMagic || base::load_be32(header + 4) != 3)
        return refuse("does not begin as a qcow2 file of version 3");
    if (base::load_be64(header + 8) != 0 || base::load_be32(header + 16) != 0) return refuse("names a backing file");
    // Until its first machine has grown it, it has its template's size.
    if (base::load_be64(header + 24) > virtual_size_bytes) return refuse("is larger than it was made");
    if (base::load_be32(header + 32) != 0) return refuse("says that it is encrypted");
    if ((base::load_be64(header + 72) & ~kKnownIncompatible) != 0) return refuse("uses features such as an external data file");
    return {};
}

Result<> create_overlay(const std::string& path, std::uint64_t virtual_size_bytes) {
    auto image = make_empty_qcow2(virtual_size_bytes);
    auto fd = CAISSON_TRY(os::open_file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
    // Only the parts that are not zero are written; the rest stays a hole.
    auto put = [&](std::size_t from, std::size_t length) -> Result<> {
        auto wrote = ::pwrite(fd.get(), image.data() + from, length, static_cast<off_t>(from));
        if (wrote != static_cast<ssize_t>(length)) return base::failure_errno("cannot write " + path);
        return {};
    };
    auto written = [&]() -> Result<> {
        CAISSON_TRY(put(0, 512));
        CAISSON_TRY(put(kCluster, 512));
        CAISSON_TRY(put(2 * kCluster, 512));
        if (::ftruncate(fd.get(), static_cast<off_t>(4 * kCluster)) != 0)
            return base::failure_errno("cannot size " + path);
        return {};
    }();
    if (!written) ::unlink(path.c_str());
    return written;
}

std::uint64_t max_overlay_bytes(std::uint64_t virtual_size_bytes) {
    constexpr std::uint64_t kSpare = 64 << 20;
    return virtual_size_bytes + virtual_size_bytes / 50 + kSpare;
}

Result<> copy_overlay(const std::string& from, const std::string& path, std::uint64_t virtual_size_bytes) {
    auto source = CAISSON_TRY(os::open_file(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    struct stat info {};
    if (::fstat(source.get(), &info) != 0) return base::failure_errno("cannot look at " + from);
    if (!S_ISREG(info.st_mode) || static_cast<std::uint64_t>(info.st_size) > max_overlay_bytes(virtual_size_bytes))
        return base::failure(Errc::kCorrupt, from + " is not the overlay that it should be",
                             "remove its template: caisson template rm");
    auto target = CAISSON_TRY(os::open_file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
    auto copied = [&]() -> Result<> {
        if (::ioctl(target.get(), FICLONE, source.get()) == 0) return {};
        if (::ftruncate(target.get(), info.st_size) != 0) return base::failure_errno("cannot size " + path);
        for (off_t at = 0; at < info.st_size;) {
            off_t data = ::lseek(source.get(), at, SEEK_DATA);
            if (data < 0) return errno == ENXIO ? Result<>() : base::failure_errno("cannot read " + from);
            off_t hole = ::lseek(source.get(), data, SEEK_HOLE);
            if (hole < 0) return base::failure_errno("cannot read " + from);
            for (off_t in = data, out = data; in < hole;) {
                ssize_t moved = ::copy_file_range(source.get(), &in, target.get(), &out, static_cast<std::size_t>(hole - in), 0);
                if (moved < 0 && errno == EINTR) continue;
                if (moved < 0) return base::failure_errno("cannot write " + path);
                if (moved == 0) break;
            }
            at = hole;
        }
        return {};
    }();
    if (!copied) ::unlink(path.c_str());
    return copied;
}

}  // namespace caisson::vmm
