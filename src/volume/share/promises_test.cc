// What the server tells the agent, which answers the guest's kernel from it.
#include <algorithm>

#include "volume/share/server_fixture.h"
#include "wire/listing.h"

namespace caisson::volume::share {
namespace {

TEST_F(ShareServer, TellsWhatIsInASmallFileThatIsOpenedToBeRead) {
    keep();
    const auto f = ask_and_hear(FUSE_LOOKUP, written_, {name("f")}).answer.as<fuse_entry_out>().nodeid;
    auto heard = ask_and_hear(FUSE_OPEN, f, {of(fuse_open_in{O_RDONLY, 0})});
    ASSERT_FALSE(heard.news.empty());
    EXPECT_EQ(heard.news[0], kContents);
    EXPECT_EQ(base::as_text(heard.data[0]), of(f) + "kept");
    auto tells = [&](std::uint32_t flags) {
        const auto news = ask_and_hear(FUSE_OPEN, f, {of(fuse_open_in{flags, 0})}).news;
        return std::count(news.begin(), news.end(), kContents) == 1;
    };
    EXPECT_FALSE(tells(O_RDWR));
    EXPECT_TRUE(os::write_file_atomic(path("written/f"), std::string(wire::kShareMostContents, 'x')));
    const auto full = ask_and_hear(FUSE_LOOKUP, written_, {name("f")}).answer.as<fuse_entry_out>().nodeid;
    EXPECT_EQ(ask_and_hear(FUSE_OPEN, full, {of(fuse_open_in{O_RDONLY, 0})}).data[0].size(), sizeof full + wire::kShareMostContents);
    EXPECT_TRUE(os::write_file_atomic(path("written/f"), std::string(wire::kShareMostContents + 1, 'x')));
    const auto large = ask_and_hear(FUSE_LOOKUP, written_, {name("f")}).answer.as<fuse_entry_out>().nodeid;
    const auto news = ask_and_hear(FUSE_OPEN, large, {of(fuse_open_in{O_RDONLY, 0})}).news;
    EXPECT_EQ(std::count(news.begin(), news.end(), kContents), 0);
}

TEST_F(ShareServer, TellsNothingOfContentsInCompany) {
    keep();
    const auto top = add_shared();
    const auto f = ask_and_hear(FUSE_LOOKUP, top, {name("f")}).answer.as<fuse_entry_out>().nodeid;
    auto opened = [&] { return ask_and_hear(FUSE_OPEN, f, {of(fuse_open_in{O_RDONLY, 0})}).news; };
    auto alone = opened();
    EXPECT_EQ(std::count(alone.begin(), alone.end(), kContents), 1);
    News news;
    const auto other = company(news);
    auto together = opened();
    EXPECT_EQ(std::count(together.begin(), together.end(), kContents), 0);
}

TEST_F(ShareServer, TellsWhatTheAgentMayAnswer) {
    EXPECT_TRUE(ask_and_hear(FUSE_LOOKUP, written_, {name("f")}).news.empty());  // nobody keeps it
    keep();
    auto heard = ask_and_hear(FUSE_LOOKUP, written_, {name("f")});
    ASSERT_EQ(heard.news, News{kName});
    const auto f = heard.answer.as<fuse_entry_out>().nodeid;
    wire::ShareName above{};
    wire::ShareFile file{};
    ASSERT_EQ(heard.data[0].size(), sizeof above + sizeof file + 1);
    std::memcpy(&above, heard.data[0].data(), sizeof above);
    std::memcpy(&file, heard.data[0].data() + sizeof above, sizeof file);
    EXPECT_EQ(above.parent, written_);
    EXPECT_EQ(file.node, f);
    EXPECT_EQ(file.flags, wire::ShareFile::kNoCapability);
    EXPECT_EQ(file.attributes.size, 4u);
    EXPECT_EQ(heard.data[0].back(), 'f');

    heard = ask_and_hear(FUSE_OPEN, f, {of(fuse_open_in{O_RDWR, 0})});
    EXPECT_TRUE(heard.news.empty());
    fuse_write_in in{};
    in.fh = heard.answer.as<fuse_open_out>().fh;
    in.offset = 4;
    in.size = 3;
    heard = ask_and_hear(FUSE_WRITE, f, {of(in), "new"});
    ASSERT_EQ(heard.news, News{kFile});
    std::memcpy(&file, heard.data[0].data(), sizeof file);
    EXPECT_EQ(file.attributes.size, 7u);
    const std::string capability = name("security.capability");
    const std::uint32_t head[] = {5, 0};
    heard = ask_and_hear(FUSE_SETXATTR, f, {of(head), capability, "bytes"});
    ASSERT_EQ(heard.answer.error, 0);
    ASSERT_EQ(heard.news, News{kFile});
    std::memcpy(&file, heard.data[0].data(), sizeof file);
    EXPECT_EQ(file.flags, 0u);
}

TEST_F(ShareServer, TellsWhatBecameOfNames) {
    keep();
    ask_and_hear(FUSE_LOOKUP, FUSE_ROOT_ID, {name("m0")});  // now the directory is known as well
    auto heard = ask_and_hear(FUSE_MKDIR, written_, {of(fuse_mkdir_in{0755, 0}), name("d")});
    ASSERT_EQ(heard.news, (News{kName, kFile}));  // the new one, and the times of the one that it is in
    wire::ShareFile file{};
    std::memcpy(&file, heard.data[0].data() + sizeof(wire::ShareName), sizeof file);
    EXPECT_EQ(file.flags, wire::ShareFile::kEmpty);
    const auto d = heard.answer.as<fuse_entry_out>().nodeid;
    EXPECT_EQ(ask_and_hear(FUSE_MKNOD, d, {of(fuse_mknod_in{S_IFREG | 0600, 0, 0, 0}), name("a")}).news, (News{kName, kFile}));
    // The name that it gets may be known to lead elsewhere, the old one leads nowhere; the file has a new time of change.
    EXPECT_EQ(ask_and_hear(FUSE_RENAME2, d, {of(fuse_rename2_in{written_, 0, 0}), name("a"), name("b")}).news,
              (News{kNoName, kGone, kFile, kFile, kFile}));
    EXPECT_EQ(ask_and_hear(FUSE_UNLINK, written_, {name("b")}).news, (News{kGone, kNoFile, kFile}));
    EXPECT_EQ(ask_and_hear(FUSE_UNLINK, written_, {name("b")}).news, News{kFile});  // failed: nothing is said of the name
    EXPECT_EQ(ask_and_hear(FUSE_RMDIR, written_, {name("d")}).news, (News{kGone, kNoFile, kFile}));
}

TEST_F(ShareServer, CompanyEndsWhatWasPromised) {
    keep();
    const auto shared = add_shared();
    ASSERT_EQ(ask_and_hear(FUSE_LOOKUP, shared, {name("f")}).news, News{kName});
    News news;
    const auto begin = std::chrono::steady_clock::now();
    auto other = company(news);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(900)) << "it was not heard";
    EXPECT_EQ(news, News{kNothing});
    EXPECT_TRUE(ask_and_hear(FUSE_LOOKUP, shared, {name("f")}).news.empty());
    other.reset();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_EQ(ask_and_hear(FUSE_LOOKUP, shared, {name("f")}).news, News{kName});
}

// A server that does not listen harms its own guest, and keeps nobody else waiting for long.
TEST_F(ShareServer, WhoComesDoesNotWaitForEver) {
    keep();
    ASSERT_NE(add_shared(), 0u);
    const auto begin = std::chrono::steady_clock::now();
    const auto other = Presence::enter(presence_file()).value();
    const auto took = std::chrono::steady_clock::now() - begin;
    EXPECT_GT(took, std::chrono::milliseconds(900));
    EXPECT_LT(took, std::chrono::seconds(10));
    EXPECT_TRUE(other->has_company());
}

TEST_F(ShareServer, ASecondMountInTheSameBoxIsCompany) {
    keep();
    ASSERT_NE(add_shared(), 0u);
    server_.leave_alone();
    const auto begin = std::chrono::steady_clock::now();
    const auto other = Presence::enter(presence_file()).value();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(900));
    EXPECT_FALSE(other->is_alone());
}

