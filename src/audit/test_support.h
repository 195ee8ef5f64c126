// A directory for the journals of a test, and chains to put into it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <optional>

#include "audit/chain.h"
#include "os/file.h"

namespace caisson::audit {

class JournalTest : public testing::Test {
  protected:
    JournalTest() {
        auto made = os::TemporaryDirectory::create("/var/tmp", "caisson-audit-test-");
        if (made) place_.emplace(std::move(*made));
    }
    std::string path(const std::string& name = "chain") const { return place_->path() + "/" + name; }
    std::string file(std::uint64_t first = 1) const { return path() + "/" + file_name(first); }
    std::string text(std::uint64_t first = 1) const { return os::read_file(file(first)).value_or(""); }
    // Not durably: some tests do it a thousand times.
    void put(const std::string& content, std::uint64_t first = 1) const {
        auto fd = os::open_file(file(first), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        EXPECT_TRUE(fd && os::write_all(fd->get(), content));
    }

    static Result<Head> nothing() { return Head(); }
    // Entries "n0", "n1", ... by a writer of its own. Returns the head.
    Head fill(int count, ChainLimits limits = {}, const Head& acknowledged = {}) const {
        auto writer = Writer::open(path(), limits);
        Head head;
        for (int i = 0; i < count; ++i) {
            auto appended = writer->append({"n" + std::to_string(i)}, {1, 2, "test"}, 1777636800000 + i, [&]() -> Result<Head> { return acknowledged; });
            EXPECT_TRUE(appended.has_value());
            if (appended) head = *appended;
        }
        return head;
    }
    std::vector<Entry> entries() const {
        Cursor cursor(path());
        std::vector<Entry> all;
        for (;;) {
            auto entry = cursor.next();
            EXPECT_TRUE(entry.has_value());
            if (!entry || !*entry) return all;
            all.push_back(std::move(**entry));
        }
    }

  private:
    std::optional<os::TemporaryDirectory> place_;
};

}  // namespace caisson::audit
