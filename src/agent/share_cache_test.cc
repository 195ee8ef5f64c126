// Which requests the agent answers by itself, and what it tells the server of those.
#include "agent/share_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "wire/listing.h"

namespace caisson::agent {
namespace {

template <typename T>
void append(base::Bytes& bytes, const T& value) {
    base::append(bytes, base::bytes_of(value));
}

void append_text(base::Bytes& bytes, std::string_view text) { bytes.insert(bytes.end(), text.begin(), text.end()); }

class ShareCacheTest : public ::testing::Test {
  protected:
    static constexpr std::uint64_t kTop = 2, kFile = 3, kUnique = 900, kHandle = 9;

    static base::Bytes request(std::uint32_t operation, std::uint64_t node, const base::Bytes& arguments = {}) {
        fuse_in_header header{};
        header.len = static_cast<std::uint32_t>(sizeof header + arguments.size());
        header.opcode = operation;
        header.unique = kUnique;
        header.nodeid = node;
        base::Bytes message;
        append(message, header);
        message.insert(message.end(), arguments.begin(), arguments.end());
        return message;
    }
    static base::Bytes name(std::string_view text) {
        base::Bytes bytes;
        append_text(bytes, text);
        bytes.push_back(0);
        return bytes;
    }
    static wire::ShareFile file(std::uint64_t node, std::uint32_t flags = 0, std::uint64_t size = 0) {
        wire::ShareFile told{};
        told.node = node;
        told.flags = flags;
        told.attributes.size = size;
        return told;
    }
    void tell(wire::ShareNews news, const base::Bytes& data = {}) {
        fuse_out_header header{};
        header.error = static_cast<std::int32_t>(news);
        header.len = static_cast<std::uint32_t>(sizeof header + data.size());
        base::Bytes message;
        append(message, header);
        message.insert(message.end(), data.begin(), data.end());
        EXPECT_FALSE(cache_.is_for_kernel(message, now_));
    }
    void tell_name(std::uint64_t parent, std::string_view text, const wire::ShareFile& told) {
        base::Bytes data;
        append(data, wire::ShareName{parent});
        append(data, told);
        append_text(data, text);
        tell(wire::ShareNews::kName, data);
    }
    void tell_of(wire::ShareNews news, std::uint64_t parent, std::string_view text) {
        base::Bytes data;
        append(data, wire::ShareName{parent});
        append_text(data, text);
        tell(news, data);
    }
    void tell_file(const wire::ShareFile& told) {
        base::Bytes data;
        append(data, told);
        tell(wire::ShareNews::kFile, data);
    }
    // A listing from its beginning to its end, and what is asked for with its handle.
    void tell_listing(const base::Bytes& entries = {}) {
        base::Bytes data;
        append(data, wire::ShareListed{kHandle, 0, 1, wire::ShareListed::kPlus | wire::ShareListed::kEnd, 0});
        base::append(data, entries);
        tell(wire::ShareNews::kListed, data);
    }
    template <typename T>
    static base::Bytes of_listing() {
        T in{};
        in.fh = kHandle;
        if constexpr (std::is_same_v<T, fuse_read_in>) in.size = 4096;
        base::Bytes bytes;
        append(bytes, in);
        return bytes;
    }
    // What is asked; answer_ and sent_ say what became of it.
    ShareCache::Way ask(std::uint32_t operation, std::uint64_t node, const base::Bytes& arguments = {}) {
        sent_ = request(operation, node, arguments);
        answer_.clear();
        return cache_.request(sent_, answer_, now_);
    }
    bool is_answered(std::uint32_t operation, std::uint64_t node, const base::Bytes& arguments = {}) {
        return !ask(operation, node, arguments).forward;
    }
    int error() const { return answer_.empty() ? -1 : -head<fuse_out_header>().error; }
    template <typename T>
    T head() const {
        T value{};
        if (answer_.size() >= sizeof value) std::memcpy(&value, answer_.data(), sizeof value);
        return value;
    }
    template <typename T>
    T body() const {
        T value{};
        EXPECT_GE(answer_.size(), sizeof(fuse_out_header) + sizeof value);
        if (answer_.size() >= sizeof(fuse_out_header) + sizeof value) std::memcpy(&value, answer_.data() + sizeof(fuse_out_header), sizeof value);
        return value;
    }
    std::uint64_t forgotten() const {
        fuse_forget_in in{};
        std::memcpy(&in, sent_.data() + sizeof(fuse_in_header), sizeof in);
        return in.nlookup;
    }
    static base::Bytes forget(std::uint64_t lookups) {
        base::Bytes bytes;
        append(bytes, fuse_forget_in{lookups});
        return bytes;
    }
    static base::Bytes attribute(std::uint32_t size, std::string_view text) {
        base::Bytes bytes;
        append(bytes, fuse_getxattr_in{size, 0});
        append_text(bytes, text);
        bytes.push_back(0);
        return bytes;
    }

