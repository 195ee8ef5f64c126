#include "volume/spec.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <vector>

#include "base/text.h"
#include "volume/names.h"

namespace caisson::volume {

using base::failure;
using base::starts_with;

namespace {

constexpr const char* kVolumeForms = "write -v /TARGET, -v VOLUME:/TARGET or -v VOLUME/PATH:/TARGET, each with :ro or other options behind it";
constexpr const char* kVolumeOptions = "known are ro, rw, noexec, nosuid and nodev";

std::string shown(std::string_view text) { return "'" + base::printable(text, 300) + "'"; }

// ---- paths of the host ----

// A volume's name begins with a letter or digit, so none of these can be one.
bool is_host_path(std::string_view source) { return !source.empty() && (source[0] == '/' || source[0] == '.' || source[0] == '~'); }

// What is written behind a volume's name to have of it what was at `path` on the host: an imported file is a file in it.
std::string part_for(const std::string& path, const IsFile& is_file) {
    if (!is_file || !is_file(path)) return {};
    return path.substr(path.rfind('/') + 1);
}

struct Refused {
    std::string path;    // of the host
    std::string option;  // that would have mounted it, as the user wrote it
};

// `again` writes the user's option anew, with a volume and a part of it in the path's place.
base::Failure refuse_host_path(const Refused& refused, const IsFile& is_file,
                               const std::function<std::string(const std::string& volume, const std::string& part)>& again) {
    const auto name = name_for(refused.path);
    return failure(Errc::kUsage,
                   refused.option + ": " + shown(refused.path) + " is a path of the host, and a box sees nothing of the host but volumes",
                   "copy it into a volume once, and give the box that:\n  caisson volume import " + name + " " + base::shell_quote(refused.path) +
                       "\n  " + again(name, part_for(refused.path, is_file)));
}

// ---- options behind a target ----

// Of Docker and podman, without an effect here: nothing of a volume is labelled for SELinux, nothing of the image is copied
// into it, its contents are never stale, and no mount travels between host and box.
bool is_harmless(std::string_view option) {
    static constexpr std::string_view kHarmless[] = {"z", "Z", "nocopy", "cached", "delegated", "consistent", "private", "rprivate"};
    return std::find(std::begin(kHarmless), std::end(kHarmless), option) != std::end(kHarmless);
}

bool is_known(std::string_view option) {
    static constexpr std::string_view kKnown[] = {"ro", "rw", "noexec", "nosuid", "nodev"};
    return is_harmless(option) || std::find(std::begin(kKnown), std::end(kKnown), option) != std::end(kKnown);
}

Result<> apply_options(MountOption& mount, std::string_view text) {
    bool writable = false;
    for (const auto& option : base::split(text, ',')) {
        if (option.empty()) return failure(Errc::kUsage, "an option is empty", kVolumeOptions);
        if (!is_known(option)) return failure(Errc::kUsage, "unknown option " + shown(option), kVolumeOptions);
        mount.read_only = mount.read_only || option == "ro";
        writable = writable || option == "rw";
        mount.no_exec = mount.no_exec || option == "noexec";
        mount.no_suid = mount.no_suid || option == "nosuid";
    }
    if (mount.read_only && writable) return failure(Errc::kUsage, "it cannot be both ro and rw", "leave one of them out");
    return {};
}

// Would anybody write this as options? Then it is no path.
bool looks_like_options(std::string_view text) {
    const auto options = base::split(text, ',');
    return std::all_of(options.begin(), options.end(), [](const auto& option) { return is_known(option); });
}

base::Failure relative_target(std::string_view target, const std::string& better) {
    return failure(Errc::kUsage, "the path in the box is relative: " + shown(target), better);
}

// "data" and "data:ro" are one character away from two things, and are neither.
base::Failure name_without_target(const std::string& word, const std::string& options) {
    const auto rest = options.empty() ? "" : ":" + options;
    std::string better;
    if (check_target("/" + word)) better = "a new volume for this box: -v " + base::shell_quote("/" + word + rest) + "\n";
    const auto volume = word.substr(0, word.find('/'));
    if (check_name(volume)) better += "the volume " + shown(volume) + ": -v " + base::shell_quote(word + ":/TARGET" + rest) + "\n";
    return relative_target(word, better.empty() ? kVolumeForms : better.substr(0, better.size() - 1));
}

Result<> set_source(MountOption& mount, std::string_view source) {
    const auto slash = source.find('/');
    mount.volume = source.substr(0, slash);
    CAISSON_TRY(check_name(mount.volume));
    if (slash == std::string_view::npos) return {};
    mount.subpath = source.substr(slash + 1);
    return check_subpath(mount.subpath);
}

// One path, perhaps with options: an anonymous volume.
Result<MountOption> parse_anonymous(const std::string& target, const std::string* options) {
    if (!target.empty() && target[0] != '/') return name_without_target(target, options == nullptr ? "" : *options);
    MountOption mount;
    mount.target = target;
    CAISSON_TRY(check_target(target));
    if (options != nullptr) CAISSON_TRY(apply_options(mount, *options));
    return mount;
}

Result<MountOption> parse_parts(const std::vector<std::string>& parts, const std::string& option, const IsFile& is_file) {
    if (parts.size() > 3) return failure(Errc::kUsage, "it has more than three parts", kVolumeForms);
    if (parts.size() == 1) return parse_anonymous(parts[0], nullptr);
    const auto& source = parts[0];
    const auto& target = parts[1];
    if (source.empty()) return failure(Errc::kUsage, "the part before the first ':' is empty", kVolumeForms);
    if (target.empty()) return failure(Errc::kUsage, "the part behind the first ':' is empty", kVolumeForms);
    const bool absolute = target[0] == '/';
    if (parts.size() == 2 && !absolute && (looks_like_options(target) || (source[0] == '/' && target.find('/') == std::string::npos)))
        return parse_anonymous(source, &target);
    const auto rest = parts.size() == 3 ? ":" + parts[2] : "";
    // As the text would be read if the path in the box were whole.
    const auto whole = absolute ? target : "/" + target;
    if (is_host_path(source))
        return refuse_host_path({source, option}, is_file, [&](const std::string& volume, const std::string& part) {
            return "-v " + base::shell_quote(volume + (part.empty() ? "" : "/" + part) + ":" + whole + rest);
        });
    if (!absolute) return relative_target(target, "give the whole path: -v " + base::shell_quote(source + ":" + whole + rest));
    MountOption mount;
    CAISSON_TRY(set_source(mount, source));
    CAISSON_TRY(check_target(target));
    mount.target = target;
    if (parts.size() == 3) CAISSON_TRY(apply_options(mount, parts[2]));
    return mount;
}

// ---- --mount ----

// The fields of one --mount, by the first of their names. Flags that are off are left out.
struct Fields {
    std::string type = "volume", source, subpath, target, size, mode;
    std::set<std::string> given;
    bool has(const std::string& name) const { return given.count(name) > 0; }
};

constexpr const char* kMountKeys =
    "known are type=volume or type=tmpfs, src=, subpath=, dst=, ro, noexec, nosuid, nodev and size=, and for a tmpfs mode= and exec";

std::string canonical(const std::string& key) {
    static constexpr std::string_view kNames[][2] = {
        {"source", "src"}, {"destination", "dst"}, {"target", "dst"}, {"volume-subpath", "subpath"}, {"readonly", "ro"},
        {"tmpfs-size", "size"}, {"tmpfs-mode", "mode"}, {"volume-nocopy", "nocopy"}};
    for (const auto& [other, name] : kNames)
        if (key == other) return std::string(name);
    return key;
}

bool is_flag(const std::string& name) {
    static constexpr std::string_view kFlags[] = {"ro", "noexec", "nosuid", "nodev", "exec", "nocopy"};
    return std::find(std::begin(kFlags), std::end(kFlags), name) != std::end(kFlags);
}

Result<bool> parse_flag(const std::string& key, const std::string& value) {
    if (value == "true" || value == "1") return true;
    if (value == "false" || value == "0") return false;
    return failure(Errc::kUsage, key + "=" + base::printable(value, 64) + " is neither true nor false", "write " + key + ", or leave it out");
}

// Where a value of this name goes; null if there is no such name.
std::string* place_of(Fields& fields, const std::string& name) {
    if (name == "type") return &fields.type;
    if (name == "src") return &fields.source;
    if (name == "subpath") return &fields.subpath;
    if (name == "dst") return &fields.target;
    if (name == "size") return &fields.size;
    if (name == "mode") return &fields.mode;
    return nullptr;
}

Result<> read_field(Fields& fields, const std::string& text) {
    if (text.empty()) return failure(Errc::kUsage, "a part is empty", kMountKeys);
    const auto equals = text.find('=');
    const auto key = text.substr(0, equals);
    const auto value = equals == std::string::npos ? std::string() : text.substr(equals + 1);
    const auto name = canonical(key);
    auto* place = place_of(fields, name);
    if (place == nullptr && !is_flag(name)) return failure(Errc::kUsage, "unknown option " + shown(key), kMountKeys);
    if (fields.has(name)) return failure(Errc::kUsage, shown(key) + " is given twice", "leave one of them out");
    if (is_flag(name)) {
        if (equals == std::string::npos || CAISSON_TRY(parse_flag(key, value))) fields.given.insert(name);
        return {};
    }
    if (value.empty()) return failure(Errc::kUsage, shown(key) + " has no value", "write " + base::printable(key, 64) + "=VALUE, or leave it out");
    fields.given.insert(name);
    *place = value;
    return {};
}

// The text again, with a volume in the place of the host's path.
std::string mount_again(const Fields& fields, const std::string& volume, const std::string& part) {
    std::string text = "type=volume,src=" + volume;
    if (!part.empty()) text += ",subpath=" + part;
    if (!fields.target.empty()) text += ",dst=" + (fields.target[0] == '/' ? "" : std::string("/")) + fields.target;
    for (const char* flag : {"ro", "noexec", "nosuid", "nodev"})
        if (fields.has(flag)) text += std::string(",") + flag;
    return "--mount " + base::shell_quote(text);
}

Result<> check_mount_target(const std::string& target) {
    if (target.empty()) return failure(Errc::kUsage, "it has no dst", "say where it is mounted in the box: dst=/TARGET");
    return check_target(target);
}

Result<std::uint64_t> parse_limit(const std::string& text) {
    const auto size = CAISSON_TRY_CTX(base::parse_size(text), "size");
    if (size == 0) return failure(Errc::kUsage, "size=0 would leave no room at all", "leave size out for no limit of its own");
    return size;
}

Result<MountOption> volume_of(const Fields& fields) {
    if (fields.has("mode") || fields.has("exec"))
        return failure(Errc::kUsage, std::string(fields.has("mode") ? "'mode'" : "'exec'") + " is for a tmpfs, and this is a volume",
                       "leave it out, or write type=tmpfs");
    if (fields.has("subpath") && fields.source.empty())
        return failure(Errc::kUsage, "subpath is a part of a volume that is there, and none is named", "add src=VOLUME");
    MountOption mount;
    mount.volume = fields.source;
    if (!mount.volume.empty()) {
        const auto slash = mount.volume.find('/');
        if (slash != std::string::npos)
            return failure(Errc::kUsage, "src=" + base::printable(mount.volume, 200) + " is not the name of a volume",
                           "write src=" + base::printable(mount.volume.substr(0, slash), 100) + ",subpath=" + base::printable(mount.volume.substr(slash + 1), 200));
        CAISSON_TRY(check_name(mount.volume));
    }
    mount.subpath = fields.subpath;
    if (fields.has("subpath")) CAISSON_TRY(check_subpath(mount.subpath));
    CAISSON_TRY(check_mount_target(fields.target));
    mount.target = fields.target;
    mount.read_only = fields.has("ro");
    mount.no_exec = fields.has("noexec");
    mount.no_suid = fields.has("nosuid");
    if (fields.has("size")) mount.size_bytes = CAISSON_TRY(parse_limit(fields.size));
    CAISSON_TRY(check_mount(mount));
    return mount;
}

Result<TmpfsOption> tmpfs_of(const Fields& fields) {
    for (const char* key : {"src", "subpath", "nocopy"})
        if (fields.has(key)) return failure(Errc::kUsage, shown(key) + " is for a volume, and this is a tmpfs", "leave it out, or write type=volume");
    if (fields.has("ro")) return failure(Errc::kUsage, "a tmpfs that cannot be written to stays empty", "leave ro out");
    if (fields.has("exec") && fields.has("noexec")) return failure(Errc::kUsage, "it cannot be both exec and noexec", "leave one of them out");
    TmpfsOption tmpfs;
    CAISSON_TRY(check_mount_target(fields.target));
    tmpfs.path = fields.target;
    tmpfs.executable = fields.has("exec");
    if (fields.has("size")) tmpfs.size_bytes = CAISSON_TRY(parse_limit(fields.size));
    if (!fields.has("mode")) return tmpfs;
    const auto& digits = fields.mode;
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), tmpfs.mode, 8);
    if (error != std::errc{} || end != digits.data() + digits.size() || tmpfs.mode > 07777)
        return failure(Errc::kUsage, "mode " + shown(digits) + " is not octal", "write it as mode=1777");
    return tmpfs;
}

