// caisson port: which ports of the host lead to a box.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/text.h"
#include "cli/command.h"

namespace caisson::cli {

using base::failure;
using nlohmann::json;

namespace {

struct PortArguments {
    std::string box, port, format;
};

// PORT[/tcp|/udp]
struct GuestPort {
    std::uint16_t number = 0;
    bool udp = false;
    std::string to_string() const { return std::to_string(number) + (udp ? "/udp" : "/tcp"); }
};

Result<GuestPort> parse_guest_port(const std::string& text) {
    std::string_view rest = text;
    GuestPort port;
    port.udp = rest.ends_with("/udp");
    if (rest.ends_with("/udp") || rest.ends_with("/tcp")) rest.remove_suffix(4);
    const auto number = base::parse_u64(rest);
    if (!number || *number == 0 || *number > 65535)
        return failure(Errc::kUsage, "'" + base::printable(text, 100) + "' is no port of a box", "write a number from 1 to 65535, with /udp if it is not TCP");
    port.number = static_cast<std::uint16_t>(*number);
    return port;
}

std::string place_of(const PublishedPort& port) {
    const auto host = port.address.find(':') == std::string::npos ? port.address : "[" + port.address + "]";
    return host + ":" + (port.host_port == 0 ? "(chosen at its start)" : std::to_string(port.host_port));
}

Result<int> list_ports(Context& context, const PortArguments& arguments) {
    const bool as_json = CAISSON_TRY(wants_json(arguments.format));
    std::optional<GuestPort> wanted;
    if (!arguments.port.empty()) wanted = CAISSON_TRY(parse_guest_port(arguments.port));
    auto runtime = CAISSON_TRY(open_runtime(context));
    const auto details = CAISSON_TRY(runtime.inspect(arguments.box));
    auto ports = details.ports;
    if (wanted) std::erase_if(ports, [&](const PublishedPort& port) { return port.guest_port != wanted->number || port.udp != wanted->udp; });
    if (wanted && ports.empty()) return failure(Errc::kNotFound, "port " + wanted->to_string() + " of box " + details.info.name + " is not published", "publish it: caisson update --publish HOST:" + std::to_string(wanted->number) + (wanted->udp ? "/udp " : " ") + details.info.name);
    std::sort(ports.begin(), ports.end(), [](const auto& a, const auto& b) { return std::tie(a.guest_port, a.udp, a.address, a.host_port) < std::tie(b.guest_port, b.udp, b.address, b.host_port); });
    json list = json::array();
    for (const auto& port : ports) {
        if (as_json)
            list.push_back({{"address", port.address}, {"host_port", port.host_port == 0 ? json(nullptr) : json(port.host_port)}, {"guest_port", port.guest_port}, {"protocol", port.udp ? "udp" : "tcp"}});
        else if (wanted) std::printf("%s\n", place_of(port).c_str());
        else std::printf("%s -> %s\n", GuestPort{port.guest_port, port.udp}.to_string().c_str(), place_of(port).c_str());
    }
    if (as_json) print(list);
    return 0;
}

}  // namespace

void add_port(CLI::App& app, Action& action) {
    auto arguments = std::make_shared<PortArguments>();
    auto* command = app.add_subcommand("port", "List the ports of this host that lead to a box");
    command->footer("Examples:\n  caisson port web\n  caisson port web 80\n  caisson port --format json web 53/udp\n\n"
                    "A port that was published as 0 is shown as the one that was chosen.");
    command->add_option("BOX", arguments->box, "Name, id or unique beginning of an id")->required();
    command->add_option("PORT", arguments->port, "Only where this port of the box is reached, with /udp if it is not TCP")->type_name("PORT[/udp]");
    command->add_option("--format", arguments->format, "text or json")->type_name("FORMAT");
    command->callback([arguments, &action] { action = [arguments](Context& context) { return list_ports(context, *arguments); }; });
}

}  // namespace caisson::cli