    ShareCache cache_;
    ShareCache::Clock::time_point now_ = ShareCache::Clock::now();
    base::Bytes sent_, answer_;
};

TEST_F(ShareCacheTest, WhatNobodyToldGoesToTheServer) {
    for (std::uint32_t operation : {FUSE_LOOKUP, FUSE_GETATTR, FUSE_GETXATTR, FUSE_CREATE, FUSE_WRITE, FUSE_SETLK, FUSE_OPEN}) {
        const auto way = ask(operation, kTop, name("f"));
        EXPECT_TRUE(way.forward && way.soon) << operation;
        EXPECT_TRUE(answer_.empty()) << operation;
        EXPECT_EQ(sent_, request(operation, kTop, name("f")));
    }
}

TEST_F(ShareCacheTest, ANameAndWhatItLeadsToAreAnswered) {
    tell_name(kTop, "f", file(kFile, 0, 17));
    ASSERT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    EXPECT_EQ(head<fuse_out_header>().unique, kUnique);
    EXPECT_EQ(head<fuse_out_header>().len, answer_.size());
    EXPECT_EQ(body<fuse_entry_out>().nodeid, kFile);
    EXPECT_EQ(body<fuse_entry_out>().attr.size, 17u);
    ASSERT_TRUE(is_answered(FUSE_GETATTR, kFile));
    EXPECT_EQ(body<fuse_attr_out>().attr.size, 17u);
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("g")));
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kFile, name("f")));
}

TEST_F(ShareCacheTest, TheLastWordCounts) {
    tell_name(kTop, "f", file(kFile, 0, 17));
    tell_file(file(kFile, 0, 18));
    ASSERT_TRUE(is_answered(FUSE_GETATTR, kFile));
    EXPECT_EQ(body<fuse_attr_out>().attr.size, 18u);
    base::Bytes node;
    append(node, kFile);
    tell(wire::ShareNews::kNoFile, node);
    EXPECT_FALSE(is_answered(FUSE_GETATTR, kFile));
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    tell_file(file(kFile, 0, 19));
    EXPECT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    tell_of(wire::ShareNews::kNoName, kTop, "f");
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("f")));
}

TEST_F(ShareCacheTest, CompanyVoidsEverything) {
    tell_name(1, "m0", file(kTop, wire::ShareFile::kEmpty));
    tell_name(kTop, "f", file(kFile));
    tell_of(wire::ShareNews::kGone, kTop, "g");
    tell(wire::ShareNews::kNothing);
    for (const char* text : {"f", "g", "h"}) EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name(text))) << text;
    for (auto node : {kTop, kFile}) EXPECT_FALSE(is_answered(FUSE_GETATTR, node));
    // What was said of a file before it was told of again is not revived.
    tell_file(file(kFile));
    EXPECT_FALSE(is_answered(FUSE_GETATTR, kFile));
}