Result<std::variant<MountOption, TmpfsOption>> parse_fields(std::string_view text, const std::string& option, const IsFile& is_file) {
    Fields fields;
    for (const auto& part : base::split(text, ',')) CAISSON_TRY(read_field(fields, part));
    const bool bind = fields.type == "bind";
    if ((bind || fields.type == "volume") && is_host_path(fields.source))
        return refuse_host_path({fields.source, option}, is_file, [&](const std::string& volume, const std::string& part) {
            return mount_again(fields, volume, part);
        });
    if (bind) return failure(Errc::kUsage, "type=bind would be a path of the host, and a box sees nothing of the host but volumes",
                             "write type=volume,src=VOLUME; to fill a volume: caisson volume import VOLUME PATH");
    if (fields.type == "volume") return CAISSON_TRY(volume_of(fields));
    if (fields.type == "tmpfs") return CAISSON_TRY(tmpfs_of(fields));
    return failure(Errc::kUsage, "there is no type " + shown(fields.type), "use type=volume or type=tmpfs");
}

// A zero byte would end the path early for the kernel, and not for us.
Result<> check_bytes(const std::string& option, std::string_view text) {
    if (text.empty()) return failure(Errc::kUsage, option + " is empty");
    if (text.find('\0') != std::string_view::npos) return failure(Errc::kUsage, option + " holds a zero byte");
    return {};
}

