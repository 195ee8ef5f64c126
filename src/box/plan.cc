#include "box/plan.h"

#include "box/network.h"
#include "net/space/protocol.h"

#include <algorithm>

#include "base/capabilities.h"
#include "base/text.h"
#include "box/limits.h"
#include "box/mounts.h"
#include "jail/sandbox.h"
#include "vmm/qcow2.h"
#include "vmm/shape.h"

namespace caisson::box {

using base::failure;

namespace {

constexpr const char* kDefaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr std::uint64_t kMinMemoryBytes = 128ull << 20;
constexpr std::uint64_t kMinDiskBytes = 64ull << 20;
constexpr std::size_t kMaxName = 64;
constexpr std::uint32_t kMaxPids = 4 << 20;  // the kernel's PID_MAX_LIMIT: it takes no larger one

bool is_name(std::string_view text, std::string_view extra) {
    if (text.empty() || text.size() > kMaxName) return false;
    auto alphanumeric = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); };
    if (!alphanumeric(text[0])) return false;
    return std::all_of(text.begin(), text.end(),
                       [&](char c) { return alphanumeric(c) || extra.find(c) != std::string_view::npos; });
}

Result<> validate_guest_path(const std::string& option, const std::string& path) {
    if (path.empty() || path[0] != '/')
        return failure(Errc::kUsage, option + " '" + base::printable(path, 200) + "' is not an absolute path");
    if (path.find('\0') != std::string::npos || path.size() > 4000)
        return failure(Errc::kUsage, option + " is not a usable path");
    for (const auto& part : base::split(path, '/'))
        if (part == "..") return failure(Errc::kUsage, option + " '" + base::printable(path, 200) + "' must not contain '..'");
    return {};
}

void put_environment(std::vector<std::string>& environment, const std::string& name, const std::string& value) {
    for (auto& variable : environment) {
        if (variable.size() > name.size() && variable[name.size()] == '=' && base::starts_with(variable, name)) {
            variable = name + "=" + value;
            return;
        }
    }
    environment.push_back(name + "=" + value);
}

Result<> validate_environment(const std::vector<std::pair<std::string, std::string>>& environment) {
    for (const auto& [name, value] : environment) {
        if (name.empty() || name.find('=') != std::string::npos || name.find('\0') != std::string::npos ||
            value.find('\0') != std::string::npos)
            return failure(Errc::kUsage, "'" + base::printable(name, 100) + "' is not the name of an environment variable");
    }
    return {};
}

Result<> validate_command(const std::vector<std::string>& command) {
    for (const auto& word : command)
        if (word.find('\0') != std::string::npos)
            return failure(Errc::kUsage, "an argument of the command holds a zero byte");
    return {};
}

Result<> validate_time(const std::string& option, const std::optional<std::chrono::milliseconds>& time) {
    if (time && time->count() <= 0) return failure(Errc::kUsage, option + " must be more than zero");
    if (time && *time > limits::kLongestTime) return failure(Errc::kUsage, option + " is longer than 24 days");
    return {};
}

Result<> validate_life(const BoxOptions& options) {
    CAISSON_TRY(validate_time("--timeout", options.timeout));
    CAISSON_TRY(validate_time("--max-duration", options.max_duration));
    CAISSON_TRY(validate_time("--idle-timeout", options.idle_timeout));
    if (options.stop_timeout.count() < 0 || options.stop_timeout > limits::kLongestTime)
        return failure(Errc::kUsage, "--stop-timeout is out of range", "give between 0 and 24 days");
    if (options.stop_signal < 0 || options.stop_signal > 64) return failure(Errc::kUsage, "there is no stop signal " + std::to_string(options.stop_signal));
    if (options.restart != RestartPolicy::kNo && options.auto_remove)
        return failure(Errc::kUsage, "a box that is removed at its end cannot be started again", "leave out --rm or --restart");
    if (options.restart_limit > 0 && options.restart != RestartPolicy::kOnFailure)
        return failure(Errc::kUsage, "only --restart on-failure can have a limit");
    if (options.replace && options.name.empty())
        return failure(Errc::kUsage, "--replace needs the name of the box to be replaced", "add --name");
    CAISSON_TRY(validate_labels(options.labels));
    if (options.health && options.no_health_check)
        return failure(Errc::kUsage, "a health check is given and switched off", "leave out --no-healthcheck or --health-cmd");
    if (!options.health) return {};
    if (options.health->command.empty()) return failure(Errc::kUsage, "the health check has no command");
    CAISSON_TRY(validate_command(options.health->command));
    CAISSON_TRY(validate_time("--health-interval", options.health->interval));
    CAISSON_TRY(validate_time("--health-timeout", options.health->timeout));
    if (options.health->retries == 0) return failure(Errc::kUsage, "--health-retries must be at least 1");
    if (options.health->start_period.count() < 0 || options.health->start_period > limits::kLongestTime)
        return failure(Errc::kUsage, "--health-start-period is out of range");
    return {};
}

