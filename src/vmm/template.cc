#include "vmm/template.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "base/text.h"
#include "jail/unfinished.h"
#include "os/file.h"
#include "os/host.h"
#include "vmm/initramfs.h"
#include "vmm/machine.h"

namespace caisson::vmm {

using base::failure;
using nlohmann::json;

namespace {

std::string cpu_identity() {
    std::string identity;
    if (auto cpuinfo = os::read_file("/proc/cpuinfo", 4 << 20)) {
        for (const auto& line : base::split(*cpuinfo, '\n')) {
            if (line.empty()) break;  // the first processor is enough
            for (const char* key : {"cpu family", "model\t", "stepping", "microcode"})
                if (base::starts_with(line, key)) identity += line + ";";
        }
    }
    struct utsname name {};
    ::uname(&name);
    return identity + name.release;
}

// Fields of a document that is not believed: absent or of another type they are empty.
std::string text_of(const json& document, const char* key) {
    auto found = document.find(key);
    return found != document.end() && found->is_string() ? found->get<std::string>() : std::string();
}
std::uint64_t number_of(const json& document, const char* key) {
    auto found = document.find(key);
    return found != document.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}
std::uint32_t small_number_of(const json& document, const char* key) {
    auto number = number_of(document, key);
    return number <= UINT32_MAX ? static_cast<std::uint32_t>(number) : 0;
}

// A regular file of our own below `directory`, never waiting for anybody at the other end of something else.
Result<std::string> read_beneath(const os::Fd& directory, const std::string& path, std::size_t limit) {
    auto fd = CAISSON_TRY(os::open_beneath(directory, path, O_RDONLY | O_NONBLOCK));
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return base::failure_errno("cannot look at " + path);
    if (!S_ISREG(info.st_mode)) return failure(Errc::kCorrupt, path + " is not a file");
    return os::read_fd(fd.get(), limit, path);
}

Result<> save_profile(const std::string& templates, const HostProfile& profile) {
    json document{{"boot_id", profile.boot_id},
                  {"tsc_khz", profile.tsc_khz},
                  {"cpu", profile.cpu},
                  {"kvm_failed", profile.kvm_failed}};
    return os::write_file_atomic(templates + "/host.json", document.dump(), 0644);
}

}  // namespace

bool is_template_key(const std::string& name) {
    return name.size() == 32 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

Result<HostProfile> host_profile(const std::string& templates) {
    auto boot_id = CAISSON_TRY(os::boot_id());
    if (auto text = os::read_file(templates + "/host.json", 1 << 16)) {
        auto document = json::parse(*text, nullptr, false);
        if (document.is_object() && text_of(document, "boot_id") == boot_id && number_of(document, "tsc_khz") > 0) {
            auto failed = document.find("kvm_failed");
            return HostProfile{boot_id, number_of(document, "tsc_khz"), text_of(document, "cpu"),
                               failed != document.end() && failed->is_boolean() && failed->get<bool>()};
        }
    }
    HostProfile profile{boot_id, CAISSON_TRY(measure_tsc_khz()), cpu_identity(), false};
    CAISSON_TRY_CTX(save_profile(templates, profile), "remembering what this host is");
    return profile;
}

Result<> remember_kvm_failure(const std::string& templates, HostProfile profile) {
    profile.kvm_failed = true;
    return save_profile(templates, profile);
}

Result<std::string> template_key(Shape shape, Accelerator accelerator, const Assets& assets, const HostProfile& host,
                                 const std::string& base_disk_path) {
    base::Sha256 hash;
    auto add = [&](const std::string& text) {
        hash.update(base::as_bytes(text));
        hash.update(base::as_bytes(std::string_view("\0", 1)));
    };
    add(template_command_line(shape, accelerator, host.tsc_khz));
    add(host.boot_id);
    if (accelerator == Accelerator::kKvm) add(host.cpu);
    for (const auto& path : {assets.vmm_root + kQemuPath, assets.kernel, assets.modules_list, assets.modules,
                             assets.agent, assets.vmm_root + "/usr/share/qemu", assets.vmm_root + "/usr/share/seabios", assets.vmm_root + "/usr/lib", base_disk_path}) {
        struct stat info {};
        if (path.empty()) {  // a template of no image
            add(path);
            continue;
        }
        if (::stat(path.c_str(), &info) != 0) return base::failure_errno("cannot look at " + path);
        add(path);
        for (auto value : {static_cast<std::int64_t>(info.st_dev), static_cast<std::int64_t>(info.st_ino),
                           static_cast<std::int64_t>(info.st_size), static_cast<std::int64_t>(info.st_ctim.tv_sec),
                           static_cast<std::int64_t>(info.st_ctim.tv_nsec)})
            add(std::to_string(value));
    }
    return hash.finish_hex().substr(0, 32);
}

std::optional<std::string> find_template(const std::string& templates, const std::string& key) {
    std::string directory = templates + "/" + key;
    struct stat info {};
    if (::lstat((directory + "/state").c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
    auto age = ::time(nullptr) - info.st_mtim.tv_sec;
    if (age > std::chrono::seconds(kTemplateMaxAge).count() || age < -60) return std::nullopt;
    return directory;
}

Result<std::vector<TemplateInfo>> list_templates(const std::string& templates) {
    std::vector<TemplateInfo> found;
    auto boot_id = CAISSON_TRY(os::boot_id());
    auto top = CAISSON_TRY(os::open_file(templates, O_RDONLY | O_DIRECTORY));
    for (const auto& name : CAISSON_TRY(os::list_directory(templates))) {
        if (!is_template_key(name)) continue;
        auto text = read_beneath(top, name + "/info.json", 1 << 16);
        if (!text) continue;
        auto document = json::parse(*text, nullptr, false);
        if (!document.is_object()) continue;
        TemplateInfo info;
        info.key = name;
        info.directory = templates + "/" + name;
        info.shape.cpus = small_number_of(document, "cpus");
        info.shape.memory_mib = small_number_of(document, "memory_mib");
        info.accelerator = text_of(document, "accelerator");
        info.shape.disks = small_number_of(document, "disks");
        info.shape.network = document.value("network", false);
        info.image = text_of(document, "image");
        info.base_disk = text_of(document, "base_disk");
        struct stat used {};
        if (::stat((info.directory + "/state").c_str(), &used) == 0) info.used_unix = used.st_atim.tv_sec;
        info.vmm_version = text_of(document, "vmm_version");
        info.kernel_version = text_of(document, "kernel_version");
        info.created_unix = static_cast<std::int64_t>(number_of(document, "created_unix") & INT64_MAX);
        info.disk_bytes = os::disk_usage(info.directory).value_or(0);
        info.current = text_of(document, "boot_id") == boot_id && find_template(templates, name).has_value();
        found.push_back(std::move(info));
    }
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.created_unix < b.created_unix; });
    return found;
}

Result<> remove_template(const std::string& templates, const std::string& key) {
    std::string directory = templates + "/" + key;
    if (!is_template_key(key) || !os::exists(directory + "/info.json"))
        return failure(Errc::kNotFound, "there is no template " + base::printable(key, 64), "see: caisson template ls");
    // Renamed first, so that nobody starts from a template that is half gone.
    std::string doomed = templates + "/.old-" + key;
    if (::rename(directory.c_str(), doomed.c_str()) != 0) return base::failure_errno("cannot remove template " + key);
    CAISSON_TRY(os::remove_tree(doomed));
    return os::remove_tree(templates + "/" + key + ".lock");
}

void mark_template_used(const std::string& directory) {
    // The access time only, and set by hand: file systems are mostly mounted with relatime.
    struct timespec times[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
    ::utimensat(AT_FDCWD, (directory + "/state").c_str(), times, 0);
}

namespace {

// Under this nobody makes the template; none: it is not unfinished, or somebody does.
std::optional<os::FileLock> lock_of_unfinished(const std::string& templates, const std::string& name) {
    const auto key = key_of_unfinished(name);
    if (!key) return std::nullopt;
    auto taken = os::FileLock::try_acquire(templates + "/" + *key + ".lock");
    return taken ? std::optional(std::move(*taken)) : std::nullopt;
}

}  // namespace

std::optional<std::string> key_of_unfinished(const std::string& name) {
    if (!base::starts_with(name, kUnfinishedTemplate)) return std::nullopt;
    return name.substr(kUnfinishedTemplate.size(), name.rfind('-') - kUnfinishedTemplate.size());
}

void end_unfinished_makers(const std::string& templates) {
    for (const auto& name : os::list_directory(templates).value_or(std::vector<std::string>()))
        if (const auto lock = lock_of_unfinished(templates, name)) jail::kill_unfinished_jails(templates + "/" + name + "/");
}

Result<> sweep_unfinished_templates(const std::string& templates, bool dry_run,
                                    const std::function<void(const std::string& name, std::uint64_t bytes)>& found) {
    Result<> result;
    for (const auto& name : CAISSON_TRY(os::list_directory(templates))) {
        const auto lock = lock_of_unfinished(templates, name);
        if (!lock && !base::starts_with(name, ".old-")) continue;
        const auto bytes = os::disk_usage(templates + "/" + name).value_or(0);
        if (!dry_run) {
            jail::kill_unfinished_jails(templates + "/" + name + "/");
            if (auto removed = os::remove_tree(templates + "/" + name); !removed) {
                result = std::move(removed);
                continue;
            }
        }
        if (found) found(name, bytes);
    }
    return result;
}

Result<> collect_templates(const std::string& templates, std::size_t keep) {
    auto found = CAISSON_TRY(list_templates(templates));
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.used_unix > b.used_unix; });
    // One that cannot be removed does not keep the others; the last failure is what is returned.
    auto result = sweep_unfinished_templates(templates, false, {});
    std::size_t kept = 0;
    for (const auto& info : found) {
        if (info.current && kept++ < keep) continue;
        auto removed = remove_template(templates, info.key);
        if (!removed && removed.error().code != Errc::kNotFound) result = std::move(removed);
    }
    return result;
}

Result<> write_initramfs(const Assets& assets, const std::string& directory) {
    auto content = CAISSON_TRY(make_initramfs(assets));
    auto fd = CAISSON_TRY(os::open_file(directory + "/initramfs", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0444));
    return os::write_all(fd.get(), content);
}

}  // namespace caisson::vmm