template <typename T>
Result<T> in_option(const std::string& option, Result<T> result) {
    // A refusal that shows the whole option names it already.
    if (result || starts_with(result.error().message, option)) return result;
    return base::failure(std::move(result).error().with_context(option));
}

}  // namespace

Result<MountOption> parse_volume(std::string_view text, const IsFile& is_file) {
    const auto option = "-v " + shown(text);
    CAISSON_TRY(check_bytes("-v", text));
    return in_option(option, parse_parts(base::split(text, ':'), option, is_file));
}

Result<std::variant<MountOption, TmpfsOption>> parse_mount(std::string_view text, const IsFile& is_file) {
    const auto option = "--mount " + shown(text);
    CAISSON_TRY(check_bytes("--mount", text));
    return in_option(option, parse_fields(text, option, is_file));
}

Result<CopyOption> parse_copy(std::string_view text) {
    const auto option = "--copy " + shown(text);
    CAISSON_TRY(check_bytes("--copy", text));
    const auto colon = text.rfind(":/");
    if (colon == std::string_view::npos) {
        const bool relative = text.find(':') != std::string_view::npos;
        return failure(Errc::kUsage, option + (relative ? ": the path in the box is relative" : ": it names no path in the box"), "write --copy HOST:/TARGET");
    }
    CopyOption copy{std::string(text.substr(0, colon)), std::string(text.substr(colon + 1)), {}};
    if (copy.source.empty()) return failure(Errc::kUsage, option + ": it names no path of the host", "write --copy HOST:/TARGET");
    if (copy.source == "-")
        return failure(Errc::kUsage, option + ": standard input is the command's", "write ./- for a file of that name; for an archive: caisson cp - BOX:/TARGET");
    CAISSON_TRY_CTX(check_copy_target(copy.target), option);
    return copy;
}