TEST_F(ShareServer, ContentsAreKeptWhileNobodyElseComes) {
    keep();
    const auto f = ask_and_hear(FUSE_LOOKUP, written_, {name("f")}).answer.as<fuse_entry_out>().nodeid;
    auto keeps = [&] { return (open(f, O_RDWR).as<fuse_open_out>().open_flags & FOPEN_KEEP_CACHE) != 0; };
    EXPECT_FALSE(keeps());  // what the guest has may be from before
    EXPECT_TRUE(keeps());
    server_.leave_alone();
    EXPECT_EQ(hear().news, News{kNothing});
    EXPECT_FALSE(keeps());
    EXPECT_TRUE(keeps());
}

// A directory's listing as it is told.
class ShareServerListing : public ShareServer {
  protected:
    struct Entry {
        std::uint64_t node = 0;
        std::string name;
    };
    struct Told {
        wire::ShareListed listed{};
        std::vector<Entry> entries;
    };
    static std::vector<Told> told(const Heard& heard) {
        std::vector<Told> all;
        for (std::size_t i = 0; i < heard.news.size(); ++i) {
            if (heard.news[i] != kListed) continue;
            auto& one = all.emplace_back();
            std::memcpy(&one.listed, heard.data[i].data(), sizeof one.listed);
            wire::each_listing_entry(base::ByteView(heard.data[i]).subspan(sizeof one.listed), (one.listed.flags & wire::ShareListed::kPlus) != 0,
                                     [&](const fuse_entry_out& file, const fuse_dirent&, std::string_view text) { one.entries.push_back({file.nodeid, std::string(text)}); });
        }
        return all;
    }
    Heard list(std::uint64_t directory, std::uint64_t handle, std::uint64_t offset, std::uint32_t pieces, bool plus) {
        return say(wire::kShareList, directory, {of(wire::ShareList{handle, offset, pieces, plus ? 1u : 0u})});
    }
    void fill(int files) const {
        for (int i = 0; i < files; ++i) EXPECT_TRUE(os::write_file_atomic(path("written/many" + std::to_string(i)), ""));
    }
    Heard open_directory(std::uint64_t node) { return ask_and_hear(FUSE_OPENDIR, node, {of(fuse_open_in{})}); }
};

