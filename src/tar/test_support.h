// What the tests of this room share.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "os/file.h"
#include "tar/extract.h"
#include "tar/pack.h"
#include "tar/reader.h"
#include "tar/writer.h"

namespace caisson::tar {

// Hands out a text in pieces of at most `piece` bytes.
inline Source source_of(std::string text, std::size_t piece = 1 << 20) {
    return [text = std::move(text), at = std::size_t{0}, piece](std::span<std::uint8_t> buffer) mutable -> Result<std::size_t> {
        auto count = std::min({text.size() - at, buffer.size(), piece});
        std::memcpy(buffer.data(), text.data() + at, count);
        at += count;
        return count;
    };
}

inline Sink sink_to(std::string& text) {
    return [&text](base::ByteView bytes) -> Result<> {
        text += base::as_text(bytes);
        return {};
    };
}

struct Stored {
    Entry entry;
    std::string data;  // holes filled with zeros
};

inline Result<std::vector<Stored>> read_all(const std::string& archive, std::size_t piece = 1 << 20) {
    Reader reader(source_of(archive, piece));
    std::vector<Stored> all;
    Stored stored;
    while (CAISSON_TRY(reader.next(stored.entry))) {
        stored.data.clear();
        if (stored.entry.kind == Kind::kFile && stored.entry.size <= 1 << 24) {
            stored.data.resize(static_cast<std::size_t>(stored.entry.size));
            CAISSON_TRY(reader.read_data(stored.entry, [&](std::uint64_t offset, base::ByteView bytes) -> Result<> {
                stored.data.replace(static_cast<std::size_t>(offset), bytes.size(), base::as_text(bytes));
                return {};
            }));
        }
        all.push_back(std::exchange(stored, {}));
    }
    CAISSON_TRY(reader.drain());
    return all;
}

// A directory of its own for each test, with umask 0 as extract() wants it.
class TarFiles : public testing::Test {
  protected:
    TarFiles() : umask_(::umask(0)) {
        auto made = os::TemporaryDirectory::create("/var/tmp", "caisson-tar-test-");
        if (made) place_.emplace(std::move(*made));
    }
    ~TarFiles() override { ::umask(umask_); }

    std::string path(const std::string& name = "") const { return place_->path() + (name.empty() ? "" : "/" + name); }
    void write(const std::string& name, const std::string& text) const { ASSERT_TRUE(os::write_file_atomic(path(name), text, 0644)); }
    void make_directory(const std::string& name) const { ASSERT_TRUE(os::make_directories(path(name), 0755)); }
    std::string content(const std::string& name) const {
        auto text = os::read_file(path(name), 1 << 24);
        return text ? *text : "<" + text.error().to_string() + ">";
    }
    struct stat look(const std::string& name) const {
        struct stat info {};
        EXPECT_EQ(::lstat(path(name).c_str(), &info), 0) << name;
        return info;
    }
    bool there(const std::string& name) const {
        struct stat info {};
        return ::lstat(path(name).c_str(), &info) == 0;
    }
    std::string link_text(const std::string& name) const {
        char text[4096];
        ssize_t size = ::readlink(path(name).c_str(), text, sizeof text);
        return size < 0 ? std::string("<none>") : std::string(text, static_cast<std::size_t>(size));
    }

    Result<std::string> packed(const std::string& name, bool follow = false) {
        auto origin = CAISSON_TRY(open_origin(path(name), follow));
        std::string archive;
        CAISSON_TRY(pack(origin, sink_to(archive), notice()));
        return archive;
    }
    Result<> unpacked(const std::string& archive, const std::string& name, const ExtractOptions& options = {}) {
        auto destination = CAISSON_TRY(open_destination(path(name), options.follow_links));
        return extract(source_of(archive), destination, options, notice());
    }
    Notice notice() {
        return [this](const std::string& text) { notices_.push_back(text); };
    }

    std::vector<std::string> notices_;

  private:
    mode_t umask_;
    std::optional<os::TemporaryDirectory> place_;
};

}  // namespace caisson::tar