Result<> check_mount(const MountOption& mount) {
    if (!mount.volume.empty() && !mount.host_path.empty())
        return failure(Errc::kUsage, "a mount names the volume '" + base::printable(mount.volume, 100) + "' and the path " + shown(mount.host_path), "give one of them");
    if (mount.host_path.find('\0') != std::string::npos) return failure(Errc::kUsage, "the path of a volume holds a zero byte");
    const bool anonymous = mount.volume.empty() && mount.host_path.empty();
    if (!mount.volume.empty()) CAISSON_TRY(check_name(mount.volume));
    if (!mount.subpath.empty() && anonymous)
        return failure(Errc::kUsage, "the part " + shown(mount.subpath) + " is of no volume", "name the volume that it is in");
    if (!mount.subpath.empty()) CAISSON_TRY(check_subpath(mount.subpath));
    return check_target(mount.target);
}

Result<> check_copy_target(std::string_view path) {
    if (path.empty() || path[0] != '/') return failure(Errc::kUsage, "the path in the box is relative: " + shown(path), "give the whole path, beginning with /");
    if (path.size() > kMaxPathBytes || path.find('\0') != std::string_view::npos) return failure(Errc::kUsage, "the path in the box is no path: " + shown(path));
    for (const auto& part : base::split(path, '/'))
        if (part == "..") return failure(Errc::kUsage, "the path in the box has a part '..': " + shown(path), "write it without");
    return {};
}

}  // namespace caisson::volume
