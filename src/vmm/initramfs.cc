#include "vmm/initramfs.h"

#include <sys/stat.h>

#include <cstdio>

#include "base/text.h"
#include "os/file.h"

namespace caisson::vmm {

namespace {
constexpr std::size_t kPage = 4096;

void append_record(std::string& out, std::uint32_t inode, const CpioEntry& entry) {
    char header[128];
    int length = std::snprintf(header, sizeof header, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
                               inode, entry.mode, 0u, 0u, 1u, 0u, static_cast<unsigned>(entry.content.size()), 0u, 0u,
                               entry.device_major, entry.device_minor, static_cast<unsigned>(entry.name.size() + 1), 0u);
    CAISSON_CHECK(length == 110);
    out.append(header, 110);
    out.append(entry.name.c_str(), entry.name.size() + 1);
    out.resize((out.size() + 3) & ~std::size_t{3});
    out += entry.content;
    out.resize((out.size() + 3) & ~std::size_t{3});
}
}  // namespace

std::string make_cpio(const std::vector<CpioEntry>& entries) {
    std::string out;
    std::uint32_t inode = 1;
    for (const auto& entry : entries) append_record(out, inode++, entry);
    append_record(out, 0, {"TRAILER!!!", 0, ""});
    return out;
}

std::string fit_below_acpi_tables(std::string archive) {
    archive.resize((archive.size() + kPage - 1) / kPage * kPage + 4);
    return archive;
}

Result<std::string> make_initramfs(const Assets& assets) {
    constexpr std::size_t kMaxFile = 64 << 20;
    std::vector<CpioEntry> entries;
    entries.push_back({"dev", S_IFDIR | 0755, ""});
    // The kernel opens /dev/console for PID 1 before anything is mounted.
    entries.push_back({"dev/console", S_IFCHR | 0600, "", 5, 1});
    entries.push_back({"modules", S_IFDIR | 0755, ""});
    auto list = CAISSON_TRY(os::read_file(assets.modules_list, 1 << 16));
    for (const auto& line : base::split(list, '\n')) {
        std::string name(base::trim(line));
        if (name.empty()) continue;
        entries.push_back({"modules/" + name, S_IFREG | 0644,
                           CAISSON_TRY(os::read_file(assets.modules + "/" + name, kMaxFile))});
    }
    entries.push_back({"modules/modules.list", S_IFREG | 0644, list});
    entries.push_back({"init", S_IFREG | 0755, CAISSON_TRY(os::read_file(assets.agent, kMaxFile))});
    return fit_below_acpi_tables(make_cpio(entries));
}

}  // namespace caisson::vmm
