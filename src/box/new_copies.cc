// BoxOptions::copies: into the root disk of a box that is being made, before its command may run. Its machine is started
// without the command for it, as for every copy into a box that does not run, so that the host reads no disk.
#include "box/new_copies.h"

#include "base/text.h"
#include "box/lifecycle.h"
#include "box/pump.h"

namespace caisson::internal {

namespace {

Result<> copy_one(BoxState& box, HostCopy& host, const CopyOption& copy) {
    wire::ToShim request;
    auto* exec = request.mutable_start_execution()->mutable_exec();
    exec->mutable_copy()->set_direction(wire::Copy::IN);
    exec->mutable_copy()->set_path(copy.target);
    exec->mutable_copy()->set_top(copy_name(copy.source));
    exec->set_stdin_open(true);
    const auto open = CAISSON_TRY(ask_for_execution(*box.shim, request, box.name));
    box.number = open.number();
    box.stdin_open = open.input();
    box.input_credit = open.input_credit();
    box.terminal = false;
    CopyWords words;
    auto outcome = CAISSON_TRY(box::pump(box, {.stdin_fd = host.stream_fd(), .on_stderr = [&words](std::string_view text) { words.add(text); }}));
    auto copied = host.finish();
    auto failed = words.failure("the new box", outcome, [&box](const std::string& text) { box.runtime->notice(text); });
    // If the host could not go on, the box has only seen that the stream was cut off.
    CAISSON_TRY(std::move(copied));
    if (failed) return base::failure(std::move(*failed));
    box.ended = false;  // only this copy has
    return {};
}

std::string option_of(const CopyOption& copy) {
    return "--copy " + base::printable(copy.source, 200) + ":" + base::printable(copy.target, 200);
}

}  // namespace

Result<std::vector<std::shared_ptr<HostCopy>>> open_copies(const RuntimeState& runtime, const std::vector<CopyOption>& copies) {
    std::vector<std::shared_ptr<HostCopy>> opened;
    for (const auto& copy : copies) {
        if (copy.opened) {
            opened.push_back(copy.opened);
            continue;
        }
        HostCopyOptions options;
        options.program_directory = runtime.options.program_directory;
        options.on_notice = [&runtime](const std::string& text) { runtime.notice(text); };
        opened.push_back(std::make_shared<HostCopy>(CAISSON_TRY_CTX(HostCopy::pack(copy.source, options), option_of(copy))));
    }
    return opened;
}

Result<> copy_into_new(std::shared_ptr<RuntimeState> runtime, const store::BoxRecord& record, const std::vector<CopyOption>& copies,
                       const std::vector<std::shared_ptr<HostCopy>>& opened) {
    auto box = CAISSON_TRY_CTX(start_recorded(std::move(runtime), record, StartMode::kFilesOnly), "copying files into the new box");
    for (std::size_t i = 0; i < copies.size(); ++i) CAISSON_TRY_CTX(copy_one(*box, *opened[i], copies[i]), option_of(copies[i]));
    return {};
}

}  // namespace caisson::internal
