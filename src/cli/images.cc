// Images that come and go: registries, archives, names.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "cli/json_text.h"
#include "cli/output_file.h"
#include "os/file.h"

namespace caisson::cli {

using base::failure;
using nlohmann::json;

void print(const json& document) {
    std::printf("%s\n", json_text(document, 2).c_str());
}

namespace {

std::string short_digest(const std::string& digest) { return digest.substr(digest.find(':') + 1).substr(0, 12); }

struct PullArguments {
    std::vector<std::string> names;
    std::string platform, authorities_file;
    bool plain_http = false, quiet = false;
};

Result<int> pull_images(Context& context, const PullArguments& arguments) {
    context.quiet = arguments.quiet;
    PullOptions options;
    options.platform = arguments.platform;
    options.plain_http = arguments.plain_http;
    // What only the caller may read is read before root is given up, for each of the images.
    std::map<std::string, RegistryAccessSource> access;
    for (const auto& name : arguments.names)
        access[name] = CAISSON_TRY(caller_access({.authorities_file = arguments.authorities_file, .image = name}));
    auto runtime = CAISSON_TRY(open_runtime(context));
    for (const auto& name : arguments.names) {
        options.access = access[name];
        options.on_layer = layer_progress(context, name);
        auto image = CAISSON_TRY(runtime.pull_image(name, options));
        clear_progress();
        std::printf("%s\n", base::printable(image.name).c_str());
    }
    return 0;
}

Result<int> save_images(Context& context, const std::vector<std::string>& names, const std::string& path) {
    auto target = CAISSON_TRY(OutputFile::open(path));
    auto runtime = CAISSON_TRY(open_runtime(context));
    CAISSON_TRY(runtime.save_images(names, target.fd()));
    CAISSON_TRY(target.finish());
    return 0;
}

Result<int> tag_image(Context& context, const std::string& reference, const std::string& new_name) {
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto image = CAISSON_TRY(runtime.tag_image(reference, new_name));
    std::printf("%s\n", base::printable(image.name).c_str());
    return 0;
}

json to_json(const ImageDetails& details) {
    json layers = json::array();
    for (const auto& layer : details.layers)
        layers.push_back({{"digest", layer.digest}, {"media_type", layer.media_type}, {"diff_id", layer.diff_id}, {"size_bytes", layer.size_bytes}});
    const auto& info = details.info;
    return {{"name", info.name}, {"id", info.id}, {"digest", info.digest},
            {"source_digest", details.source_digest.empty() ? json(nullptr) : json(details.source_digest)},
            {"created", info.created}, {"platform", info.platform}, {"size_bytes", info.size_bytes}, {"layers", layers},
            {"config", {{"entrypoint", details.entrypoint}, {"cmd", details.cmd}, {"env", details.env},
                        {"working_directory", details.working_directory}, {"user", details.user},
                        {"stop_signal", details.stop_signal}, {"labels", details.labels},
                        {"volumes", details.volumes}, {"exposed_ports", details.exposed_ports}}}};
}

std::string quoted(const std::vector<std::string>& words) {
    std::vector<std::string> parts;
    for (const auto& word : words) parts.push_back(base::shell_quote(base::printable(word, 1000)));
    return base::join(parts, " ");
}

void print_details(const ImageDetails& details) {
    const auto& info = details.info;
    auto line = [](const char* name, const std::string& value) {
        if (!value.empty()) std::printf("%-14s %s\n", name, base::printable(value).c_str());
    };
    line("name", info.name);
    line("id", info.id);
    line("digest", info.digest);
    if (details.source_digest != info.digest) line("source digest", details.source_digest);
    line("created", info.created);
    line("platform", info.platform);
    line("size", base::format_size(info.size_bytes));
    line("entrypoint", quoted(details.entrypoint));
    line("command", quoted(details.cmd));
    line("directory", details.working_directory);
    line("user", details.user);
    line("stop signal", details.stop_signal);
    for (const auto& variable : details.env) line("env", variable);
    for (const auto& [key, value] : details.labels) line("label", key + "=" + value);
    for (const auto& volume : details.volumes) line("volume", volume);
    for (const auto& port : details.exposed_ports) line("port", port);
    for (const auto& layer : details.layers) line("layer", layer.digest + "  " + base::format_size(layer.size_bytes));
}

Result<int> inspect_images(Context& context, const std::vector<std::string>& references, const std::string& format) {
    bool as_json = CAISSON_TRY(wants_json(format));
    auto runtime = CAISSON_TRY(open_runtime(context));
    json list = json::array();
    for (const auto& reference : references) {
        auto details = CAISSON_TRY(runtime.inspect_image(reference));
        if (as_json) {
            list.push_back(to_json(details));
            continue;
        }
        if (&reference != &references.front()) std::printf("\n");
        print_details(details);
    }
    if (as_json) print(list);
    return 0;
}

Result<int> prune_images(Context& context, bool all, const std::string& format) {
    bool as_json = CAISSON_TRY(wants_json(format));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto pruned = CAISSON_TRY(runtime.prune_images({.all = all}));
    if (as_json) {
        print({{"images", pruned.images}, {"freed_bytes", pruned.freed_bytes}});
        return 0;
    }
    for (const auto& name : pruned.images) std::printf("%s\n", base::printable(name).c_str());
    std::printf("freed %s\n", base::format_size(pruned.freed_bytes).c_str());
    return 0;
}

}  // namespace

std::function<void(const LayerProgress&)> layer_progress(const Context& context, const std::string& image) {
    if (!context.terminal || context.quiet) return {};
    auto layers = std::make_shared<std::map<std::size_t, LayerProgress>>();
    return [layers, image](const LayerProgress& news) {
        (*layers)[news.number] = news;
        if (news.state == LayerProgress::State::kDone || news.state == LayerProgress::State::kPresent) {
            clear_progress();
            std::fprintf(stderr, "layer %zu of %zu  %s  %s%s\n", news.number, news.count, short_digest(news.digest).c_str(),
                         base::format_size(news.total_bytes).c_str(),
                         news.state == LayerProgress::State::kPresent ? ", already here" : "");
        }
        Progress sum{"pulling " + base::printable(image, 60), 0, 0};
        bool waiting = true, busy = false;
        for (const auto& [number, layer] : *layers) {
            sum.done += layer.done_bytes;
            sum.total += layer.total_bytes;
            busy = busy || layer.state == LayerProgress::State::kDownloading || layer.state == LayerProgress::State::kWaiting;
            waiting = waiting && layer.state != LayerProgress::State::kDownloading;
        }
        if (busy && waiting) sum.step += " (another process downloads)";
        draw_progress(sum);
    };
}

void add_image_transfer_commands(CLI::App& group, Action& action) {
    auto pull = std::make_shared<PullArguments>();
    auto* puller = group.add_subcommand("pull", "Download images from registries");
    puller->footer("Examples:\n  caisson image pull debian:12\n  caisson image pull --platform linux/arm64 ghcr.io/owner/name@sha256:...\n"
                   "  caisson image pull --tls-ca ca.pem registry.lan:5000/team/app");
    puller->add_option("IMAGE", pull->names, "Names; without a host they are Docker Hub's")->required();
    puller->add_option("--platform", pull->platform, "Variant to take; this host's if not given")->type_name("OS/ARCHITECTURE");
    puller->add_option("--tls-ca", pull->authorities_file, "Trust these certificate authorities, too (PEM)")->type_name("FILE");
    puller->add_flag("--plain-http", pull->plain_http, "Without TLS; on loopback that is tried by itself");
    puller->add_flag("-q,--quiet", pull->quiet, "No progress");
    puller->callback([pull, &action] { action = [pull](Context& context) { return pull_images(context, *pull); }; });

    auto saved = std::make_shared<std::vector<std::string>>();
    auto output = std::make_shared<std::string>("-");
    auto* save = group.add_subcommand("save", "Write images as an OCI archive");
    save->footer("Examples:\n  caisson image save -o debian.tar debian:12\n  caisson image save debian:12 | ssh host caisson image load");
    save->add_option("IMAGE", *saved, "Names or ids")->required();
    save->add_option("-o,--output", *output, "File to make; - is standard output")->type_name("FILE")->capture_default_str();
    save->callback([saved, output, &action] {
        action = [saved, output](Context& context) { return save_images(context, *saved, *output); };
    });

    auto reference = std::make_shared<std::string>();
    auto new_name = std::make_shared<std::string>();
    auto* tag = group.add_subcommand("tag", "Give an image a further name");
    tag->footer("Example:\n  caisson image tag debian:12 mine:1");
    tag->add_option("IMAGE", *reference, "Name or id")->required();
    tag->add_option("NAME", *new_name, "The further name")->required();
    tag->callback([reference, new_name, &action] {
        action = [reference, new_name](Context& context) { return tag_image(context, *reference, *new_name); };
    });

    auto inspected = std::make_shared<std::vector<std::string>>();
    auto format = std::make_shared<std::string>();
    auto* inspect = group.add_subcommand("inspect", "Show all that is known about images");
    inspect->footer("Example:\n  caisson image inspect --format json debian:12");
    inspect->add_option("IMAGE", *inspected, "Names or ids")->required();
    inspect->add_option("--format", *format, "text or json")->type_name("FORMAT");
    inspect->callback([inspected, format, &action] {
        action = [inspected, format](Context& context) { return inspect_images(context, *inspected, *format); };
    });

    auto all = std::make_shared<bool>(false);
    auto prune_format = std::make_shared<std::string>();
    auto* prune = group.add_subcommand("prune", "Remove unfinished downloads and what no image needs");
    prune->footer("Example:\n  caisson image prune --all");
    prune->add_flag("-a,--all", *all, "Also images that no box was made from");
    prune->add_option("--format", *prune_format, "text or json")->type_name("FORMAT");
    prune->callback([all, prune_format, &action] {
        action = [all, prune_format](Context& context) { return prune_images(context, *all, *prune_format); };
    });
}

}  // namespace caisson::cli