std::uint32_t ms(const std::optional<std::chrono::milliseconds>& time) {
    return time ? static_cast<std::uint32_t>(time->count()) : 0;
}

// The caller's, else the image's with the usual value for what it does not say.
std::optional<HealthCheck> health_of(const BoxOptions& options, const image::Config& config) {
    if (options.health || options.no_health_check || config.health.command.empty()) return options.health;
    HealthCheck health;
    health.command = config.health.command;
    using std::chrono::milliseconds;
    if (config.health.interval_ms > 0) health.interval = milliseconds(config.health.interval_ms);
    if (config.health.timeout_ms > 0) health.timeout = milliseconds(config.health.timeout_ms);
    if (config.health.retries > 0) health.retries = config.health.retries;
    health.start_period = milliseconds(config.health.start_period_ms);
    return health;
}

}  // namespace

Result<> validate_labels(const std::map<std::string, std::string>& labels) {
    if (labels.size() > limits::kMostLabels)
        return failure(Errc::kUsage, "more than " + std::to_string(limits::kMostLabels) + " labels");
    for (const auto& [key, value] : labels) {
        const auto shown = base::printable(key, 100);
        if (key.empty() || key.size() > limits::kLongestLabel || key.find('=') != std::string::npos || key.find('\0') != std::string::npos)
            return failure(Errc::kUsage, "'" + shown + "' cannot be the name of a label");
        if (value.size() > limits::kLongestLabelValue) return failure(Errc::kUsage, "the value of label '" + shown + "' is too long");
    }
    return {};
}

Result<> validate(const BoxOptions& options) {
    CAISSON_TRY(network_of(options));
    if (options.image.empty()) return failure(Errc::kUsage, "no image is given");
    if (!options.name.empty() && !is_name(options.name, "_.-"))
        return failure(Errc::kUsage, "'" + base::printable(options.name, 100) + "' is not a box name",
                       "use letters, digits, '_', '.' and '-', at most 64, beginning with a letter or digit");
    if (!options.hostname.empty() && !is_name(options.hostname, ".-"))
        return failure(Errc::kUsage, "'" + base::printable(options.hostname, 100) + "' is not a host name",
                       "use letters, digits, '.' and '-', at most 64");
    CAISSON_TRY(validate_environment(options.environment));
    CAISSON_TRY(validate_command(options.command));
    if (!options.working_directory.empty()) CAISSON_TRY(validate_guest_path("--workdir", options.working_directory));
    for (const auto& tmpfs : options.tmpfs) {
        CAISSON_TRY(validate_guest_path("--tmpfs", tmpfs.path));
        if (tmpfs.path == "/") return failure(Errc::kUsage, "--tmpfs cannot replace '/'");
    }
    CAISSON_TRY(validate_mounts(options));
    if (options.cpu_millis < 10) return failure(Errc::kUsage, "--cpus must be at least 0.01");
    if (options.memory_bytes < kMinMemoryBytes)
        return failure(Errc::kUsage, "--memory " + base::format_size(options.memory_bytes) + " is too little",
                       "give at least 128M");
    CAISSON_TRY(vmm::shape_for(options.cpu_millis, options.memory_bytes));
    if (options.disk_bytes < kMinDiskBytes || options.disk_bytes > vmm::kMaxDiskBytes)
        return failure(Errc::kUsage, "--disk-size " + base::format_size(options.disk_bytes) + " is out of range",
                       "give between 64M and 1T");
    if (options.pids_limit > kMaxPids)
        return failure(Errc::kUsage, "--pids-limit " + std::to_string(options.pids_limit) + " is too many",
                       "give at most " + std::to_string(kMaxPids) + ", or 0 for no limit");
    if (options.security.empty()) return failure(Errc::kUsage, "--security has no word", "leave it out, or use jailed or none");
    CAISSON_TRY(jail::sandbox_named(options.security));
    CAISSON_TRY(base::capability_names("--cap-add", options.cap_add));
    CAISSON_TRY(base::capability_names("--cap-drop", options.cap_drop));
    return validate_life(options);
}

namespace {

// validate() has seen the names.
wire::Privileges plan_privileges(const BoxOptions& options) {
    const auto add = base::capability_names("--cap-add", options.cap_add).value_or(std::vector<std::string>());
    const auto drop = base::capability_names("--cap-drop", options.cap_drop).value_or(std::vector<std::string>());
    wire::Privileges privileges;
    privileges.set_capabilities(base::capability_set(add, drop, options.privileged));
    privileges.set_no_new_privileges(options.no_new_privileges);
    privileges.set_privileged(options.privileged);
    for (const auto& name : add) privileges.add_cap_add(name);
    for (const auto& name : drop) privileges.add_cap_drop(name);
    return privileges;
}

}  // namespace

