// The box's end of copies: an execution of the agent's own code. See caisson/copy.h.
#include "base/text.h"
#include "box/lifecycle.h"
#include "caisson/copy.h"
#include "wire/shim.pb.h"

namespace caisson {

using base::failure;

namespace {

Result<std::shared_ptr<internal::BoxState>> start_copy(std::shared_ptr<internal::RuntimeState> runtime, const std::string& reference,
                                                       const wire::Copy& copy, const std::string& host_path) {
    auto record = CAISSON_TRY(internal::find_record(*runtime, reference));
    wire::ToShim request;
    auto* exec = request.mutable_start_execution()->mutable_exec();
    *exec->mutable_copy() = copy;
    exec->set_stdin_open(copy.direction() == wire::Copy::IN);
    const audit::Event event{copy.direction() == wire::Copy::IN ? "files_copied_in" : "files_copied_out", record.id, record.name,
                             {{"box_path", copy.path()}, {"host_path", host_path}}};
    if (store::is_live(record.state)) {
        auto running = CAISSON_TRY(internal::start_execution(runtime, record, request));
        running->copy = event;
        return running;
    }
    // Its machine is started for this only: whoever reads the disk is jailed, is told the disk's format and what lies
    // under it, and has nothing of the host's. Its end writes back what was copied in.
    auto box = CAISSON_TRY(internal::start_recorded(runtime, record, internal::StartMode::kFilesOnly));
    auto open = CAISSON_TRY(internal::ask_for_execution(*box->shim, request, record.name));
    box->number = open.number();
    box->stdin_open = open.input();
    box->terminal = false;
    box->copy = event;
    return box;
}

Result<> check_path(const std::string& path) {
    if (path.empty() || path.find('\0') != std::string::npos)
        return failure(Errc::kUsage, "'" + base::printable(path, 100) + "' is not a path in the box");
    return {};
}

}  // namespace

Result<Execution> Runtime::copy_out(const std::string& reference, const CopyOptions& options) {
    CAISSON_TRY(check_path(options.path));
    wire::Copy copy;
    copy.set_direction(wire::Copy::OUT);
    copy.set_path(options.path);
    copy.set_follow_links(options.follow_link);
    return Execution(CAISSON_TRY(start_copy(state_, reference, copy, options.host_path)));
}

Result<Execution> Runtime::copy_in(const std::string& reference, const CopyOptions& options) {
    CAISSON_TRY(check_path(options.path));
    wire::Copy copy;
    copy.set_direction(wire::Copy::IN);
    copy.set_path(options.path);
    copy.set_keep_owner(options.keep_owner);
    copy.set_top(options.top);
    copy.set_must_exist(options.must_exist);
    return Execution(CAISSON_TRY(start_copy(state_, reference, copy, options.host_path)));
}

}  // namespace caisson
