// caisson-copy: packs or extracts files of the caller's, for HostCopy. It sees one directory and a stream.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "box/copy_jail.h"
#include "box/copy_protocol.h"
#include "os/file.h"

namespace {

using namespace caisson;

void say(const std::string& line) { static_cast<void>(os::write_all(box::kCopyStatusFd, line)); }

Result<> copy(const std::vector<std::string>& arguments, unsigned inherited_umask) {
    auto order = CAISSON_TRY(box::parse_copy_arguments(arguments));
    const auto kind = order.packs                ? box::CopyKind::kPack
                      : order.options.keep_owner ? box::CopyKind::kExtractWithOwners
                                                 : box::CopyKind::kExtract;
    // What is half done has to be removed, so the end of a peer and a limit on files are errors.
    if (!order.packs) {
        ::signal(SIGPIPE, SIG_IGN);
        ::signal(SIGXFSZ, SIG_IGN);
    }
    CAISSON_TRY(box::enter_copy_jail(kind, box::kCopyDirectoryFd));
    const tar::Notice notice = [](const std::string& text) { say(box::notice_line(text)); };
    os::Fd directory(box::kCopyDirectoryFd);
    if (order.packs) {
        order.origin.directory = std::move(directory);
        return tar::pack(order.origin, tar::write_to(STDOUT_FILENO), notice);
    }
    order.destination.directory = std::move(directory);
    if (!order.options.keep_owner) order.options.mask = order.umask.value_or(inherited_umask);
    return tar::extract(tar::read_from(STDIN_FILENO), order.destination, order.options, notice);
}

}  // namespace

int main(int argc, char** argv) {
    const auto umask = ::umask(0);
    auto done = copy({argv + 1, argv + argc}, umask);
    if (!done) say(box::error_line(done.error()));
    // Nothing waits for an orderly end; a sanitizer's search for leaks would want more than the jail has.
    ::_exit(done ? 0 : 1);
}
