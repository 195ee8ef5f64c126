#include <unistd.h>

#include <cerrno>

#include "os/file.h"
#include "tar/entry.h"

namespace caisson::tar {

Source read_from(int fd) {
    return [fd](std::span<std::uint8_t> buffer) -> Result<std::size_t> {
        for (;;) {
            ssize_t got = ::read(fd, buffer.data(), buffer.size());
            if (got >= 0) return static_cast<std::size_t>(got);
            if (errno != EINTR) return base::failure_errno("cannot read the archive");
        }
    };
}

Sink write_to(int fd) {
    return [fd](base::ByteView bytes) -> Result<> { return os::write_all(fd, bytes); };
}

}  // namespace caisson::tar