TEST_F(ShareCacheTest, NothingIsKeptForLong) {
    tell_name(1, "m0", file(kTop, wire::ShareFile::kEmpty));
    tell_name(kTop, "f", file(kFile));
    tell_of(wire::ShareNews::kGone, kTop, "g");
    now_ += ShareCache::kKeptFor + std::chrono::seconds(1);
    for (const char* text : {"f", "g", "h"}) EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name(text))) << text;
    EXPECT_FALSE(is_answered(FUSE_GETATTR, kFile));
}

TEST_F(ShareCacheTest, ADirectoryMadeJustNowHasWhatWasMadeInIt) {
    tell_name(1, "made", file(kTop, wire::ShareFile::kEmpty));
    ASSERT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    EXPECT_EQ(error(), ENOENT);
    tell_name(kTop, "f", file(kFile));
    ASSERT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    EXPECT_EQ(error(), 0);
    tell_of(wire::ShareNews::kGone, kTop, "f");
    ASSERT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    EXPECT_EQ(error(), ENOENT);
    // Something that nobody knows more of: then of the others neither.
    tell_of(wire::ShareNews::kNoName, kTop, "g");
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("g")));
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("h")));
}

TEST_F(ShareCacheTest, WhatIsDroppedForOthersIsNotTakenForMissing) {
    tell_name(1, "made", file(kTop, wire::ShareFile::kEmpty));
    for (std::size_t i = 0; i <= ShareCache::kMostKept; ++i) tell_name(kTop, "f" + std::to_string(i), file(kFile + i));
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("f0")));
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("never made")));
}

TEST_F(ShareCacheTest, WhatWasToldLongestAgoGivesWay) {
    constexpr std::uint64_t kOther = 1 << 20;
    for (std::size_t i = 0; i < ShareCache::kMostKept; ++i) tell_of(wire::ShareNews::kGone, kOther, "g" + std::to_string(i));
    tell_name(1, "made", file(kTop, wire::ShareFile::kEmpty));
    tell_name(kTop, "f", file(kFile));
    EXPECT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    EXPECT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("never made")));
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kOther, name("g0")));
    EXPECT_TRUE(is_answered(FUSE_LOOKUP, kOther, name("g" + std::to_string(ShareCache::kMostKept - 1))));
    // Told once more, it is the last to give way.
    tell_name(kTop, "f", file(kFile));
    for (std::size_t i = 0; i + 1 < ShareCache::kMostKept; ++i) tell_of(wire::ShareNews::kGone, kOther, "h" + std::to_string(i));
    EXPECT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    tell_of(wire::ShareNews::kGone, kOther, "one more");
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("never made")));
}

// The server counts the lookups that it answered, and must be told of the end of just those.
TEST_F(ShareCacheTest, TheServerForgetsWhatItWasAsked) {
    tell_name(kTop, "f", file(kFile));  // one lookup of the server's
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    EXPECT_TRUE(is_answered(FUSE_FORGET, kFile, forget(2)));
    const auto way = ask(FUSE_FORGET, kFile, forget(2));
    EXPECT_TRUE(way.forward);
    EXPECT_FALSE(way.soon);
    EXPECT_EQ(forgotten(), 1u);
    // It is gone there: whatever still comes of it is too late, and so is its name.
    tell_file(file(kFile));
    EXPECT_FALSE(is_answered(FUSE_GETATTR, kFile));
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("f")));
}

TEST_F(ShareCacheTest, ManyAreForgottenOneByOne) {
    tell_name(kTop, "f", file(kFile));
    ASSERT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    base::Bytes arguments;
    append(arguments, fuse_batch_forget_in{2, 0});
    append(arguments, fuse_forget_one{kFile, 2});
    append(arguments, fuse_forget_one{kFile + 1, 5});
    EXPECT_TRUE(ask(FUSE_BATCH_FORGET, 0, arguments).forward);
    fuse_forget_one left[2];
    ASSERT_EQ(sent_.size(), sizeof(fuse_in_header) + sizeof(fuse_batch_forget_in) + sizeof left);
    std::memcpy(left, sent_.data() + sent_.size() - sizeof left, sizeof left);
    EXPECT_EQ(left[0].nlookup, 1u);
    EXPECT_EQ(left[1].nlookup, 5u);
}

