#include "image/check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/text.h"
#include "image/disks.h"
#include "image/layout.h"
#include "image/limits.h"
#include "os/file.h"

namespace caisson::image {

using store::Aside;
using store::object_of;
using store::Trouble;
using store::Troubles;

namespace {

constexpr const char* kGetAgain = "; get it again with caisson image pull or caisson image load";

Result<std::string> hash_file(const std::string& path) {
    auto file = CAISSON_TRY(os::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    std::vector<std::uint8_t> buffer(1 << 20);
    base::Sha256 hash;
    for (;;) {
        const auto got = ::read(file.get(), buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return base::failure_errno("cannot read " + path);
        if (got == 0) return "sha256:" + hash.finish_hex();
        hash.update({buffer.data(), static_cast<std::size_t>(got)});
    }
}

class Checker {
  public:
    Checker(const CheckRequest& request, CheckCounts& counts) : request_(request), layout_{request.images_directory}, counts_(counts) {}

    Troubles check() {
        check_index();
        check_unfinished();
        check_names();
        check_disks();
        store::find_unfinished(request_.home, layout_.directory, found_);
        store::find_unfinished(request_.home, layout_.downloads(), found_);
        return std::move(found_);
    }

  private:
    std::string object(const std::string& path) const { return object_of(request_.home, path); }

    void check_index() {
        auto index = read_index(layout_);
        if (!index) {
            auto damaged = store::error("image_index_damaged", object(layout_.index()), "the list of images cannot be read: " + index.error().to_string(),
                                        "moves the list and all blobs aside, so that images can be pulled and loaded again");
            damaged.mend = [layout = layout_](Aside& aside) -> Result<std::string> {
                auto lock = CAISSON_TRY(os::FileLock::acquire(layout.lock()));
                if (read_index(layout)) return std::string("somebody has mended it meanwhile");
                CAISSON_TRY(aside.take(layout.blobs()));
                CAISSON_TRY(aside.take(layout.index()));
                CAISSON_TRY(os::make_directories(layout.blobs(), 0700));
                return std::string("moved the list and all blobs aside");
            };
            found_.push_back(std::move(damaged));
            return;
        }
        for (const auto& entry : index->manifests) check_image(entry);
    }

    void check_image(const Descriptor& entry) {
        ++counts_.images;
        const auto name = "image " + entry_name(entry);
        auto image = read_image(layout_, entry);
        if (!image) {
            add_broken("image_damaged", name, "its description cannot be read: " + image.error().to_string(), entry, {});
            return;
        }
        for (const auto& layer : image->layers) {
            const auto& flaw = check_blob(layer.digest, layer.size_bytes);
            if (flaw.what.empty()) continue;
            add_broken("image_layer_damaged", name, flaw.what, entry, layer.digest);
            found_.back().passing = !flaw.by_content;  // contents are read once
        }
    }

    struct Flaw {
        std::string what;  // empty: there is none
        bool by_content = false;
    };

    const Flaw& check_blob(const std::string& digest, std::uint64_t size) {
        const auto [known, first] = blobs_.try_emplace(digest);
        if (first) {
            ++counts_.blobs;
            known->second = look_at_blob(digest, size);
        }
        return known->second;
    }

    Flaw look_at_blob(const std::string& digest, std::uint64_t size) const {
        auto hex = digest_hex(digest);
        if (!hex) return {hex.error().to_string()};
        const auto path = layout_.blob(*hex);
        const auto layer = "its layer " + object(path);
        struct stat info {};
        if (::lstat(path.c_str(), &info) != 0) return {layer + " is missing"};
        if (!S_ISREG(info.st_mode)) return {layer + " is no file"};
        if (static_cast<std::uint64_t>(info.st_size) != size)
            return {layer + " has " + std::to_string(info.st_size) + " bytes and should have " + std::to_string(size)};
        if (!request_.deep) return {};
        auto hash = hash_file(path);
        if (!hash) return {hash.error().to_string(), true};
        if (*hash != digest) return {layer + " holds something else than its digest says", true};
        return {};
    }

    // An image that cannot be used as a whole loses its name; what of it is good stays until garbage is collected.
    void add_broken(const char* code, const std::string& name, const std::string& what, const Descriptor& entry, const std::string& digest) {
        auto broken = store::error(code, name, what, "takes the name away, and moves what is damaged aside" + std::string(kGetAgain));
        broken.mend = [layout = layout_, entry, digest, deep = request_.deep](Aside& aside) -> Result<std::string> {
            auto lock = CAISSON_TRY(os::FileLock::acquire(layout.lock()));
            auto index = CAISSON_TRY(read_index(layout));
            auto image = read_image(layout, entry);
            for (const auto& blob : image && !digest.empty() ? std::vector<std::string>{digest} : json_blobs(layout, entry)) {
                const auto path = layout.blob(CAISSON_TRY(digest_hex(blob)));
                auto hash = hash_file(path);
                if (!hash || *hash != blob) CAISSON_TRY(aside.take(path));
            }
            CAISSON_TRY(aside.keep_copy(layout.index()));
            std::erase_if(index.manifests, [&](const Descriptor& one) { return entry_name(one) == entry_name(entry) && one.digest == entry.digest; });
            CAISSON_TRY(os::write_file_atomic(layout.index(), write_index(index), 0644));
            return "took the name away; it was " + entry.digest;
        };
        found_.push_back(std::move(broken));
    }

    static std::vector<std::string> json_blobs(const Layout& layout, const Descriptor& entry) {
        std::vector<std::string> blobs{entry.digest};
        if (auto text = read_json_blob(layout, entry.digest))
            if (auto manifest = parse_manifest(*text)) blobs.push_back(manifest->config.digest);
        return blobs;
    }

    void check_unfinished() {
        for (const auto& name : os::list_directory(layout_.temporary()).value_or(std::vector<std::string>())) {
            const auto path = layout_.temporary() + "/" + name;
            if (store::is_held(path + "/lock")) continue;
            auto left = store::warning("unfinished_import", object(path), "what a process that died began to bring into the image store", "removes it");
            left.mend = [layout = layout_](Aside&) -> Result<std::string> {
                CAISSON_TRY(sweep_temporary(layout));
                return std::string("removed");
            };
            found_.push_back(std::move(left));
        }
    }

    // Blobs are found by their names.
    void check_names() {
        for (const auto& name : os::list_directory(layout_.blobs()).value_or(std::vector<std::string>())) {
            const auto path = layout_.blob(name);
            struct stat info {};
            if (::lstat(path.c_str(), &info) != 0 || (name.size() == 64 && is_hex(name) && S_ISREG(info.st_mode))) continue;
            auto odd = store::warning("blob_unknown", object(path), "is no blob, but lies among them", "moves it aside");
            odd.mend = [path](Aside& aside) -> Result<std::string> {
                CAISSON_TRY(aside.take(path));
                return std::string("moved aside");
            };
            found_.push_back(std::move(odd));
        }
    }

    void check_disks() {
        const auto& directory = request_.disks_directory;
        for (const auto& name : os::list_directory(directory).value_or(std::vector<std::string>())) {
            const auto path = directory + "/" + name;
            const auto parts = parse_disk_name(name);
            if (!parts) {
                add_odd_disk(path);
            } else if (parts->unfinished) {
                if (store::is_held(parts->lock_of(directory))) continue;
                auto left = store::warning("unfinished_disk", object(path), "the root disk that a process that died began to make", "removes it");
                left.mend = [path, lock_path = parts->lock_of(directory)](Aside&) -> Result<std::string> {
                    auto lock = CAISSON_TRY(os::FileLock::try_acquire(lock_path));
                    CAISSON_TRY(os::remove_tree(path));
                    return std::string("removed");
                };
                found_.push_back(std::move(left));
            } else if (!parts->lock) {
                ++counts_.disks;
                if (auto what = flaw_of_base_disk(path, parts->bytes); !what.empty()) add_bad_disk(path, what);
            }
        }
    }

    void add_odd_disk(const std::string& path) {
        auto odd = store::warning("base_disk_unknown", object(path), "is no root disk, but lies among them", "moves it aside");
        odd.mend = [path](Aside& aside) -> Result<std::string> {
            CAISSON_TRY(aside.take(path));
            return std::string("moved aside");
        };
        found_.push_back(std::move(odd));
    }

    void add_bad_disk(const std::string& path, const std::string& what) {
        auto bad = store::error("base_disk_damaged", object(path), what, "moves it aside; it is made again when a box needs it");
        bad.mend = [path](Aside& aside) -> Result<std::string> {
            CAISSON_TRY(aside.take(path));
            return std::string("moved aside");
        };
        found_.push_back(std::move(bad));
    }

    const CheckRequest& request_;
    Layout layout_;
    CheckCounts& counts_;
    std::map<std::string, Flaw> blobs_;  // by digest
    Troubles found_;
};

}  // namespace

store::Troubles check_images(const CheckRequest& request, CheckCounts& counts) {
    counts = {};
    return Checker(request, counts).check();
}

}  // namespace caisson::image