Result<wire::Exec> plan_exec(const BoxOptions& options, const image::Config& config) {
    std::vector<std::string> words;
    if (options.entrypoint) {
        if (!options.entrypoint->empty()) words.push_back(*options.entrypoint);
        words.insert(words.end(), options.command.begin(), options.command.end());
    } else {
        words = config.entrypoint;
        const auto& rest = options.command.empty() ? config.cmd : options.command;
        words.insert(words.end(), rest.begin(), rest.end());
    }
    if (words.empty())
        return failure(Errc::kUsage, "the image has no command of its own and none is given",
                       "write one behind the image: caisson run IMAGE COMMAND");
    if (words[0].empty()) return failure(Errc::kUsage, "the command's first word is empty");

    std::vector<std::string> environment = config.env;
    bool has_path = std::any_of(environment.begin(), environment.end(),
                                [](const auto& variable) { return base::starts_with(variable, "PATH="); });
    if (!has_path) environment.insert(environment.begin(), kDefaultPath);
    if (options.terminal) put_environment(environment, "TERM", "xterm");
    for (const auto& [name, value] : options.environment) put_environment(environment, name, value);

    wire::Exec exec;
    for (auto& word : words) exec.add_arguments(std::move(word));
    for (auto& variable : environment) exec.add_environment(std::move(variable));
    auto directory = options.working_directory.empty() ? config.working_directory : options.working_directory;
    exec.set_working_directory(directory.empty() ? "/" : directory);
    exec.set_create_working_directory(true);
    exec.set_user(options.user.empty() ? config.user : options.user);
    exec.set_stdin_open(options.open_stdin);
    exec.set_terminal(options.terminal);
    exec.set_rows(options.terminal_rows);
    exec.set_columns(options.terminal_columns);
    *exec.mutable_privileges() = plan_privileges(options);
    return exec;
}

wire::BoxSpec plan_spec(const BoxOptions& options, const image::Config& config, wire::Exec exec, const SpecParts& parts) {
    wire::BoxSpec spec;
    *spec.mutable_configure() = plan_configure(options, parts.box_id, parts.machine_id, parts.network.has_value());
    *spec.mutable_exec() = std::move(exec);
    add_hostname(*spec.mutable_exec(), hostname_of(options, parts.box_id));
    if (parts.network) *spec.mutable_network() = *parts.network;
    spec.set_cpu_millis(options.cpu_millis);
    spec.set_memory_bytes(options.memory_bytes);
    spec.set_disk_bytes(options.disk_bytes);
    spec.set_base_disk_bytes(parts.base_disk_bytes);
    for (const auto& path : parts.warm) spec.add_warm(path);
    spec.set_cold(options.cold);
    spec.set_auto_remove(options.auto_remove);
    spec.set_timeout_ms(ms(options.timeout));
    spec.set_max_duration_ms(ms(options.max_duration));
    spec.set_idle_timeout_ms(ms(options.idle_timeout));
    spec.set_stop_timeout_ms(ms(options.stop_timeout));
    int signal = options.stop_signal;
    // What an image says is not always a signal; then the usual one.
    if (auto named = parse_signal(config.stop_signal); signal == 0 && named) signal = *named;
    spec.set_stop_signal(signal);
    switch (options.restart) {
        case RestartPolicy::kNo: spec.set_restart(wire::BoxSpec::NO); break;
        case RestartPolicy::kOnFailure: spec.set_restart(wire::BoxSpec::ON_FAILURE); break;
        case RestartPolicy::kAlways: spec.set_restart(wire::BoxSpec::ALWAYS); break;
    }
    spec.set_restart_limit(options.restart_limit);
    spec.set_require_limits(options.require_limits);
    spec.set_security(options.security);
    for (const auto& [key, value] : options.labels) {
        auto* label = spec.add_labels();
        label->set_key(key);
        label->set_value(value);
    }
    if (auto checked = health_of(options, config)) {
        auto* health = spec.mutable_health();
        for (const auto& word : checked->command) health->add_command(word);
        health->set_interval_ms(ms(checked->interval));
        health->set_timeout_ms(ms(checked->timeout));
        health->set_retries(checked->retries);
        health->set_start_period_ms(ms(checked->start_period));
    }
    return spec;
}

