#include "cli/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include "os/file.h"

namespace caisson::cli {

Result<OutputFile> OutputFile::open(const std::string& path) {
    OutputFile file;
    if (path == "-" || path.empty()) {
        if (::isatty(STDOUT_FILENO) == 1)
            return base::failure(Errc::kUsage, "standard output is a terminal", "name a file with -o, or pipe the archive on");
        int copy = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        if (copy < 0) return base::failure_errno("cannot write to standard output");
        file.fd_ = os::Fd(copy);
        return file;
    }
    file.fd_ = CAISSON_TRY(os::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
    file.path_ = path;
    return file;
}

Result<> OutputFile::finish() {
    if (!path_.empty() && ::fsync(fd_.get()) != 0) return base::failure_errno("cannot sync " + path_);
    path_.clear();
    return {};
}

OutputFile::~OutputFile() {
    if (path_.empty()) return;
    if (::unlink(path_.c_str()) != 0) static_cast<void>(::ftruncate(fd_.get(), 0) == 0);
}

}  // namespace caisson::cli