TEST_F(ShareCacheTest, ClosingMattersWhereThereAreLocks) {
    EXPECT_TRUE(is_answered(FUSE_FLUSH, kFile));
    EXPECT_EQ(error(), 0);
    auto way = ask(FUSE_RELEASE, kFile, base::Bytes(sizeof(fuse_release_in)));
    EXPECT_TRUE(way.forward);
    EXPECT_FALSE(way.soon);
    EXPECT_EQ(error(), 0);
    fuse_in_header header{};
    std::memcpy(&header, sent_.data(), sizeof header);
    EXPECT_EQ(header.unique, 0u);  // or the kernel would be answered twice
    EXPECT_TRUE(ask(FUSE_SETLK, kFile).forward);
    EXPECT_TRUE(ask(FUSE_FLUSH, kFile).forward);
    way = ask(FUSE_RELEASE, kFile, base::Bytes(sizeof(fuse_release_in)));
    EXPECT_TRUE(way.forward && way.soon);
    EXPECT_TRUE(answer_.empty());
    EXPECT_TRUE(is_answered(FUSE_FLUSH, kFile + 1));
}

TEST_F(ShareCacheTest, OnlyTheKernelsOwnQuestionAboutCapabilitiesIsAnswered) {
    tell_name(kTop, "f", file(kFile, wire::ShareFile::kNoCapability));
    ASSERT_TRUE(is_answered(FUSE_GETXATTR, kFile, attribute(0, "security.capability")));
    EXPECT_EQ(error(), ENODATA);
    EXPECT_FALSE(is_answered(FUSE_GETXATTR, kFile, attribute(20, "security.capability")));
    EXPECT_FALSE(is_answered(FUSE_GETXATTR, kFile, attribute(0, "user.x")));
    tell_file(file(kFile));
    EXPECT_FALSE(is_answered(FUSE_GETXATTR, kFile, attribute(0, "security.capability")));
}

// How the notices begin, and how many there are of each kind.
struct Notices {
    std::vector<std::string> names;
    std::vector<std::uint64_t> nodes;
};
Notices take_apart(base::ByteView bytes) {
    Notices notices;
    for (fuse_out_header header{}; bytes.size() >= sizeof header; bytes = bytes.subspan(header.len)) {
        std::memcpy(&header, bytes.data(), sizeof header);
        EXPECT_EQ(header.unique, 0u);
        if (header.len > bytes.size()) return notices;
        const auto data = bytes.subspan(sizeof header, header.len - sizeof header);
        fuse_notify_inval_inode_out node{};
        fuse_notify_inval_entry_out entry{};
        if (header.error == FUSE_NOTIFY_INVAL_INODE) {
            std::memcpy(&node, data.data(), sizeof node);
            EXPECT_LT(node.off, 0);
            notices.nodes.push_back(node.ino);
        } else {
            std::memcpy(&entry, data.data(), sizeof entry);
            EXPECT_EQ(header.error, FUSE_NOTIFY_INVAL_ENTRY);
            EXPECT_EQ(reinterpret_cast<const std::uint32_t*>(&entry)[3], 1u) << "it would unmount what is mounted there";
            EXPECT_EQ(data.size(), sizeof entry + entry.namelen + 1);
            notices.names.push_back(std::to_string(entry.parent) + "/" + reinterpret_cast<const char*>(data.data() + sizeof entry));
        }
    }
    return notices;
}