Result<wire::Exec> plan_further_exec(const wire::BoxSpec& spec, const ExecOptions& options) {
    if (options.command.empty() || options.command[0].empty())
        return failure(Errc::kUsage, "no command is given", "write: caisson exec BOX COMMAND...");
    CAISSON_TRY(validate_command(options.command));
    CAISSON_TRY(validate_environment(options.environment));
    CAISSON_TRY(validate_time("--timeout", options.timeout));
    if (!options.working_directory.empty()) CAISSON_TRY(validate_guest_path("--workdir", options.working_directory));
    wire::Exec exec;
    for (const auto& word : options.command) exec.add_arguments(word);
    std::vector<std::string> environment;
    for (const auto& variable : spec.exec().environment())
        if (options.terminal || !base::starts_with(variable, "TERM=")) environment.push_back(variable);
    if (options.terminal) put_environment(environment, "TERM", "xterm");
    for (const auto& [name, value] : options.environment) put_environment(environment, name, value);
    for (auto& variable : environment) exec.add_environment(std::move(variable));
    exec.set_working_directory(options.working_directory.empty() ? spec.exec().working_directory() : options.working_directory);
    exec.set_user(options.user.empty() ? spec.exec().user() : options.user);
    exec.set_stdin_open(options.open_stdin);
    exec.set_terminal(options.terminal);
    exec.set_rows(options.terminal_rows);
    exec.set_columns(options.terminal_columns);
    if (spec.exec().has_privileges()) *exec.mutable_privileges() = spec.exec().privileges();
    if (options.privileged) exec.mutable_privileges()->set_capabilities(base::all_capabilities());
    return exec;
}

std::string restart_text(const wire::BoxSpec& spec) {
    switch (spec.restart()) {
        case wire::BoxSpec::ON_FAILURE:
            return spec.restart_limit() > 0 ? "on-failure:" + std::to_string(spec.restart_limit()) : "on-failure";
        case wire::BoxSpec::ALWAYS: return "always";
        default: return "no";
    }
}

std::string hostname_of(const BoxOptions& options, const std::string& box_id) {
    // The last characters of a ULID are random; the first are the time, which boxes started together share.
    return options.hostname.empty() ? box_id.substr(box_id.size() - 12) : options.hostname;
}

void add_hostname(wire::Exec& exec, const std::string& hostname) {
    const auto& environment = exec.environment();
    bool has_one = std::any_of(environment.begin(), environment.end(),
                               [](const auto& variable) { return base::starts_with(variable, "HOSTNAME="); });
    if (!has_one) exec.add_environment("HOSTNAME=" + hostname);
}

wire::Configure plan_configure(const BoxOptions& options, const std::string& box_id, const std::string& machine_id, bool connected) {
    wire::Configure configure;
    const auto hostname = hostname_of(options, box_id);
    configure.set_hostname(hostname);
    configure.set_machine_id(machine_id);
    configure.set_privileged(options.privileged);
    auto* root = configure.mutable_root();
    root->set_device("/dev/vda");
    root->set_type("ext4");
    root->set_read_only(options.read_only);
    root->set_size_bytes(options.disk_bytes);
    root->set_grow(options.disk_bytes > vmm::kDefaultDiskBytes);
    for (const auto& tmpfs : options.tmpfs) {
        auto* mount = configure.add_tmpfs();
        mount->set_path(tmpfs.path);
        mount->set_size_bytes(tmpfs.size_bytes);
        mount->set_mode(tmpfs.mode);
        mount->set_executable(tmpfs.executable);
    }
    auto file = [&](const char* path, std::string content) {
        auto* entry = configure.add_files();
        entry->set_path(path);
        entry->set_content(std::move(content));
        entry->set_mode(0644);
    };
    file("/etc/hostname", hostname + "\n");
    if (connected) *configure.mutable_network() = network_link();
    file("/etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t" + hostname + "\n");
    file("/etc/resolv.conf", resolver_file(connected));
    if (auto shape = vmm::shape_for(options.cpu_millis, options.memory_bytes)) {
        const auto limits = guest_limits(*shape, options.cpu_millis, options.memory_bytes, options.pids_limit);
        configure.set_memory_limit_bytes(limits.memory_bytes());
        configure.set_cpu_limit_millis(limits.cpu_millis());
        configure.set_pids_limit(limits.pids());
    }
    return configure;
}

wire::SetLimits guest_limits(vmm::Shape shape, std::uint32_t cpu_millis, std::uint64_t memory_bytes, std::uint32_t pids_limit) {
    wire::SetLimits limits;
    const bool whole_memory = (static_cast<std::uint64_t>(shape.memory_mib) << 20) <= memory_bytes;
    limits.set_memory_bytes(whole_memory ? 0 : memory_bytes);
    limits.set_cpu_millis(shape.cpus * 1000 <= cpu_millis ? 0 : cpu_millis);
    // The container's init is ours and shares its cgroup; it does not count.
    limits.set_pids(pids_limit == 0 ? 0 : std::min(pids_limit + 1, kMaxPids));
    return limits;
}

}  // namespace caisson::box