TEST_F(ShareServerListing, ASmallDirectoryIsToldWhenItIsOpened) {
    EXPECT_TRUE(open_directory(written_).news.empty()) << "nobody keeps it";
    keep();
    const auto heard = open_directory(written_);
    auto pieces = told(heard);
    ASSERT_EQ(pieces.size(), 1u);
    EXPECT_EQ(pieces[0].listed.handle, heard.answer.as<fuse_open_out>().fh);
    EXPECT_EQ(pieces[0].listed.offset, 0u);
    EXPECT_EQ(pieces[0].listed.flags, wire::ShareListed::kPlus | wire::ShareListed::kEnd);
    std::vector<std::string> names;
    for (const auto& entry : pieces[0].entries) names.push_back(entry.name);
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names, (std::vector<std::string>{".", "..", "f", "out", "pipe"}));
}

TEST_F(ShareServerListing, MoreIsToldWhenItIsWantedAndNoMoreThanWasAgreed) {
    keep();
    fill(1000);
    for (const bool plus : {false, true}) {
        const auto heard = open_directory(written_);
        const auto handle = heard.answer.as<fuse_open_out>().fh;
        std::size_t names = told(heard)[0].entries.size(), most = 0;
        auto at = told(heard)[0].listed.next;
        for (bool ended = false; !ended;) {
            const auto pieces = told(list(written_, handle, at, 1000, plus));
            ASSERT_GE(pieces.size(), 2u);
            most = std::max(most, pieces.size());
            EXPECT_EQ(pieces.back().listed.flags, wire::ShareListed::kDone);
            for (std::size_t i = 0; i + 1 < pieces.size(); ++i) {
                EXPECT_EQ(pieces[i].listed.offset, at);
                EXPECT_EQ((pieces[i].listed.flags & wire::ShareListed::kPlus) != 0, plus);
                at = pieces[i].listed.next;
                names += pieces[i].entries.size();
                ended = (pieces[i].listed.flags & wire::ShareListed::kEnd) != 0;
            }
        }
        EXPECT_EQ(names, 1005u) << plus;
        EXPECT_EQ(most, wire::kShareMostPieces + 1) << plus;
    }
}