TEST_F(ShareCacheTest, TheKernelIsToldWhatItMayNoLongerBelieve) {
    const std::uint32_t init[] = {7, 41, 131072, 1u << 30, 1u << 3};
    base::Bytes arguments;
    append(arguments, init);
    EXPECT_TRUE(ask(FUSE_INIT, 0, arguments).forward);
    tell_name(kTop, "f", file(kFile));
    tell_name(kTop, "not asked for", file(kFile + 1));
    ASSERT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    EXPECT_EQ(body<fuse_entry_out>().entry_valid, 5u);
    EXPECT_EQ(body<fuse_entry_out>().attr_valid, 5u);
    // What it believes of a name it takes along.
    arguments.clear();
    append(arguments, fuse_rename2_in{9, 0, 0});
    for (const char* text : {"f", "g"})
        for (auto byte : name(text)) arguments.push_back(byte);
    EXPECT_TRUE(ask(FUSE_RENAME2, kTop, arguments).forward);
    EXPECT_TRUE(cache_.take_notices().empty());
    tell(wire::ShareNews::kNothing);
    auto told = take_apart(cache_.take_notices());
    std::sort(told.names.begin(), told.names.end());
    EXPECT_EQ(told.names, (std::vector<std::string>{"2/f", "9/g"}));
    EXPECT_EQ(told.nodes, std::vector<std::uint64_t>{kFile});
    tell(wire::ShareNews::kNothing);
    EXPECT_TRUE(cache_.take_notices().empty());
}

TEST_F(ShareCacheTest, AKernelThatCannotBeToldBelievesForASecond) {
    tell_name(kTop, "f", file(kFile));
    ASSERT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    EXPECT_EQ(body<fuse_entry_out>().entry_valid, 1u);
    ASSERT_TRUE(is_answered(FUSE_GETATTR, kFile));
    EXPECT_EQ(body<fuse_attr_out>().attr_valid, 1u);
    tell(wire::ShareNews::kNothing);
    EXPECT_TRUE(cache_.take_notices().empty());
}

TEST_F(ShareCacheTest, WhatIsInASmallFileIsReadOnce) {
    auto read = [](std::uint64_t offset, std::uint32_t size) {
        fuse_read_in in{};
        in.offset = offset;
        in.size = size;
        base::Bytes arguments;
        base::append(arguments, base::bytes_of(in));
        return arguments;
    };
    auto opened = [&](std::string_view contents) {
        base::Bytes data;
        append(data, std::uint64_t{kFile});
        append_text(data, contents);
        tell(wire::ShareNews::kContents, data);
    };
    auto text = [&] { return std::string(answer_.begin() + sizeof(fuse_out_header), answer_.end()); };
    EXPECT_TRUE(ask(FUSE_READ, kFile, read(0, 4096)).forward);
    opened("contents");
    EXPECT_TRUE(ask(FUSE_READ, kFile + 1, read(0, 4096)).forward);
    ASSERT_TRUE(is_answered(FUSE_READ, kFile, read(0, 4096)));
    EXPECT_EQ(text(), "contents");
    EXPECT_TRUE(ask(FUSE_READ, kFile, read(0, 4096)).forward) << "the kernel has it now, or wants it anew";
    opened("contents");
    ASSERT_TRUE(is_answered(FUSE_READ, kFile, read(3, 2)));
    EXPECT_EQ(text(), "te");
    for (std::uint64_t beyond : {std::uint64_t{8}, UINT64_MAX}) {
        opened("contents");
        ASSERT_TRUE(is_answered(FUSE_READ, kFile, read(beyond, 4096)));
        EXPECT_EQ(text(), "");
    }
    opened("contents");
    now_ += std::chrono::seconds(2);
    EXPECT_TRUE(ask(FUSE_READ, kFile, read(0, 4096)).forward);
    opened("contents");
    tell(wire::ShareNews::kNothing);
    EXPECT_TRUE(ask(FUSE_READ, kFile, read(0, 4096)).forward);

    // Whatever may change it, of any file: a copy goes to another one.
    base::Bytes truncating;
    append(truncating, fuse_open_in{O_RDWR | O_TRUNC, 0});
    const std::pair<std::uint32_t, base::Bytes> changes[] = {
        {FUSE_WRITE, {}}, {FUSE_SETATTR, {}}, {FUSE_CREATE, {}}, {FUSE_FALLOCATE, {}}, {FUSE_COPY_FILE_RANGE, {}}, {FUSE_OPEN, truncating}};
    for (const auto& [operation, arguments] : changes) {
        opened("old");
        EXPECT_TRUE(ask(operation, kFile + 1, arguments).forward);
        EXPECT_TRUE(ask(FUSE_READ, kFile, read(0, 4096)).forward) << operation;
        // As it was before, told after the change was asked for.
        opened("old");
        EXPECT_TRUE(ask(FUSE_READ, kFile, read(0, 4096)).forward) << operation;
        base::Bytes done;
        append(done, fuse_out_header{sizeof(fuse_out_header), 0, kUnique});
        EXPECT_TRUE(cache_.is_for_kernel(done, now_));
        EXPECT_TRUE(ask(FUSE_READ, kFile, read(0, 4096)).forward) << operation;
        opened("new");
        EXPECT_TRUE(is_answered(FUSE_READ, kFile, read(0, 4096))) << operation;
    }
}

