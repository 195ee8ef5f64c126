// Store::save(): images leave the store as an OCI archive, an OCI image layout in a tar (POSIX ustar).
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/text.h"
#include "image/layout.h"
#include "image/name.h"
#include "image/registry/client.h"
#include "image/store.h"

namespace caisson::image {

using base::failure;
using base::failure_errno;

namespace {

constexpr std::size_t kBlock = 512;
constexpr std::size_t kCopyBytes = 1 << 20;

class TarWriter {
  public:
    explicit TarWriter(int fd) : fd_(fd) {}

    Result<> directory(const std::string& name) { return header(name + "/", '5', 0, 0755); }
    Result<> text(const std::string& name, std::string_view content) {
        CAISSON_TRY(header(name, '0', content.size(), 0644));
        CAISSON_TRY(os::write_all(fd_, content));
        return pad(content.size());
    }
    // `size` bytes of `source`, whose digest must be `digest`.
    Result<> blob(const std::string& name, int source, std::uint64_t size, const std::string& digest,
                  const std::function<void(std::uint64_t)>& progress) {
        CAISSON_TRY(header(name, '0', size, 0644));
        base::Bytes buffer(kCopyBytes);
        base::Sha256 hash;
        std::uint64_t done = 0;
        while (done < size) {
            ssize_t got = ::read(source, buffer.data(), static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), size - done)));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return failure_errno("cannot read the image store");
            if (got == 0) break;
            base::ByteView part{buffer.data(), static_cast<std::size_t>(got)};
            hash.update(part);
            CAISSON_TRY(os::write_all(fd_, part));
            done += part.size();
            progress(part.size());
        }
        if (done != size || "sha256:" + hash.finish_hex() != digest)
            return failure(Errc::kCorrupt, "the image store's blob " + digest + " is damaged; the archive is not complete", "remove the image and pull or load it again");
        return pad(size);
    }
    Result<> finish() { return os::write_all(fd_, std::string(2 * kBlock, '\0')); }

  private:
    Result<> header(const std::string& name, char type, std::uint64_t size, unsigned mode) {
        std::string block(kBlock, '\0');
        auto put = [&](std::size_t at, const std::string& text) { block.replace(at, text.size(), text); };
        auto octal = [](std::uint64_t value, std::size_t digits) {
            std::string text(digits, '0');
            for (std::size_t i = digits; i-- > 0; value >>= 3) text[i] = static_cast<char>('0' + (value & 7));
            return text;
        };
        put(0, name);  // ours are short
        put(100, octal(mode, 7));
        put(108, octal(0, 7));
        put(116, octal(0, 7));
        if (size >> 33 == 0) {
            put(124, octal(size, 11));
        } else {  // beyond eleven octal digits: GNU's binary form, which everybody reads
            block[124] = static_cast<char>(0x80);
            for (std::size_t i = 0; i < 8; ++i) block[135 - i] = static_cast<char>(size >> (8 * i) & 255);
        }
        put(136, octal(0, 11));
        put(148, std::string(8, ' '));
        block[156] = type;
        put(257, std::string("ustar\0" "00", 8));
        unsigned sum = 0;
        for (char c : block) sum += static_cast<unsigned char>(c);
        put(148, octal(sum, 6) + std::string("\0 ", 2));
        return os::write_all(fd_, block);
    }
    Result<> pad(std::uint64_t size) { return os::write_all(fd_, std::string((kBlock - size % kBlock) % kBlock, '\0')); }

    int fd_;
};

}  // namespace

Result<> Store::save(const std::vector<std::string>& names, int fd, const ProgressCallback& progress) const {
    Layout layout{options_.images_directory};
    auto stored = CAISSON_TRY(read_index(layout));
    Index index;
    std::map<std::string, std::pair<os::Fd, std::uint64_t>> blobs;  // opened before a byte is written: nobody can remove them then
    std::uint64_t total = 0;
    for (const auto& name : names) {
        auto image = CAISSON_TRY(find(name));
        auto stored_entry = std::find_if(stored.manifests.begin(), stored.manifests.end(), [&](const Descriptor& entry) {
            return entry.digest == image.manifest_digest && entry_name(entry) == image.name;
        });
        if (stored_entry == stored.manifests.end())
            return failure(Errc::kNotFound, "image " + base::printable(image.name, 300) + " has just been replaced", "repeat the command");
        Descriptor entry{stored_entry->media_type, stored_entry->digest, stored_entry->size};
        entry.os = image.config.os;
        entry.architecture = image.config.architecture;
        entry.annotations[std::string(kAnnotationRefName)] = image.name;
        auto reference = CAISSON_TRY(parse_reference(image.name));
        auto place = registry::place_of(reference);
        entry.annotations[std::string(kAnnotationContainerdName)] =
            place.registry + "/" + place.repository + (reference.tag.empty() ? "@" + reference.digest : ":" + reference.tag);
        std::erase_if(index.manifests, [&](const Descriptor& other) { return entry_name(other) == image.name; });
        index.manifests.push_back(std::move(entry));
        std::vector<std::string> digests{image.manifest_digest, image.config_digest};
        for (const auto& layer : image.layers) digests.push_back(layer.digest);
        for (const auto& digest : digests) {
            auto hex = CAISSON_TRY(digest_hex(digest));
            if (blobs.contains(hex)) continue;
            auto blob = CAISSON_TRY(os::open_file(layout.blob(hex), O_RDONLY));
            struct stat info {};
            if (::fstat(blob.get(), &info) != 0) return failure_errno("cannot look at " + layout.blob(hex));
            total += static_cast<std::uint64_t>(info.st_size);
            blobs.emplace(hex, std::pair(std::move(blob), static_cast<std::uint64_t>(info.st_size)));
        }
    }
    TarWriter tar(fd);
    CAISSON_TRY(tar.text("oci-layout", R"({"imageLayoutVersion":"1.0.0"})"));
    CAISSON_TRY(tar.text("index.json", write_index(index)));
    CAISSON_TRY(tar.directory("blobs"));
    CAISSON_TRY(tar.directory("blobs/sha256"));
    std::uint64_t done = 0;
    for (const auto& [hex, blob] : blobs)
        CAISSON_TRY(tar.blob("blobs/sha256/" + hex, blob.first.get(), blob.second, "sha256:" + hex, [&](std::uint64_t more) {
            done += more;
            if (progress) progress({"saving", done, total});
        }));
    return tar.finish();
}

}  // namespace caisson::image
