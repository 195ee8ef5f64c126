// caisson volume attach and detach: volumes of boxes that are there already.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "cli/command.h"
#include "cli/volumes.h"
#include "volume/spec.h"

namespace caisson::cli {

namespace {

Result<int> attach(Context& context, const std::string& box, const std::vector<std::string>& mounts) {
    std::vector<MountOption> options;
    for (const auto& text : mounts) options.push_back(CAISSON_TRY(volume::parse_volume(text)));
    auto runtime = CAISSON_TRY(open_runtime(context));
    for (const auto& option : options) {
        auto mount = CAISSON_TRY(runtime.attach_volume(box, option));
        std::printf("%s\n", mount.volume.c_str());
    }
    return 0;
}

Result<int> detach(Context& context, const std::string& box, const std::vector<std::string>& targets, bool force) {
    auto runtime = CAISSON_TRY(open_runtime(context));
    for (const auto& target : targets) CAISSON_TRY(runtime.detach_volume(box, target, force));
    return 0;
}

}  // namespace

void add_volume_attach(CLI::App& group, Action& action) {
    auto box = std::make_shared<std::string>();
    auto mounts = std::make_shared<std::vector<std::string>>();
    auto* command = group.add_subcommand("attach", "Mount volumes in a box, at once if it runs; it keeps them");
    command->footer("Examples:\n  caisson volume attach web data:/data\n  caisson volume attach web conf/app.toml:/etc/app.toml:ro\n\n"
                    "MOUNT is what -v takes; see: caisson run --help");
    command->add_option("BOX", *box, "Name or id")->required();
    command->add_option("MOUNT", *mounts, "[VOLUME[/PATH]:]/TARGET[:ro]")->required();
    command->callback([=, &action] { action = [=](Context& context) { return attach(context, *box, *mounts); }; });
}

void add_volume_detach(CLI::App& group, Action& action) {
    auto box = std::make_shared<std::string>();
    auto targets = std::make_shared<std::vector<std::string>>();
    auto force = std::make_shared<bool>(false);
    auto* command = group.add_subcommand("detach", "Take volumes away from a box; an anonymous one is removed");
    command->footer("Example:\n  caisson volume detach web /data");
    command->add_option("BOX", *box, "Name or id")->required();
    command->add_option("TARGET", *targets, "Where it is mounted in the box")->required();
    command->add_flag("-f,--force", *force, "Also if a process in the box uses it, which gets errors from then on, or if its guest does not let go of it");
    command->callback([=, &action] { action = [=](Context& context) { return detach(context, *box, *targets, *force); }; });
}

}  // namespace caisson::cli