// What was closed or forgotten before may give back room: it stays before what needs some.
TEST_F(ShareCacheTest, OnlyWhatNeedsNoRoomGoesFirst) {
    for (std::uint32_t operation : {FUSE_UNLINK, FUSE_RMDIR}) EXPECT_TRUE(ask(operation, kTop, name("f")).first) << operation;
    for (std::uint32_t operation : {FUSE_WRITE, FUSE_CREATE, FUSE_MKNOD, FUSE_MKDIR, FUSE_SYMLINK, FUSE_LINK, FUSE_RENAME2, FUSE_SETATTR, FUSE_FALLOCATE,
                                    FUSE_SETXATTR, FUSE_STATFS, FUSE_OPEN, FUSE_OPENDIR, FUSE_FORGET, FUSE_RELEASE})
        EXPECT_FALSE(ask(operation, kTop, base::Bytes(64)).first) << operation;
}

// What a listing with attributes gave the kernel, it has looked up.
TEST_F(ShareCacheTest, WhatWasListedIsKnown) {
    base::Bytes entries;
    for (const std::uint64_t node : {std::uint64_t{0}, kFile}) {
        fuse_entry_out entry{};
        entry.nodeid = node;
        entry.attr.size = 17;
        wire::put_listing_entry(entries, &entry, {}, node == 0 ? "." : "f");
    }
    tell_listing(entries);
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("f"))) << "the kernel does not have it yet";
    ASSERT_TRUE(is_answered(FUSE_READDIRPLUS, kTop, of_listing<fuse_read_in>()));
    ASSERT_TRUE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    EXPECT_EQ(body<fuse_entry_out>().nodeid, kFile);
    EXPECT_EQ(body<fuse_entry_out>().attr.size, 17u);
    EXPECT_TRUE(is_answered(FUSE_GETATTR, kFile));
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name(".")));
    EXPECT_FALSE(is_answered(FUSE_GETXATTR, kFile, attribute(0, "security.capability"))) << "of that nothing was said";
    // One lookup was the server's, the other was answered here.
    EXPECT_TRUE(ask(FUSE_FORGET, kFile, forget(2)).forward);
    EXPECT_EQ(forgotten(), 1u);
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    // What was known of it is not lost, and what was told later counts.
    tell_name(kTop, "f", file(kFile, wire::ShareFile::kNoCapability, 3));
    tell_listing(entries);
    now_ += std::chrono::milliseconds(1);
    tell_file(file(kFile, wire::ShareFile::kNoCapability, 4));
    ASSERT_TRUE(is_answered(FUSE_READDIRPLUS, kTop, of_listing<fuse_read_in>()));
    EXPECT_TRUE(is_answered(FUSE_GETXATTR, kFile, attribute(0, "security.capability")));
    ASSERT_TRUE(is_answered(FUSE_GETATTR, kFile));
    EXPECT_EQ(body<fuse_attr_out>().attr.size, 4u) << "it was told later";
    tell_file(file(kFile, 0, 5));
    ASSERT_TRUE(is_answered(FUSE_GETATTR, kFile));
    EXPECT_EQ(body<fuse_attr_out>().attr.size, 5u);
    now_ += ShareCache::kKeptFor + std::chrono::seconds(1);
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("f")));
    // Told of before the listing is read, and not known then: what the listing says of it may be old.
    ask(FUSE_FORGET, kFile, forget(9));
    tell_listing(entries);
    now_ += std::chrono::milliseconds(1);
    tell_file(file(kFile, 0, 6));
    ASSERT_TRUE(is_answered(FUSE_READDIRPLUS, kTop, of_listing<fuse_read_in>()));
    EXPECT_FALSE(is_answered(FUSE_GETATTR, kFile));
    // Thrown away: the kernel never had it, and the server forgets it.
    tell_listing(entries);
    tell(wire::ShareNews::kNothing);
    EXPECT_FALSE(is_answered(FUSE_LOOKUP, kTop, name("f")));
}

