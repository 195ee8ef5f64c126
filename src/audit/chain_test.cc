#include "audit/chain.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "audit/test_support.h"
#include "audit/verify.h"
#include "os/process.h"

namespace caisson::audit {
namespace {

using Chain = JournalTest;
const Actor kActor{1, 2, "test"};

TEST_F(Chain, EntriesComeBackInOrder) {
    fill(3);
    const auto all = entries();
    ASSERT_EQ(all.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(all[i].sequence, i + 1);
        EXPECT_EQ(all[i].kind, "n" + std::to_string(i));
        EXPECT_TRUE(all[i].intact);
    }
    struct stat info {};
    ASSERT_EQ(::stat(file().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0600U);
}

TEST_F(Chain, AnotherWriterGoesOn) {
    fill(2);
    fill(2);
    EXPECT_EQ(entries().size(), 4U);
    EXPECT_FALSE(verify_chain(path(), {})->finding);
}

TEST_F(Chain, AnotherWriterGoesOnBehindLinesOfAnySize) {
    for (std::size_t words : {1U, 2U, 3U, 4U, 20U, 1U}) {
        const std::vector<std::string> list(words, std::string(1000, '\x01'));
        ASSERT_TRUE(Writer::open(path())->append({"n", "", "", {{"list", list}}}, kActor, 0, nothing));
    }
    auto verified = verify_chain(path(), {});
    EXPECT_FALSE(verified->finding);
    EXPECT_EQ(verified->entries, 6U);
    // Behind a piece that is longer than what is looked at first, too.
    put(text() + std::string(100000, 'x'));
    fill(1);
    EXPECT_FALSE(verify_chain(path(), {})->finding);
    EXPECT_EQ(entries().size(), 8U);
}

TEST_F(Chain, WritersTakeTurns) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back([this] { fill(50, {4096, 100}); });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(entries().size(), 200U);
    auto verified = verify_chain(path(), {});
    ASSERT_TRUE(verified);
    EXPECT_FALSE(verified->finding) << verified->finding->text;
    EXPECT_EQ(verified->entries, 200U);
}

// Nobody waits for ever for a supervisor that was taken over.
TEST_F(Chain, AKeptLockIsAnError) {
    fill(1);
    auto other = os::open_file(path(), O_RDONLY | O_DIRECTORY);
    ASSERT_TRUE(other);
    ASSERT_EQ(::flock(other->get(), LOCK_EX), 0);
    auto writer = Writer::open(path());
    ASSERT_TRUE(writer);
    const auto begin = std::chrono::steady_clock::now();
    auto appended = writer->append({"a"}, kActor, 1777636800000, nothing);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
    ASSERT_FALSE(appended);
    EXPECT_EQ(appended.error().code, Errc::kInUse);
    ASSERT_EQ(::flock(other->get(), LOCK_UN), 0);
    EXPECT_TRUE(writer->append({"a"}, kActor, 1777636800000, nothing));
}

TEST_F(Chain, AChainHasNoMoreFilesThanItCanHave) {
    fill(1);
    for (std::uint64_t i = 2; i < 100; ++i) put("", i);
    Cursor cursor(path());
    Result<std::optional<Entry>> entry = std::optional<Entry>();
    for (int i = 0; i < 3 && entry; ++i) entry = cursor.next();
    EXPECT_FALSE(entry);
}

TEST_F(Chain, GoesOnInFurtherFiles) {
    const auto head = fill(30, {1024, 100});
    auto directory = os::open_file(path(), O_RDONLY | O_DIRECTORY);
    const auto files = list_files(*directory);
    ASSERT_TRUE(files);
    EXPECT_GT(files->size(), 3U);
    for (auto first : *files) EXPECT_LE(text(first).size(), 1024U);
    EXPECT_EQ(entries().size(), 30U);
    auto verified = verify_chain(path(), {head});
    EXPECT_FALSE(verified->finding);
}

TEST_F(Chain, TheOldestFilesGo) {
    const ChainLimits limits{1024, 2};
    const auto head = fill(30, limits);
    auto writer = Writer::open(path(), limits);
    std::uint64_t first = 0;
    ASSERT_TRUE(writer->trim([&](std::uint64_t kept) -> Result<> {
        first = kept;
        return {};
    }));
    EXPECT_GT(first, 1U);
    const auto all = entries();
    EXPECT_EQ(all.front().sequence, first);
    EXPECT_EQ(all.back().sequence, 30U);
    EXPECT_FALSE(verify_chain(path(), {head, first})->finding);
    // Nobody else may take one away.
    ASSERT_EQ(::unlink(file(first).c_str()), 0);
    auto verified = verify_chain(path(), {head, first});
    ASSERT_TRUE(verified->finding);
    EXPECT_EQ(verified->finding->problem, Finding::Problem::kMissing);
    EXPECT_EQ(verified->finding->sequence, first);
}

// A power cut, or a process that was killed, in the middle of a line: wherever it was cut, the chain goes on, says so,
// and nobody takes it for somebody's doing.
TEST_F(Chain, ALineThatWasCutAtAnyByteIsMended) {
    const auto acknowledged = fill(2);
    const auto whole = text();
    fill(1);
    const auto longer = text();
    for (std::size_t size = whole.size(); size < longer.size(); ++size) {
        put(longer.substr(0, size));
        auto before = verify_chain(path(), {acknowledged});
        ASSERT_TRUE(before);
        EXPECT_FALSE(before->finding) << size;
        EXPECT_EQ(before->unfinished, size > whole.size());
        const auto head = fill(1, {}, acknowledged);
        auto after = verify_chain(path(), {head});
        ASSERT_TRUE(after);
        EXPECT_FALSE(after->finding) << size << ": " << after->finding->text;
        EXPECT_FALSE(after->unfinished);
        const auto all = entries();
        ASSERT_EQ(all.size(), size == whole.size() ? 3U : 4U);
        if (size > whole.size()) { EXPECT_EQ(all[2].kind, "journal_torn"); }
    }
}

TEST_F(Chain, ZerosThatAFileSystemLeftAreMended) {
    const auto acknowledged = fill(2);
    put(text() + std::string(300, '\0'));
    const auto head = fill(1, {}, acknowledged);
    EXPECT_FALSE(verify_chain(path(), {head})->finding);
    EXPECT_EQ(entries()[2].kind, "journal_torn");
}

// Of what was not acknowledged any part may be missing, also one with later ones behind it.
TEST_F(Chain, AHoleThatAPowerFailureLeftIsMended) {
    const auto acknowledged = fill(2);
    const auto kept = text();
    fill(40);
    const auto whole = text();
    for (std::size_t hole : {kept.size(), whole.size() - 200, kept.size() + 100}) {
        auto torn = whole;
        torn.replace(hole, 150, 150, '\0');
        put(torn);
        auto before = verify_chain(path(), {acknowledged});
        ASSERT_TRUE(before);
        EXPECT_FALSE(before->finding) << hole;
        EXPECT_TRUE(before->unfinished);
        const auto head = fill(1, {}, acknowledged);
        auto after = verify_chain(path(), {head});
        ASSERT_TRUE(after);
        EXPECT_FALSE(after->finding) << hole << ": " << after->finding->text;
        EXPECT_FALSE(after->unfinished);
        const auto all = entries();
        EXPECT_EQ(all[all.size() - 2].kind, "journal_torn");
    }
}

// Where it was acknowledged it cannot have been a power failure.
TEST_F(Chain, AHoleInWhatWasAcknowledgedIsFound) {
    fill(2);
    const auto kept = text();
    const auto acknowledged = fill(3);
    auto torn = text();
    torn.replace(kept.size() + 10, 20, 20, '\0');
    put(torn);
    auto verified = verify_chain(path(), {acknowledged});
    ASSERT_TRUE(verified->finding);
    EXPECT_EQ(verified->finding->sequence, 3U);
    const auto head = fill(1, {}, acknowledged);
    verified = verify_chain(path(), {head});
    ASSERT_TRUE(verified->finding);
    EXPECT_EQ(verified->finding->sequence, 3U);
}

// What was acknowledged cannot be lost by a crash: the gap stays for verify to name.
TEST_F(Chain, AGapIsNotClosed) {
    const auto head = fill(5);
    const auto lines = text();
    std::size_t end = 0;
    for (int i = 0; i < 3; ++i) end = lines.find('\n', end) + 1;
    put(lines.substr(0, end + 10));
    const auto now = fill(2, {}, head);
    EXPECT_GT(now.sequence, head.sequence);
    auto verified = verify_chain(path(), {now});
    ASSERT_TRUE(verified->finding);
    EXPECT_EQ(verified->finding->problem, Finding::Problem::kMissing);
    EXPECT_EQ(verified->finding->sequence, 4U);
    bool told = false;
    for (const auto& entry : entries()) told = told || (entry.kind == "journal_gap" && entry.details.find("\"missing_from\":4,\"missing_to\":5") != std::string::npos);
    EXPECT_TRUE(told);
}

// As on a full disk: nothing half-written stays, and later entries go on.
TEST_F(Chain, AShortWriteIsTakenBack) {
    fill(2);
    const auto before = text();
    ::signal(SIGXFSZ, SIG_IGN);
    struct rlimit old {};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
    auto writer = Writer::open(path());
    for (std::size_t room : {std::size_t{0}, std::size_t{1}, std::size_t{100}}) {
        const struct rlimit small {before.size() + room, old.rlim_max};
        ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
        auto appended = writer->append({"x"}, kActor, 0, nothing);
        ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
        EXPECT_FALSE(appended);
        EXPECT_EQ(text(), before);
    }
    EXPECT_TRUE(writer->append({"y"}, kActor, 0, nothing));
    EXPECT_FALSE(verify_chain(path(), {})->finding);
    EXPECT_EQ(entries().size(), 3U);
}

TEST_F(Chain, ReadersSeeWhatComes) {
    Cursor cursor(path());
    EXPECT_FALSE(*cursor.next());
    for (int i = 0; i < 20; ++i) {
        fill(1, {700, 100});
        auto entry = cursor.next();
        ASSERT_TRUE(entry && *entry) << i;
        EXPECT_EQ((*entry)->sequence, static_cast<std::uint64_t>(i + 1));
        EXPECT_FALSE(*cursor.next());
    }
}

TEST_F(Chain, ReadersPassWhatCannotBeRead) {
    fill(2);
    put("rubbish\n" + text() + std::string(limits::kLongestLine * 3, 'x') + "\n");
    Cursor cursor(path());
    int good = 0;
    while (*cursor.next()) ++good;
    EXPECT_EQ(good, 2);
    EXPECT_GE(cursor.unreadable(), 1U);
}

}  // namespace
}  // namespace caisson::audit
