// caisson-copy: packs or extracts files of the caller's or of a volume, for HostCopy. It sees one directory and a stream.
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>

#include "box/copy_jail.h"
#include "box/copy_protocol.h"
#include "box/copy_watch.h"
#include "os/file.h"
#include "volume/share/space.h"

namespace {

using namespace caisson;

void say(const std::string& line) { static_cast<void>(os::write_all(box::kCopyStatusFd, line)); }

Result<> pack(box::CopyOrder& order, const tar::Notice& notice) {
    const auto view = order.manner.volume ? volume::guest_view(order.manner.owner) : tar::View();
    if (!order.manner.again) return tar::pack(order.origin, tar::write_to(STDOUT_FILENO), notice, view);
    auto watch = CAISSON_TRY(box::TreeWatch::create(order.origin.directory));
    for (;;) {
        // What changes from here on is packed once more.
        CAISSON_TRY(watch.cover());
        CAISSON_TRY(tar::pack(order.origin, tar::write_framed_to(STDOUT_FILENO), notice, view));
        CAISSON_TRY(tar::end_framed(STDOUT_FILENO));
        if (!CAISSON_TRY(watch.wait(STDOUT_FILENO))) return {};
    }
}

// Of a volume with a limit: counted together with the boxes that have it, or alone for a volume that nobody knows yet.
Result<std::atomic<std::int64_t>*> open_count(const box::CopyManner& manner) {
    static std::atomic<std::int64_t> alone = 0;
    if (!manner.counted) return &alone;
    void* memory = ::mmap(nullptr, sizeof alone, PROT_READ | PROT_WRITE, MAP_SHARED, box::kCopyCountFd, 0);
    if (memory == MAP_FAILED) return base::failure_errno("cannot map the volume's count of used bytes");
    return static_cast<std::atomic<std::int64_t>*>(memory);
}

Result<> extract(box::CopyOrder& order, const tar::Notice& notice) {
    const auto once = [&](tar::Source source) -> Result<> {
        tar::ExtractOptions::Report report;
        order.options.report = &report;
        CAISSON_TRY(tar::extract(std::move(source), order.destination, order.options, notice));
        if (order.manner.update) say(box::pass_line(report.changed, report.removed));
        return {};
    };
    if (!order.manner.again) return once(tar::read_from(STDIN_FILENO));
    tar::FramedArchives archives(STDIN_FILENO);
    while (CAISSON_TRY(archives.next())) CAISSON_TRY(once(archives.source()));
    return {};
}

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
    if (order.packs && order.manner.again && ::fchdir(box::kCopyDirectoryFd) != 0) return base::failure_errno("cannot enter the directory");
    CAISSON_TRY(box::enter_copy_jail(kind, box::kCopyDirectoryFd, order.options.remove_others));
    const tar::Notice notice = [](const std::string& text) { say(box::notice_line(text)); };
    os::Fd directory(box::kCopyDirectoryFd);
    if (order.packs) {
        order.origin.directory = std::move(directory);
        return pack(order, notice);
    }
    order.destination.directory = std::move(directory);
    if (!order.options.keep_owner) order.options.mask = order.umask.value_or(inherited_umask);
    volume::share::Space space(*CAISSON_TRY(open_count(order.manner)), order.manner.limit_bytes);
    if (order.manner.volume) {
        order.options.describe = volume::metadata_keeper(order.manner.owner, order.options.keep_owner);
        if (order.options.keep_owner) order.options.link_as_file = volume::foreign_link(order.manner.owner);
        order.options.mask = 0;
    }
    if (order.manner.limit_bytes > 0) order.options.account = volume::accountant(space);
    return extract(order, notice);
}

}  // namespace

int main(int argc, char** argv) {
    const auto umask = ::umask(0);
    auto done = copy({argv + 1, argv + argc}, umask);
    if (!done) say(box::error_line(done.error()));
    // Nothing waits for an orderly end; a sanitizer's search for leaks would want more than the jail has.
    ::_exit(done ? 0 : 1);
}
