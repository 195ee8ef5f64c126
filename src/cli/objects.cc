// Images and templates: listing, loading, removing.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "cli/net_options.h"
#include "os/file.h"

namespace caisson::cli {

using nlohmann::json;

namespace {

// Opens what the user named before root is dropped: "-" is standard input, a directory is an OCI layout.
Result<os::Fd> open_source(const std::string& path) {
    if (path != "-") return os::open_file(path, O_RDONLY);
    if (::isatty(STDIN_FILENO) == 1)
        return base::failure(Errc::kUsage, "standard input is a terminal, not an archive", "name a file, or pipe one in");
    int copy = ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return base::failure_errno("cannot read standard input");
    return os::Fd(copy);
}

json to_json(const ImageInfo& image) {
    return {{"name", image.name},         {"id", image.id},           {"digest", image.digest}, {"created", image.created},
            {"platform", image.platform}, {"size_bytes", image.size_bytes}, {"layers", image.layers}};
}

Result<int> list_images(Context& context, const std::string& format) {
    bool as_json = CAISSON_TRY(wants_json(format));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto images = CAISSON_TRY(runtime.images());
    if (as_json) {
        json list = json::array();
        for (const auto& image : images) list.push_back(to_json(image));
        print(list);
        return 0;
    }
    std::vector<std::vector<std::string>> rows{{"NAME", "ID", "PLATFORM", "SIZE", "LAYERS"}};
    for (const auto& image : images)
        rows.push_back({base::printable(image.name, 100), image.id.substr(image.id.find(':') + 1).substr(0, 12),
                        base::printable(image.platform, 40), base::format_size(image.size_bytes), std::to_string(image.layers)});
    std::fputs(format_table(rows).c_str(), stdout);
    return 0;
}

struct ImportArguments {
    std::string source, name, working_directory, user;
    std::vector<std::string> cmd, entrypoint, environment;
};

Result<int> import_image(Context& context, const ImportArguments& arguments) {
    auto source = CAISSON_TRY(open_source(arguments.source));
    auto runtime = CAISSON_TRY(open_runtime(context));
    ImageConfig config;
    config.cmd = arguments.cmd;
    config.entrypoint = arguments.entrypoint;
    config.env = arguments.environment;
    config.working_directory = arguments.working_directory;
    config.user = arguments.user;
    auto image = CAISSON_TRY(runtime.import_image(source.get(), arguments.name, config));
    std::printf("%s\n", image.name.c_str());
    return 0;
}

Result<int> load_images(Context& context, const std::string& path, const std::string& name) {
    auto source = CAISSON_TRY(open_source(path));
    auto runtime = CAISSON_TRY(open_runtime(context));
    for (const auto& image : CAISSON_TRY(runtime.load_images(source.get(), name)))
        std::printf("%s\n", base::printable(image.name).c_str());
    return 0;
}

Result<int> list_templates(Context& context, const std::string& format) {
    bool as_json = CAISSON_TRY(wants_json(format));
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto templates = CAISSON_TRY(runtime.templates());
    if (as_json) {
        json list = json::array();
        for (const auto& info : templates)
            list.push_back({{"key", info.key}, {"image", info.image}, {"cpus", info.cpus}, {"memory_mib", info.memory_mib},
                            {"accelerator", info.accelerator}, {"vmm_version", info.vmm_version},
                            {"kernel_version", info.kernel_version}, {"created_unix", info.created_unix},
                            {"disk_bytes", info.disk_bytes}, {"current", info.current}});
        print(list);
        return 0;
    }
    std::vector<std::vector<std::string>> rows{{"KEY", "IMAGE", "CPUS", "MEMORY", "ENGINE", "DISK", "CREATED", "USABLE"}};
    for (const auto& info : templates)
        rows.push_back({info.key, base::printable(info.image, 60), std::to_string(info.cpus), std::to_string(info.memory_mib) + " MiB", info.accelerator,
                        base::format_size(info.disk_bytes), format_age(info.created_unix), info.current ? "yes" : "no"});
    std::fputs(format_table(rows).c_str(), stdout);
    return 0;
}

Result<int> build_template(Context& context, const std::string& image, const std::string& cpus, const std::string& memory, const NetArguments& net) {
    TemplateShape shape;
    shape.image = image;
    shape.cpu_millis = static_cast<std::uint32_t>(CAISSON_TRY_CTX(base::parse_u64(cpus), "--cpus") * 1000);
    shape.memory_bytes = CAISSON_TRY_CTX(base::parse_size(memory), "--memory");
    shape.network = CAISSON_TRY(net_policy(net)).mode() != net::Mode::kNone;
    auto runtime = CAISSON_TRY(open_runtime(context));
    auto info = CAISSON_TRY(runtime.build_template(shape));
    std::printf("%s\n", info.key.c_str());
    return 0;
}

const char* name_of(Layer::State state) {
    switch (state) {
        case Layer::State::kOn: return "on";
        case Layer::State::kOff: return "off";
        case Layer::State::kImpossible: return "impossible";
    }
    return "off";
}

json layers_json(const std::vector<Layer>& layers) {
    json list = json::array();
    for (const auto& layer : layers)
        list.push_back({{"name", layer.name}, {"state", name_of(layer.state)}, {"detail", layer.detail}, {"fix", layer.fix}});
    return list;
}

void print_layers(const std::vector<Layer>& layers) {
    std::printf("\nwhat keeps boxes away from this host\n");
    for (const auto& layer : layers) {
        std::printf("%-11s %-26s %s\n", name_of(layer.state), layer.name.c_str(), base::printable(layer.detail).c_str());
        if (!layer.fix.empty()) std::printf("%-11s %-26s   %s\n", "", "", base::printable(layer.fix).c_str());
    }
}

Result<int> doctor(Context& context, const std::string& format) {
    bool as_json = CAISSON_TRY(wants_json(format));
    auto options = CAISSON_TRY(leave_root(runtime_options(context)));
    const bool without_networks = CAISSON_TRY(default_net()) == net::to_string(net::Mode::kNone);
    auto checks = Runtime::diagnose(options);
    auto layers = Runtime::layers(options);
    bool bad = false;
    json list = json::array();
    for (auto& check : checks) {
        // Nobody asks for one unless he says so.
        if (check.name == "network" && check.level == Check::Level::kBad && without_networks) check.level = Check::Level::kInfo;
        bad = bad || check.level == Check::Level::kBad;
        const char* level = check.level == Check::Level::kGood ? "good" : check.level == Check::Level::kInfo ? "info" : "bad";
        if (as_json) {
            list.push_back({{"name", check.name}, {"level", level}, {"found", check.found}, {"remedy", check.remedy}});
            continue;
        }
        const char* sign = check.level == Check::Level::kGood ? "ok" : check.level == Check::Level::kInfo ? "--" : "NO";
        std::printf("%-3s %-16s %s\n", sign, check.name.c_str(), base::printable(check.found).c_str());
        if (!check.remedy.empty()) std::printf("    %-16s   %s\n", "", base::printable(check.remedy).c_str());
    }
    if (as_json) print({{"checks", list}, {"layers", layers_json(layers)}});
    else print_layers(layers);
    return bad ? 1 : 0;
}

}  // namespace

void add_image_commands(CLI::App& app, Action& action) {
    auto* group = app.add_subcommand("image", "Work with the local image store");
    group->require_subcommand(1);

    auto format = std::make_shared<std::string>();
    auto* list = group->add_subcommand("ls", "List images");
    list->footer("Example:\n  caisson image ls --format json");
    list->add_option("--format", *format, "text or json")->type_name("FORMAT");
    list->callback([format, &action] { action = [format](Context& context) { return list_images(context, *format); }; });

    auto path = std::make_shared<std::string>("-");
    auto name = std::make_shared<std::string>();
    auto* load = group->add_subcommand("load", "Load images from an OCI layout, an OCI archive or a docker archive");
    load->footer("Examples:\n  caisson image load image.tar\n  docker save debian:12 | caisson image load\n"
                 "  caisson image load --name mine:1 ./layout-directory");
    load->add_option("SOURCE", *path, "File or directory; - is standard input")->capture_default_str();
    load->add_option("--name", *name, "Name for the image, if the source holds exactly one")->type_name("NAME");
    load->callback([path, name, &action] {
        action = [path, name](Context& context) { return load_images(context, *path, *name); };
    });

    auto import = std::make_shared<ImportArguments>();
    auto* importer = group->add_subcommand("import", "Make an image of a root file system's tar");
    importer->footer("Example:\n  caisson image import --name mine --cmd /bin/sh rootfs.tar");
    importer->add_option("ROOTFS", import->source, "tar file, plain or compressed; - is standard input")->required();
    importer->add_option("--name", import->name, "Name of the image")->type_name("NAME")->required();
    importer->add_option("--cmd", import->cmd, "Default command, a word each")->type_name("WORD")->allow_extra_args(false)->take_all();
    importer->add_option("--entrypoint", import->entrypoint, "Entrypoint, a word each")->type_name("WORD")->allow_extra_args(false)->take_all();
    importer->add_option("-e,--env", import->environment, "Environment variable")->type_name("NAME=VALUE")->allow_extra_args(false)->take_all();
    importer->add_option("-w,--workdir", import->working_directory, "Working directory")->type_name("PATH");
    importer->add_option("-u,--user", import->user, "User")->type_name("USER");
    importer->callback([import, &action] { action = [import](Context& context) { return import_image(context, *import); }; });

    add_image_transfer_commands(*group, action);

    auto names = std::make_shared<std::vector<std::string>>();
    auto* remove = group->add_subcommand("rm", "Remove images, with what only they use");
    remove->footer("Example:\n  caisson image rm debian:12");
    remove->add_option("IMAGE", *names, "Names or ids")->required();
    remove->callback([names, &action] {
        action = [names](Context& context) -> Result<int> {
            auto runtime = CAISSON_TRY(open_runtime(context));
            for (const auto& reference : *names)
                for (const auto& gone : CAISSON_TRY(runtime.remove_image(reference)))
                    std::printf("%s\n", base::printable(gone).c_str());
            return 0;
        };
    });
}

void add_template_commands(CLI::App& app, Action& action) {
    auto* group = app.add_subcommand("template", "Work with the frozen machines that boxes start from");
    group->require_subcommand(1);
    auto format = std::make_shared<std::string>();
    auto* list = group->add_subcommand("ls", "List templates");
    list->footer("Example:\n  caisson template ls --format json");
    list->add_option("--format", *format, "text or json")->type_name("FORMAT");
    list->callback([format, &action] { action = [format](Context& context) { return list_templates(context, *format); }; });

    auto cpus = std::make_shared<std::string>("1");
    auto memory = std::make_shared<std::string>("512M");
    auto* build = group->add_subcommand("build", "Make the template of an image and shape, unless it is there");
    build->footer("Example:\n  caisson template build --cpus 2 --memory 1G debian:12");
    auto image = std::make_shared<std::string>("caisson/base");
    build->add_option("IMAGE", *image, "Image whose boxes start from it")->capture_default_str();
    build->add_option("--cpus", *cpus, "CPUs")->type_name("N")->capture_default_str();
    build->add_option("-m,--memory", *memory, "Memory")->type_name("SIZE")->capture_default_str();
    auto net = std::make_shared<NetArguments>();
    build->add_option("--net", net->net, "Of boxes that have a network (public, open), or of those that have none (none)")->type_name("MODE");
    build->callback([image, cpus, memory, net, &action] {
        action = [image, cpus, memory, net](Context& context) { return build_template(context, *image, *cpus, *memory, *net); };
    });

    auto keys = std::make_shared<std::vector<std::string>>();
    auto* remove = group->add_subcommand("rm", "Remove templates");
    remove->footer("Example:\n  caisson template rm 0123456789abcdef0123456789abcdef");
    remove->add_option("KEY", *keys, "Keys, as `caisson template ls` shows them")->required();
    remove->callback([keys, &action] {
        action = [keys](Context& context) -> Result<int> {
            auto runtime = CAISSON_TRY(open_runtime(context));
            for (const auto& key : *keys) {
                CAISSON_TRY(runtime.remove_template(key));
                std::printf("%s\n", key.c_str());
            }
            return 0;
        };
    });
}

void add_doctor(CLI::App& app, Action& action) {
    auto format = std::make_shared<std::string>();
    auto* command = app.add_subcommand("doctor", "Tell what this host has and lacks, and how to fix it");
    command->footer("Example:\n  caisson doctor\n\nExit code: 0 if boxes can run here, else 1.");
    command->add_option("--format", *format, "text or json")->type_name("FORMAT");
    command->callback([format, &action] { action = [format](Context& context) { return doctor(context, *format); }; });

    auto* version_command = app.add_subcommand("version", "Print the version");
    version_command->callback([&action] {
        action = [](Context&) -> Result<int> {
            std::printf("caisson %s\n", std::string(version()).c_str());
            return 0;
        };
    });
}

}  // namespace caisson::cli
