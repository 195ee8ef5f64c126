#include "vmm/check.h"

#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "os/file.h"
#include "vmm/template.h"

namespace caisson::vmm {

using store::object_of;
using store::Trouble;

namespace {

// Why it is not what was sealed when it was made; empty: it is.
std::string flaw_of_file(const std::string& path, const char* name, std::uint64_t size) {
    struct stat info {};
    if (::lstat((path + "/" + name).c_str(), &info) != 0) return std::string("its ") + name + " is missing";
    if (!S_ISREG(info.st_mode) || info.st_nlink != 1 || info.st_uid != ::geteuid()) return std::string("its ") + name + " is not the file that was made for it";
    if ((info.st_mode & 0222) != 0) return std::string("its ") + name + " can be written to";
    if (info.st_size == 0 || (size != 0 && static_cast<std::uint64_t>(info.st_size) != size)) return std::string("its ") + name + " is not complete";
    return {};
}

std::string flaw_of_template(const std::string& path) {
    auto text = os::read_file(path + "/info.json", 1 << 16);
    if (!text) return "its description cannot be read: " + text.error().to_string();
    const auto document = nlohmann::json::parse(*text, nullptr, false);
    const auto memory = document.is_object() ? document.find("memory_mib") : document.end();
    const auto image = document.is_object() ? document.find("image") : document.end();
    if (!document.is_object() || memory == document.end() || !memory->is_number_unsigned() || image == document.end() || !image->is_string())
        return "its description is damaged";
    if (auto what = flaw_of_file(path, "mem", memory->get<std::uint64_t>() << 20); !what.empty()) return what;
    for (const char* name : {"state", "initramfs"})
        if (auto what = flaw_of_file(path, name, 0); !what.empty()) return what;
    return image->get<std::string>().empty() ? "" : flaw_of_file(path, "disk.qcow2", 0);
}

// Under the template's lock, which its makers hold.
void removable(Trouble& trouble, const std::string& path, const std::string& lock_path) {
    trouble.mend = [path, lock_path](store::Aside&) -> Result<std::string> {
        auto lock = CAISSON_TRY(os::FileLock::try_acquire(lock_path));
        CAISSON_TRY(os::remove_tree(path));
        return std::string("removed");
    };
}

}  // namespace

store::Troubles check_templates(const std::string& home, const std::string& templates, std::size_t& count) {
    store::Troubles found;
    count = 0;
    store::find_unfinished(home, templates, found);
    for (const auto& name : os::list_directory(templates).value_or(std::vector<std::string>())) {
        const auto path = templates + "/" + name;
        const auto unfinished = key_of_unfinished(name);
        const bool is_new = unfinished.has_value(), is_old = base::starts_with(name, ".old-");
        const auto key = is_new ? *unfinished : is_old ? name.substr(5) : name;
        const auto lock_path = templates + "/" + key + ".lock";
        if (is_new || is_old) {
            if (store::is_held(lock_path)) continue;
            auto left = store::warning("unfinished_template", object_of(home, path),
                                       std::string("the template that a process that died began to ") + (is_new ? "make" : "remove"), "removes it");
            removable(left, path, lock_path);
            found.push_back(std::move(left));
            continue;
        }
        if (!is_template_key(name)) continue;
        ++count;
        store::check_mode(home, path, true, "template_mode", found);
        const auto what = flaw_of_template(path);
        if (what.empty()) continue;
        auto bad = store::error("template_damaged", object_of(home, path), what, "removes it; it is made again when a box needs it");
        removable(bad, path, lock_path);
        found.push_back(std::move(bad));
    }
    return found;
}

}  // namespace caisson::vmm
