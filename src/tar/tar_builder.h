// Tar archives made by hand, for tests: what ordinary tools never write can be written here.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace caisson::tar {

struct TarEntry {
    std::string name;
    char type = '0';  // '0' file, '1' hard link, '2' symlink, '3' character, '4' block, '5' directory, '6' fifo
    std::string data = {};
    std::string link = {};
    unsigned mode = 0644;
    unsigned uid = 0;
    unsigned gid = 0;
    long long mtime = 1'600'000'000;
    unsigned major = 0;
    unsigned minor = 0;
    std::vector<std::pair<std::string, std::string>> pax = {};  // records of its own, before the usual ones
    long long claimed_size = -1;                                // another size than data's
};

class TarBuilder {
  public:
    TarBuilder& add(const TarEntry& entry) {
        std::vector<std::pair<std::string, std::string>> records = entry.pax;
        if (entry.name.size() > 100) records.emplace_back("path", entry.name);
        if (entry.link.size() > 100) records.emplace_back("linkpath", entry.link);
        if (!records.empty()) {
            std::string body;
            for (const auto& [key, value] : records) body += pax_record(key, value);
            put_header({.name = "PaxHeaders/x", .type = 'x'}, static_cast<long long>(body.size()));
            put_padded(body);
        }
        bool has_data = entry.type == '0' || entry.type == 'S';
        long long size = entry.claimed_size >= 0 ? entry.claimed_size
                         : has_data              ? static_cast<long long>(entry.data.size())
                                                 : 0;
        put_header(entry, size);
        if (has_data) put_padded(entry.data);
        return *this;
    }
    TarBuilder& file(const std::string& name, const std::string& data = "") { return add({.name = name, .data = data}); }
    TarBuilder& directory(const std::string& name, unsigned mode = 0755) {
        return add({.name = name + "/", .type = '5', .mode = mode});
    }
    TarBuilder& symlink(const std::string& name, const std::string& target) {
        return add({.name = name, .type = '2', .link = target, .mode = 0777});
    }
    TarBuilder& hard_link(const std::string& name, const std::string& target) {
        return add({.name = name, .type = '1', .link = target});
    }
    TarBuilder& raw(const std::string& bytes) {
        bytes_ += bytes;
        return *this;
    }
    std::string finish() const { return bytes_ + std::string(1024, '\0'); }

  private:
    static std::string pax_record(const std::string& key, const std::string& value) {
        std::string body = " " + key + "=" + value + "\n";
        std::size_t size = body.size() + 1;
        while (std::to_string(size).size() + body.size() != size) size = std::to_string(size).size() + body.size();
        return std::to_string(size) + body;
    }
    static void put_number(char* field, std::size_t width, unsigned long long value) {
        // Octal digits before a zero byte; higher ones that have no room are left away.
        for (std::size_t i = width - 1; i-- > 0; value >>= 3) field[i] = static_cast<char>('0' + (value & 7));
    }
    void put_header(const TarEntry& entry, long long size) {
        char block[512] = {};
        std::memcpy(block, entry.name.data(), std::min<std::size_t>(entry.name.size(), 100));
        put_number(block + 100, 8, entry.mode);
        put_number(block + 108, 8, entry.uid);
        put_number(block + 116, 8, entry.gid);
        put_number(block + 124, 12, static_cast<unsigned long long>(size));
        put_number(block + 136, 12, static_cast<unsigned long long>(entry.mtime));
        std::memset(block + 148, ' ', 8);
        block[156] = entry.type;
        std::memcpy(block + 157, entry.link.data(), std::min<std::size_t>(entry.link.size(), 100));
        std::memcpy(block + 257, "ustar\00000", 8);
        put_number(block + 329, 8, entry.major);
        put_number(block + 337, 8, entry.minor);
        unsigned sum = 0;
        for (char c : block) sum += static_cast<unsigned char>(c);
        std::snprintf(block + 148, 8, "%06o", sum);
        bytes_.append(block, sizeof block);
    }
    void put_padded(const std::string& data) {
        bytes_ += data;
        bytes_.append((512 - data.size() % 512) % 512, '\0');
    }
    std::string bytes_;
};

}  // namespace caisson::tar