// A listing that was told, and what may have changed it since.
TEST_F(ShareCacheTest, AChangeEndsWhatWasToldOfAListing) {
    tell_listing();
    EXPECT_TRUE(is_answered(FUSE_READDIRPLUS, kTop, of_listing<fuse_read_in>()));
    auto answer_change = [&] {
        fuse_out_header header{};
        header.len = sizeof header;
        header.unique = kUnique;
        base::Bytes message;
        append(message, header);
        EXPECT_TRUE(cache_.is_for_kernel(message, now_));
    };
    for (std::uint32_t operation : {FUSE_WRITE, FUSE_SETATTR, FUSE_CREATE, FUSE_TMPFILE, FUSE_FALLOCATE, FUSE_COPY_FILE_RANGE, FUSE_MKNOD, FUSE_MKDIR, FUSE_SYMLINK,
                                    FUSE_LINK, FUSE_UNLINK, FUSE_RMDIR, FUSE_RENAME, FUSE_RENAME2, FUSE_SETXATTR, FUSE_REMOVEXATTR}) {
        ask(FUSE_RELEASEDIR, kTop, of_listing<fuse_release_in>());
        tell_listing();
        EXPECT_FALSE(is_answered(operation, kTop, base::Bytes(64)));
        EXPECT_FALSE(is_answered(FUSE_READDIRPLUS, kTop, of_listing<fuse_read_in>())) << operation << " before it was read";
        // Told before the change was done, or after it: nobody knows.
        ask(FUSE_RELEASEDIR, kTop, of_listing<fuse_release_in>());
        tell_listing();
        EXPECT_FALSE(is_answered(FUSE_READDIRPLUS, kTop, of_listing<fuse_read_in>())) << operation << " under way";
        answer_change();
        ask(FUSE_RELEASEDIR, kTop, of_listing<fuse_release_in>());
        tell_listing();
        EXPECT_TRUE(is_answered(FUSE_READDIRPLUS, kTop, of_listing<fuse_read_in>())) << operation << " done";
    }
    ask(FUSE_RELEASEDIR, kTop, of_listing<fuse_release_in>());
    tell_listing();
    tell(wire::ShareNews::kNothing);
    EXPECT_FALSE(is_answered(FUSE_READDIRPLUS, kTop, of_listing<fuse_read_in>())) << "somebody came";
}

TEST_F(ShareCacheTest, TheKernelGetsItsOwn) {
    base::Bytes message;
    append(message, fuse_out_header{sizeof(fuse_out_header), -ENOENT, kUnique});
    EXPECT_TRUE(cache_.is_for_kernel(message, now_));
    // FUSE's own news have no number either.
    message.clear();
    append(message, fuse_out_header{sizeof(fuse_out_header), FUSE_NOTIFY_POLL, 0});
    EXPECT_TRUE(cache_.is_for_kernel(message, now_));
}

}  // namespace
}  // namespace caisson::agent