TEST_F(ShareServerListing, WhateverIsAskedForIsDoneWith) {
    keep();
    const auto handle = open_directory(written_).answer.as<fuse_open_out>().fh;
    const auto f = ask_and_hear(FUSE_LOOKUP, written_, {name("f")}).answer.as<fuse_entry_out>().nodeid;
    const auto file = open(f, O_RDWR).as<fuse_open_out>().fh;
    const auto top = open_directory(FUSE_ROOT_ID).answer.as<fuse_open_out>().fh;
    struct {
        std::uint64_t node, handle, offset;
    } const bad[] = {{written_, 12345, 0}, {read_, handle, 0}, {f, file, 0}, {FUSE_ROOT_ID, top, 0}, {written_, handle, UINT64_MAX}};
    for (const auto& one : bad) {
        const auto pieces = told(list(one.node, one.handle, one.offset, 2, true));
        ASSERT_EQ(pieces.size(), 1u) << one.handle;
        EXPECT_EQ(pieces[0].listed.flags, wire::ShareListed::kDone);
        EXPECT_EQ(pieces[0].listed.handle, one.handle);
    }
}

TEST_F(ShareServerListing, NothingIsToldInCompany) {
    keep();
    const auto shared = add_shared();
    News news;
    const auto other = company(news);
    const auto heard = open_directory(shared);
    EXPECT_TRUE(told(heard).empty());
    const auto pieces = told(list(shared, heard.answer.as<fuse_open_out>().fh, 0, 4, false));
    ASSERT_EQ(pieces.size(), 1u);
    EXPECT_EQ(pieces[0].listed.flags, wire::ShareListed::kDone);
}

TEST_F(ShareServerListing, WhatBecomesOfListedFilesIsTold) {
    keep();
    const auto entries = told(open_directory(written_)).at(0).entries;
    std::uint64_t f = 0;
    for (const auto& entry : entries)
        if (entry.name == "f") f = entry.node;
    fuse_setattr_in in{};
    in.valid = FATTR_MODE;
    in.mode = S_IFREG | 0640;
    EXPECT_EQ(ask_and_hear(FUSE_SETATTR, f, {of(in)}).news, News{kFile});
    EXPECT_EQ(ask_and_hear(FUSE_UNLINK, written_, {name("f")}).news, (News{kGone, kNoFile}));
}

// What is told with attributes counts as looked up: the agent forgets what the kernel never hears of.
TEST_F(ShareServerListing, ItsLookupsAreCounted) {
    keep();
    const auto before = server_.tree().size();
    const auto entries = told(open_directory(written_)).at(0).entries;
    EXPECT_EQ(server_.tree().size(), before + 3);
    std::vector<std::string> forget{of(fuse_batch_forget_in{static_cast<std::uint32_t>(entries.size()), 0})};
    for (const auto& entry : entries) forget.push_back(of(fuse_forget_one{entry.node, 1}));
    say(FUSE_BATCH_FORGET, 0, forget);
    EXPECT_EQ(server_.tree().size(), before);
}

}  // namespace
}  // namespace caisson::volume::share
