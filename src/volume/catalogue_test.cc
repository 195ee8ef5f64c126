#include "volume/catalogue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "base/id.h"

namespace caisson::volume {
namespace {

class CatalogueTest : public ::testing::Test {
  protected:
    CatalogueTest()
        : place_(os::TemporaryDirectory::create("/tmp", "catalogue").value()), catalogue_(Catalogue::open(place_.path() + "/volumes").value()) {}
    std::string in(const std::string& path) const { return place_.path() + "/volumes/" + path; }
    std::vector<std::string> names(const std::string& directory) const {
        auto names = os::list_directory(in(directory)).value();
        std::sort(names.begin(), names.end());
        return names;
    }
    static std::function<Result<std::vector<std::string>>()> known(std::vector<std::string> boxes) {
        return [boxes] { return Result<std::vector<std::string>>(boxes); };
    }
    static std::int64_t count_of(const os::Fd& file) {
        std::int64_t count = -1;
        EXPECT_EQ(::pread(file.get(), &count, sizeof count, 0), static_cast<ssize_t>(sizeof count));
        return count;
    }
    using Names = std::vector<std::string>;
    os::TemporaryDirectory place_;
    Catalogue catalogue_;
};

TEST_F(CatalogueTest, MakesDirectoriesForTheOwnerAlone) {
    for (const char* directory : {"", "named", "anonymous", "boxes", "trash"}) {
        struct stat status {};
        ASSERT_EQ(::stat(in(directory).c_str(), &status), 0);
        EXPECT_EQ(status.st_mode & 07777, 0700u) << directory;
    }
}

TEST_F(CatalogueTest, RemembersWhatWasCreated) {
    ASSERT_TRUE(catalogue_.create("data", false, 10 << 20, {{"a", "b"}, {"c", ""}}));
    auto volume = catalogue_.find("data").value();
    EXPECT_EQ(volume.limit_bytes, 10u << 20);
    EXPECT_EQ(volume.labels, (std::map<std::string, std::string>{{"a", "b"}, {"c", ""}}));
    EXPECT_GT(volume.created_ms, 0);
    EXPECT_FALSE(volume.disk);
    EXPECT_EQ(catalogue_.directory_of(volume), in("named/data"));
    struct stat status {};
    ASSERT_EQ(::stat(in("named/data").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0700u);
    EXPECT_EQ(catalogue_.create("data", false, 0, {}).error().code, Errc::kAlreadyExists);
    EXPECT_EQ(catalogue_.find("data")->limit_bytes, 10u << 20) << "the second one changed nothing";
    EXPECT_EQ(catalogue_.find("other").error().code, Errc::kNotFound);
    EXPECT_EQ(catalogue_.find("../named/data").error().code, Errc::kNotFound);
}

TEST_F(CatalogueTest, RefusesNames) {
    for (const char* name : {"", "..", "a/b", "-a", "a b", "01arz3ndektsv4rrffq69g5fav"})
        EXPECT_EQ(catalogue_.create(name, false, 0, {}).error().code, Errc::kUsage) << name;
    EXPECT_TRUE(names("named").empty());
    EXPECT_TRUE(names("info").empty());
}

TEST_F(CatalogueTest, RemovesWhatNoBoxHas) {
    ASSERT_TRUE(catalogue_.create("data", false, 4096, {}));
    ASSERT_TRUE(os::write_file_atomic(in("named/data/f"), "x"));
    ASSERT_TRUE(catalogue_.open_space(Kind::kNamed, "data"));
    ASSERT_TRUE(catalogue_.remove("data"));
    for (const char* directory : {"named", "info", "space", "trash"}) EXPECT_TRUE(names(directory).empty()) << directory;
    EXPECT_EQ(catalogue_.remove("data").error().code, Errc::kNotFound);
}

TEST_F(CatalogueTest, RefusesToRemoveWhatABoxHas) {
    ASSERT_TRUE(catalogue_.give("box1", {{.name = "data", .target = "/data"}}));
    auto refused = catalogue_.remove("data");
    EXPECT_EQ(refused.error().code, Errc::kInUse);
    EXPECT_NE(refused.error().message.find("box1"), std::string::npos);
    EXPECT_EQ(names("named"), Names{"data"});
    ASSERT_TRUE(catalogue_.release("box1"));
    EXPECT_TRUE(catalogue_.remove("data"));
}

TEST_F(CatalogueTest, GivesABoxItsMounts) {
    ASSERT_TRUE(catalogue_.create("conf", false, 0, {}));
    ASSERT_TRUE(os::write_file_atomic(in("named/conf/app.conf"), "x"));
    auto given = catalogue_.give("box1", {{.target = "/anonymous", .limit_bytes = 1 << 20},
                                          {.name = "new", .target = "/new", .read_only = true},
                                          {.name = "conf", .subpath = "app.conf", .target = "/etc/app.conf", .no_exec = true},
                                          {.host_path = in("named/conf"), .target = "/all"}});
    ASSERT_TRUE(given) << given.error().to_string();
    ASSERT_EQ(given->mounts_size(), 4);
    EXPECT_TRUE(given->mounts(0).anonymous());
    EXPECT_TRUE(base::is_ulid(given->mounts(0).volume()));
    EXPECT_EQ(given->mounts(0).limit_bytes(), 1u << 20);
    EXPECT_EQ(names("anonymous"), Names{given->mounts(0).volume()});
    EXPECT_TRUE(given->mounts(1).read_only());
    EXPECT_FALSE(given->mounts(2).directory());
    EXPECT_TRUE(given->mounts(2).no_exec());
    EXPECT_TRUE(given->mounts(3).directory());
    EXPECT_EQ(given->mounts(3).volume(), "conf");
    for (int i = 0; i < 4; ++i) EXPECT_EQ(given->mounts(i).number(), static_cast<unsigned>(i) + 1);
    EXPECT_EQ(names("named"), (Names{"conf", "new"}));
    EXPECT_EQ(catalogue_.mounts("box1")->SerializeAsString(), given->SerializeAsString());
    EXPECT_EQ(catalogue_.mounts("box2")->mounts_size(), 0);
    EXPECT_EQ(catalogue_.give("box1", {}).error().code, Errc::kAlreadyExists);

    auto all = catalogue_.list().value();
    ASSERT_EQ(all.size(), 3u);
    EXPECT_EQ(all[0].name, "conf");
    EXPECT_EQ(all[0].boxes, Names{"box1"});
    EXPECT_EQ(all[2].kind, Kind::kAnonymous);
    EXPECT_EQ(all[2].limit_bytes, 1u << 20);
    EXPECT_GT(all[2].created_ms, 1600000000000);
    EXPECT_EQ(catalogue_.find(all[2].name)->boxes, Names{"box1"});
}

TEST_F(CatalogueTest, LeavesNothingOfARefusedList) {
    ASSERT_TRUE(catalogue_.create("conf", false, 0, {}));
    const std::vector<Request> bad = {{.name = "conf", .subpath = "missing", .target = "/a"},
                                      {.name = "nowhere", .subpath = "part", .target = "/a"},
                                      {.host_path = "/etc", .target = "/a"},
                                      {.host_path = in("named"), .target = "/a"},
                                      {.name = "conf", .target = "/a", .limit_bytes = 4096},
                                      {.subpath = "x", .target = "/a"},
                                      {.name = "a/b", .target = "/a"}};
    for (std::size_t i = 0; i < bad.size(); ++i) {
        EXPECT_FALSE(catalogue_.give("box1", {{.target = "/anonymous"}, {.name = "new", .target = "/new"}, bad[i]})) << i;
        EXPECT_EQ(names("named"), Names{"conf"}) << i;
        EXPECT_EQ(names("info"), Names{"conf"}) << i;
        for (const char* directory : {"anonymous", "boxes", "trash"}) EXPECT_TRUE(names(directory).empty()) << i << " " << directory;
    }
}

TEST_F(CatalogueTest, AttachesAndDetaches) {
    auto first = catalogue_.attach("box1", {.name = "data", .target = "/data"});
    ASSERT_TRUE(first);
    EXPECT_EQ(first->number(), 1u);
    EXPECT_TRUE(first->attached());
    EXPECT_EQ(catalogue_.attach("box1", {.name = "data", .target = "/data"}).error().code, Errc::kInUse);
    auto second = catalogue_.attach("box1", {.target = "/more"});
    ASSERT_TRUE(second);
    EXPECT_EQ(catalogue_.detach("box1", 7).error().code, Errc::kNotFound);
    ASSERT_TRUE(catalogue_.detach("box1", 2));
    EXPECT_TRUE(names("anonymous").empty());
    EXPECT_TRUE(names("trash").empty());
    ASSERT_TRUE(catalogue_.detach("box1", 1));
    EXPECT_EQ(names("named"), Names{"data"});
    EXPECT_EQ(catalogue_.attach("box1", {.target = "/more"})->number(), 3u) << "numbers are not used again";
}

TEST_F(CatalogueTest, ReleasesAnonymousVolumesWithTheirBox) {
    ASSERT_TRUE(catalogue_.give("box1", {{.target = "/a"}, {.name = "data", .target = "/data"}}));
    auto shared = names("anonymous").front();
    ASSERT_TRUE(os::write_file_atomic(in("anonymous/" + shared + "/f"), "x"));
    ASSERT_TRUE(catalogue_.give("box2", {{.host_path = in("anonymous/" + shared), .target = "/a"}}));
    ASSERT_TRUE(catalogue_.release("box1"));
    EXPECT_EQ(names("anonymous"), Names{shared}) << "the other box has it";
    ASSERT_TRUE(catalogue_.release("box2"));
    for (const char* directory : {"anonymous", "boxes", "trash"}) EXPECT_TRUE(names(directory).empty()) << directory;
    EXPECT_EQ(names("named"), Names{"data"});
    EXPECT_TRUE(catalogue_.release("box1")) << "nothing is left to do";
}

TEST_F(CatalogueTest, UndoesWhatWasMadeForABoxThatNeverRan) {
    ASSERT_TRUE(catalogue_.create("old", false, 0, {}));
    auto given = catalogue_.give("a", {{.target = "/own"}, {.name = "old", .target = "/old"}, {.name = "new", .target = "/new"},
                                      {.name = "shared", .target = "/shared"}, {.name = "filled", .target = "/filled"}});
    ASSERT_TRUE(given);
    ASSERT_TRUE(catalogue_.give("b", {{.name = "shared", .target = "/x"}}));
    ASSERT_TRUE(os::write_file_atomic(in("named/filled/f"), "somebody's"));
    ASSERT_TRUE(catalogue_.undo(*given));
    EXPECT_EQ(names("named"), (Names{"filled", "new", "old", "shared"})) << "it is still the box's";
    ASSERT_TRUE(catalogue_.release("a"));
    ASSERT_TRUE(catalogue_.undo(*given));
    EXPECT_EQ(names("named"), (Names{"filled", "old", "shared"}));
    EXPECT_EQ(names("info"), (Names{"filled", "old", "shared"}));
    EXPECT_EQ(names("anonymous"), Names{});
}

TEST_F(CatalogueTest, SweepsWhatDeadProcessesLeft) {
    ASSERT_TRUE(catalogue_.give("alive", {{.target = "/a"}}));
    ASSERT_TRUE(catalogue_.give("dead", {{.target = "/a"}, {.name = "data", .target = "/data"}}));
    ASSERT_TRUE(os::make_directories(in("anonymous/01arz3ndektsv4rrffq69g5fav/full")));
    ASSERT_TRUE(os::make_directories(in("trash/01arz3ndektsv4rrffq69g5faw")));
    ASSERT_TRUE(os::write_file_atomic(in("info/gone"), ""));
    ASSERT_TRUE(os::write_file_atomic(in("boxes/dead.tmp.123456"), "half"));
    auto kept = catalogue_.mounts("alive")->mounts(0).volume();
    ASSERT_TRUE(catalogue_.sweep(known({"alive"}), true));
    EXPECT_EQ(names("boxes"), Names{"alive"});
    EXPECT_EQ(names("anonymous"), Names{kept});
    EXPECT_EQ(names("named"), Names{"data"}) << "named ones stay";
    EXPECT_EQ(names("info"), Names{"data"});
    EXPECT_TRUE(names("trash").empty());
}

TEST_F(CatalogueTest, SweepAsksNobodyIfNothingIsThere) {
    ASSERT_TRUE(catalogue_.create("data", false, 0, {}));
    EXPECT_TRUE(catalogue_.sweep([]() -> Result<std::vector<std::string>> { return base::failure(Errc::kInternal, "asked"); }));
}

TEST_F(CatalogueTest, SweepDoesNotWait) {
    ASSERT_TRUE(catalogue_.give("dead", {{.target = "/a"}}));
    auto lock = os::FileLock::acquire(in("lock"));
    ASSERT_TRUE(catalogue_.sweep(known({})));
    EXPECT_EQ(names("boxes"), Names{"dead"});
}

TEST_F(CatalogueTest, KeepsAnonymousVolumesThatADamagedRecordMayMention) {
    ASSERT_TRUE(catalogue_.give("alive", {{.target = "/a"}}));
    ASSERT_TRUE(os::write_file_atomic(in("boxes/alive"), "\xff\xff\xff"));
    ASSERT_TRUE(catalogue_.sweep(known({"alive"}), true));
    EXPECT_EQ(names("anonymous").size(), 1u);
    EXPECT_EQ(catalogue_.mounts("alive").error().code, Errc::kCorrupt);
}

TEST_F(CatalogueTest, StagedVolumesAppearWholeOrNotAtAll) {
    {
        auto dropped = catalogue_.stage();
        ASSERT_TRUE(dropped);
        ASSERT_TRUE(os::write_file_atomic(dropped->path() + "/f", "x"));
        ASSERT_TRUE(catalogue_.sweep(known({}), true));
        EXPECT_EQ(names("trash").size(), 1u) << "it is still being filled";
    }
    EXPECT_TRUE(names("trash").empty());
    auto staged = catalogue_.stage();
    ASSERT_TRUE(os::write_file_atomic(staged->path() + "/f", "x"));
    ASSERT_TRUE(catalogue_.create("data", 0, {}, std::move(*staged)));
    EXPECT_TRUE(os::exists(in("named/data/f")));
    EXPECT_TRUE(names("trash").empty());
    EXPECT_EQ(catalogue_.create("data", 0, {}, std::move(*catalogue_.stage())).error().code, Errc::kAlreadyExists);
    EXPECT_TRUE(names("trash").empty());
    EXPECT_TRUE(os::exists(in("named/data/f")));
}

TEST_F(CatalogueTest, DisksAppearWhenTheyAreComplete) {
    std::string made;
    auto fails = [&](const std::string& path) -> Result<> {
        made = path;
        CAISSON_TRY(os::write_file_atomic(path, "half"));
        return base::failure(Errc::kNoSpace, "full");
    };
    EXPECT_EQ(catalogue_.create("disk", true, 1 << 20, {}, fails).error().code, Errc::kNoSpace);
    EXPECT_FALSE(os::exists(made));
    for (const char* directory : {"disks", "info", "trash"}) EXPECT_TRUE(names(directory).empty()) << directory;
    ASSERT_TRUE(catalogue_.create("disk", true, 1 << 20, {}, [](const std::string& path) { return os::write_file_atomic(path, "whole"); }));
    EXPECT_TRUE(catalogue_.find("disk")->disk);
    EXPECT_EQ(catalogue_.create("disk", false, 0, {}).error().code, Errc::kAlreadyExists);
    EXPECT_TRUE(catalogue_.give("box1", {{.name = "disk", .target = "/a"}})->mounts(0).disk());
    EXPECT_EQ(catalogue_.give("box2", {{.name = "disk", .subpath = "x", .target = "/a"}}).error().code, Errc::kUsage);
    ASSERT_TRUE(catalogue_.release("box1"));
    EXPECT_TRUE(catalogue_.remove("disk"));
}

TEST_F(CatalogueTest, CountsAnewWhenNobodyElseDoes) {
    ASSERT_TRUE(catalogue_.create("data", false, 10 << 20, {}));
    ASSERT_TRUE(os::write_file_atomic(in("named/data/f"), std::string(1 << 20, 'x')));
    {
        auto first = catalogue_.open_space(Kind::kNamed, "data");
        ASSERT_TRUE(first);
        EXPECT_GE(count_of(*first), 1 << 20);
        std::int64_t counted = 42;
        ASSERT_EQ(::pwrite(first->get(), &counted, sizeof counted, 0), static_cast<ssize_t>(sizeof counted));
        auto second = catalogue_.open_space(Kind::kNamed, "data");
        EXPECT_EQ(count_of(*second), 42) << "the first one counts";
    }
    EXPECT_GE(count_of(*catalogue_.open_space(Kind::kNamed, "data")), 1 << 20);
    EXPECT_EQ(catalogue_.open_space(Kind::kNamed, "other").error().code, Errc::kNotFound);
}

TEST_F(CatalogueTest, ManyGiveAndReleaseAtOnce) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&, i] {
            for (int round = 0; round < 10; ++round) {
                const auto box = "box" + std::to_string(i);
                EXPECT_TRUE(catalogue_.give(box, {{.target = "/a"}, {.name = "data", .target = "/data"}}));
                EXPECT_TRUE(catalogue_.release(box));
            }
        });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(names("named"), Names{"data"});
    for (const char* directory : {"anonymous", "boxes", "trash"}) EXPECT_TRUE(names(directory).empty()) << directory;
}

}  // namespace
}  // namespace caisson::volume
