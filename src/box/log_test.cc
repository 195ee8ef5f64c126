// The log's writer, files and reader together; what is damaged is made so by hand.
#include "box/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "box/log_file.h"
#include "box/log_reader.h"
#include "os/file.h"

namespace caisson::box {
namespace {

using std::chrono::milliseconds;
using testing::Test;

struct Read {
    LogKind kind;
    LogSource source;
    std::uint64_t sequence;
    std::int64_t unix_ns;
    std::string text;
    std::uint64_t count;  // lost bytes or missing records
    bool damaged;
};

class LogTest : public Test {
  protected:
    os::TemporaryDirectory directory_ = os::TemporaryDirectory::create("/tmp", "caisson-log-test-").value();
    std::int64_t clock_ = 1000;

    const std::string& place() const { return directory_.path(); }
    std::string file(unsigned slot = 0) const { return place() + "/" + log_file_name("output", slot); }
    LogWriter open(LogLimits limits = {}) { return LogWriter::open(place(), "output", limits).value(); }
    void append(LogWriter& writer, std::string_view text, LogSource source = LogSource::kStdout) {
        writer.append(source, base::as_bytes(text), clock_++);
    }
    // What the last reading ended with.
    Result<> ended_;
    std::vector<Read> read(
        const LogQuery& query = {}, const std::function<bool()>& still_written = [] { return false; }) {
        std::vector<Read> all;
        ended_ = read_log(place(), "output", query, still_written, [&](const LogRecord& record) -> Result<bool> {
            all.push_back({record.kind, record.source, record.sequence, record.unix_ns,
                           std::string(base::as_text(record.bytes)),
                           record.kind == LogKind::kLost ? record.lost_bytes : record.missing_records, record.damaged});
            return true;
        });
        return all;
    }
    std::string text(const LogQuery& query = {}) {
        std::string all;
        for (const auto& record : read(query)) all += record.text;
        EXPECT_TRUE(ended_.has_value()) << ended_.error().to_string();
        return all;
    }
    std::uint64_t size(unsigned slot = 0) const {
        struct stat status {};
        return ::stat(file(slot).c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
    }
    std::size_t files() const { return os::list_directory(place())->size(); }
    void replace(std::string_view content) {
        auto fd = os::open_file(file(), O_WRONLY | O_TRUNC).value();
        ASSERT_TRUE(os::write_all(fd.get(), content).has_value());
    }
    void put(unsigned slot, std::uint64_t offset, std::string_view bytes) {
        auto fd = os::open_file(file(slot), O_WRONLY).value();
        ASSERT_EQ(::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)),
                  static_cast<ssize_t>(bytes.size()));
    }
};

// While it lives, no file of this process may grow beyond a size. Not for more than one test at a time.
class FileSizeLimit {
  public:
    explicit FileSizeLimit(std::uint64_t bytes) {
        ::signal(SIGXFSZ, SIG_IGN);
        ::getrlimit(RLIMIT_FSIZE, &before_);
        struct rlimit limit {
            bytes, before_.rlim_max
        };
        ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

  private:
    struct rlimit before_ {};
};

TEST(Crc32c, HasTheValuesOfRfc3720) {
    EXPECT_EQ(crc32c(base::Bytes(32, 0)), 0x8a9136aau);
    EXPECT_EQ(crc32c(base::Bytes(32, 0xff)), 0x62a8ab43u);
    EXPECT_EQ(crc32c(base::as_bytes("123456789")), 0xe3069283u);
    EXPECT_EQ(crc32c(base::as_bytes("6789"), crc32c(base::as_bytes("12345"))), 0xe3069283u);
}

TEST_F(LogTest, GivesBackWhatWasWrittenWithSourceTimeAndNumber) {
    auto writer = open();
    EXPECT_EQ(writer.position(), 0u);
    append(writer, "one\n");
    append(writer, std::string("t\0wo", 4), LogSource::kStderr);
    append(writer, "");
    EXPECT_EQ(writer.position(), 2u) << "nothing was written for no bytes";
    auto all = read();
    ASSERT_TRUE(ended_.has_value());
    ASSERT_EQ(all.size(), 2u);
    EXPECT_EQ(all[0].text, "one\n");
    EXPECT_EQ(all[1].text, std::string("t\0wo", 4));
    EXPECT_EQ(all[1].source, LogSource::kStderr);
    EXPECT_EQ(all[1].unix_ns, 1001);
    EXPECT_EQ(all[1].sequence, 1u);
}

TEST_F(LogTest, DividesLongOutput) {
    auto writer = open();
    const std::string longest(kMostLogRecordBytes, 'x');
    append(writer, longest);
    EXPECT_EQ(writer.position(), 1u);
    append(writer, longest + "y");
    EXPECT_EQ(writer.position(), 3u);
    EXPECT_EQ(text(), longest + longest + "y");
}

TEST_F(LogTest, RefusesNamesThatLeadElsewhereAndLimitsThatCannotBe) {
    for (const char* name : {"", ".", "..", "../output", "a/b", ".hidden", "a b"}) {
        EXPECT_EQ(LogWriter::open(place(), name).error().code, Errc::kUsage) << name;
        EXPECT_EQ(read_log(
                      place(), name, {}, [] { return false; }, [](const LogRecord&) { return true; })
                      .error()
                      .code,
                  Errc::kUsage);
    }
    EXPECT_FALSE(LogWriter::open(place(), std::string(129, 'a')).has_value());
    EXPECT_TRUE(LogWriter::open(place(), std::string(128, 'a')).has_value());
    EXPECT_FALSE(LogWriter::open(place(), "output", {.files = 0}).has_value());
    EXPECT_FALSE(LogWriter::open(place(), "output", {.files = kMostLogFiles + 1}).has_value());
    EXPECT_FALSE(LogWriter::open(place(), "output", {.file_bytes = kLeastLogFileBytes - 1}).has_value());
}

TEST_F(LogTest, SaysThatThereIsNoLog) {
    read();
    EXPECT_EQ(ended_.error().code, Errc::kNotFound);
    read({.follow = true});
    EXPECT_EQ(ended_.error().code, Errc::kNotFound);
    auto writer = open();
    EXPECT_EQ(text(), "") << "an empty one is none that is missing";
}

// ---- rotation

TEST_F(LogTest, KeepsToItsFilesAndTheirSize) {
    for (unsigned most : {1u, 2u, 5u}) {
        ASSERT_TRUE(os::remove_tree(file()).has_value());
        auto writer = open({.file_bytes = kLeastLogFileBytes, .files = most});
        for (int i = 0; i < 1000; ++i) {
            append(writer, std::to_string(i) + " is one of many lines\n");
            ASSERT_LE(files(), most);
            ASSERT_LE(size(), kLeastLogFileBytes);
        }
        EXPECT_EQ(files(), most);
        EXPECT_EQ(writer.lost_bytes(), 0u);
        auto all = read();
        ASSERT_TRUE(ended_.has_value());
        EXPECT_EQ(all.back().text, "999 is one of many lines\n");
        for (std::size_t i = 1; i < all.size(); ++i) ASSERT_EQ(all[i].sequence, all[i - 1].sequence + 1);
        EXPECT_GT(all.size(), (most - 1) * 70);
        for (unsigned slot = 0; slot < most; ++slot) ASSERT_TRUE(os::remove_tree(file(slot)).has_value());
    }
}

TEST_F(LogTest, ARecordThatFillsAFileFits) {
    auto writer = open({.file_bytes = kLeastLogFileBytes, .files = 100});
    const std::string output(20 * kLeastLogFileBytes, 'x');
    append(writer, output);
    EXPECT_EQ(text(), output);
    for (unsigned slot = 0; slot < files(); ++slot) EXPECT_LE(size(slot), kLeastLogFileBytes);
}

TEST_F(LogTest, FewerFilesThanBeforeRemoveTheOldest) {
    {
        auto writer = open({.file_bytes = kLeastLogFileBytes, .files = 8});
        append(writer, std::string(40000, 'x'));
        EXPECT_EQ(files(), 8u);
    }
    auto writer = open({.file_bytes = kLeastLogFileBytes, .files = 2});
    EXPECT_EQ(files(), 2u);
    append(writer, "end");
    auto all = read();
    EXPECT_TRUE(ended_.has_value());
    EXPECT_EQ(all.back().text, "end");
}

TEST_F(LogTest, ARotationCutShortLosesNothing) {
    std::string written;
    {
        auto writer = open({.file_bytes = kLeastLogFileBytes, .files = 4});
        for (int i = 0; i < 100; ++i)
            append(writer, std::string(99, 'x') + "\n"), written += std::string(99, 'x') + "\n";
    }
    ASSERT_GE(files(), 3u);
    // Killed after its first step, and while it made the new file; then without power.
    const auto before = files();
    for (unsigned slot = static_cast<unsigned>(before); slot > 0; --slot)
        ::rename(file(slot - 1).c_str(), file(slot).c_str());
    EXPECT_EQ(text(), written);
    ::close(::open((file() + ".new").c_str(), O_WRONLY | O_CREAT, 0600));
    ::close(::open(file().c_str(), O_WRONLY | O_CREAT, 0600));
    EXPECT_EQ(text(), written);
    auto writer = open({.file_bytes = kLeastLogFileBytes, .files = 5});
    EXPECT_EQ(writer.position(), 100u);
    EXPECT_EQ(files(), before + 1);
    append(writer, "more");
    EXPECT_EQ(text(), written + "more");
}

// ---- killed writers, damage

TEST_F(LogTest, GoesOnWhereItStopped) {
    for (int i = 0; i < 5; ++i) {
        auto writer = open();
        EXPECT_EQ(writer.position(), static_cast<std::uint64_t>(i));
        append(writer, std::to_string(i));
    }
    EXPECT_EQ(files(), 1u);
    EXPECT_EQ(text(), "01234");
}

TEST_F(LogTest, CutsOffATornRecordWhereverItWasTorn) {
    {
        auto writer = open();
        append(writer, "whole");
    }
    const auto whole = size();
    {
        auto writer = open();
        append(writer, "torn");
    }
    const auto content = os::read_file(file()).value();
    for (auto length = whole; length < content.size(); ++length) {
        replace(std::string_view(content).substr(0, length));
        EXPECT_EQ(text(), "whole") << "and that is no damage";
        auto writer = open();
        EXPECT_EQ(writer.position(), 1u);
        EXPECT_EQ(size(), whole);
        append(writer, "next");
        EXPECT_EQ(text(), "wholenext");
    }
}

TEST_F(LogTest, ZerosThatAPowerCutLeftAreNoDamage) {
    {
        auto writer = open();
        append(writer, "whole");
    }
    const auto whole = size();
    ASSERT_EQ(::truncate(file().c_str(), static_cast<off_t>(whole + 5000)), 0);
    EXPECT_EQ(text(), "whole");
    auto writer = open();
    append(writer, "next");
    EXPECT_EQ(text(), "wholenext");
}

TEST_F(LogTest, AKilledWriterLosesNothingThatWasAppended) {
    int says[2];
    ASSERT_EQ(::pipe(says), 0);
    const pid_t child = ::fork();
    if (child == 0) {
        auto writer = open({.file_bytes = 1 << 20, .files = 100});
        for (std::uint64_t i = 0;; ++i) {
            append(writer, std::to_string(i) + "\n");
            if (::write(says[1], &i, sizeof i) != sizeof i) ::_exit(1);
        }
    }
    ::close(says[1]);
    std::uint64_t appended = 0;
    while (appended < 3000)
        ASSERT_EQ(::read(says[0], &appended, sizeof appended), static_cast<ssize_t>(sizeof appended));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(says[0], &appended, sizeof appended) == sizeof appended) {}
    ::close(says[0]);
    auto all = read();
    ASSERT_TRUE(ended_.has_value());
    ASSERT_GE(all.size(), appended + 1);
    for (std::size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i].text, std::to_string(i) + "\n");
}

TEST_F(LogTest, PassesOverDamageAndSaysHowMuchIsMissing) {
    std::vector<std::uint64_t> ends;
    {
        auto writer = open();
        for (int i = 0; i < 10; ++i) append(writer, "record " + std::to_string(i)), ends.push_back(size());
    }
    put(0, ends[2] + 3, "\xff");                                // the header of 3
    put(0, ends[4] + kLogRecordHeaderBytes + 2, "\xff");        // the bytes of 5
    put(0, ends[6], std::string(ends[8] - ends[6] + 4, '\0'));  // 7, 8 and a bit of 9
    auto all = read();
    EXPECT_EQ(ended_.error().code, Errc::kCorrupt);
    std::string seen;
    for (const auto& record : all) {
        if (record.kind == LogKind::kMissing) {
            EXPECT_TRUE(record.damaged);
            seen += "-" + std::to_string(record.count) + "-";
        } else {
            seen += std::to_string(record.sequence);
        }
    }
    EXPECT_EQ(seen, "012-1-4-1-6");
    // The end is damage that nothing follows: it is cut off, but its numbers are not given again.
    auto writer = open();
    EXPECT_GE(writer.position(), 7u);
    append(writer, "next");
    EXPECT_EQ(read().back().text, "next");
}

TEST_F(LogTest, OutputThatLooksLikeARecordIsNotTakenForOne) {
    // The guest knows everything but the salt.
    std::uint8_t header[kLogRecordHeaderBytes];
    const std::string forged = "forged";
    encode({6, LogSource::kStderr, LogKind::kBytes, 1, 7, crc32c(base::as_bytes(forged), 0)}, 0, header);
    std::string output;
    for (int i = 0; i < 100; ++i) output += std::string(base::as_text(header)) + forged;
    {
        auto writer = open();
        append(writer, output);
        append(writer, "true");
    }
    put(0, kLogFileHeaderBytes, "\xff\xff");
    auto all = read();
    EXPECT_EQ(ended_.error().code, Errc::kCorrupt);
    ASSERT_EQ(all.size(), 2u);
    EXPECT_EQ(all[0].count, 1u);
    EXPECT_EQ(all[1].text, "true");
}

TEST_F(LogTest, AFileThatIsNoneIsPassedOver) {
    {
        auto writer = open({.file_bytes = kLeastLogFileBytes, .files = 3});
        for (int i = 0; i < 90; ++i) append(writer, std::string(100, 'x'));
    }
    ASSERT_EQ(files(), 3u);
    put(1, 0, "garbage");
    auto all = read();
    EXPECT_EQ(ended_.error().code, Errc::kCorrupt);
    EXPECT_EQ(
        std::count_if(all.begin(), all.end(), [](const Read& record) { return record.kind == LogKind::kMissing; }), 1);
    put(0, 0, "garbage");
    auto writer = open({.file_bytes = kLeastLogFileBytes, .files = 3});
    EXPECT_GE(writer.position(), 90u) << "numbers are not given twice";
    append(writer, "next");
    EXPECT_EQ(read().back().text, "next");
}

TEST_F(LogTest, EveryDamagedByteLeavesAReadableRest) {
    {
        auto writer = open();
        for (int i = 0; i < 4; ++i) append(writer, "record " + std::to_string(i));
    }
    const auto content = os::read_file(file()).value();
    for (std::size_t at = kLogFileHeaderBytes; at < content.size(); ++at) {
        auto damaged = content;
        damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
        replace(damaged);
        std::size_t whole = 0;
        for (const auto& record : read())
            if (record.kind == LogKind::kBytes) {
                ++whole;
                EXPECT_EQ(record.text, "record " + std::to_string(record.sequence));
            }
        EXPECT_EQ(whole, 3u) << at;
        EXPECT_EQ(ended_.error().code, Errc::kCorrupt) << at;
    }
}

// ---- a full disk

TEST_F(LogTest, CountsWhatCannotBeWrittenAndSaysSoLater) {
    auto writer = open();
    append(writer, "before\n");
    {
        FileSizeLimit limit(size() + 40);  // a part of the next record fits
        append(writer, "this is lost\n");
        append(writer, "this, too\n", LogSource::kStderr);
        EXPECT_EQ(writer.position(), 1u);
    }
    EXPECT_EQ(writer.lost_bytes(), 23u);
    EXPECT_EQ(text(), "before\n") << "no torn record stays";
    append(writer, "after\n");
    auto all = read();
    ASSERT_TRUE(ended_.has_value());
    ASSERT_EQ(all.size(), 3u);
    EXPECT_EQ(all[1].kind, LogKind::kLost);
    EXPECT_EQ(all[1].count, 23u);
    EXPECT_EQ(all[1].unix_ns, 1001) << "when it began";
    EXPECT_EQ(all[2].text, "after\n");
    EXPECT_EQ(writer.position(), 3u);
}

TEST_F(LogTest, SaysWhatWasLostWhenItIsClosed) {
    {
        std::optional<LogWriter> writer(open());
        FileSizeLimit limit(size());
        append(*writer, "lost");
        writer.reset();
    }
    EXPECT_EQ(read().size(), 0u) << "nor could that be written";
    {
        auto writer = open();
        {
            FileSizeLimit limit(size());
            append(writer, "lost");
        }
    }
    auto all = read();
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(all[0].count, 4u);
}

TEST_F(LogTest, LosesNoOldFileWhileItCannotBeginANewOne) {
    std::string written(3900, 'x');
    auto writer = open({.file_bytes = kLeastLogFileBytes, .files = 3});
    append(writer, written);
    {
        FileSizeLimit limit(10);  // not even a file's header
        for (int i = 0; i < 20; ++i) append(writer, std::string(1000, 'y'));
    }
    EXPECT_EQ(writer.lost_bytes(), 20000u);
    EXPECT_EQ(text(), written);
    append(writer, "z");
    EXPECT_EQ(text(), written + "z");
}

TEST_F(LogTest, ADiskThatIsFullForAWhile) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root to mount a small tmpfs";
    const pid_t child = ::fork();
    if (child == 0) {
        // In a namespace of its own, which takes the mount away with the process.
        if (::unshare(CLONE_NEWNS) != 0 ||
            ::system(("mount --make-rprivate / && mount -t tmpfs -o size=64k none " + place()).c_str()) != 0)
            ::_exit(77);
        auto writer = open({.file_bytes = 1 << 20, .files = 3});
        auto filler = os::open_file(place() + "/filler", O_WRONLY | O_CREAT, 0600).value();
        while (::write(filler.get(), std::string(4096, 'f').data(), 4096) == 4096) {}
        const auto before = writer.position();
        for (int i = 0; i < 100; ++i) append(writer, std::string(1000, 'x'));
        const auto lost = writer.lost_bytes();
        if (lost < 90000 || ::ftruncate(filler.get(), 0) != 0) ::_exit(1);
        append(writer, "after");
        std::uint64_t found = 0;
        int error = 0;
        auto ended = read_log(
            place(), "output", {}, [] { return false; },
            [&](const LogRecord& record) -> Result<bool> {
                if (record.kind == LogKind::kLost) found += record.lost_bytes, error = record.error_number;
                return true;
            });
        ::_exit(ended && found == lost && error == ENOSPC && writer.position() > before ? 0 : 2);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "may not mount a tmpfs here";
    EXPECT_EQ(status, 0);
}

// ---- queries

TEST_F(LogTest, ChoosesBySourceTimeAndPosition) {
    auto writer = open();
    append(writer, "a");
    append(writer, "B", LogSource::kStderr);
    append(writer, "c");
    const auto position = writer.position();
    append(writer, "D", LogSource::kStderr);
    append(writer, "!", LogSource::kConsole);
    EXPECT_EQ(text(), "aBcD");
    EXPECT_EQ(text({.want_stdout = false}), "BD");
    EXPECT_EQ(text({.want_stderr = false, .want_console = true}), "ac!");
    EXPECT_EQ(text({.since_ns = 1001}), "BcD");
    EXPECT_EQ(text({.until_ns = 1001}), "aB");
    EXPECT_EQ(text({.since_ns = 1001, .until_ns = 1002}), "Bc");
    EXPECT_EQ(text({.since_ns = 1001, .until_ns = 1002, .tail_lines = 1, .want_stdout = false}), "B");
    EXPECT_EQ(text({.up_to_position = position}), "aBc");
    EXPECT_EQ(text({.follow = true, .up_to_position = position}), "aBc");
    EXPECT_EQ(text({.up_to_position = 0}), "");
    EXPECT_EQ(text({.tail_lines = 1, .want_stderr = false, .up_to_position = position}), "ac");
}

TEST_F(LogTest, EndsWhenTheSinkHasEnough) {
    auto writer = open();
    for (int i = 0; i < 10; ++i) append(writer, "x");
    int given = 0;
    EXPECT_TRUE(
        read_log(
            place(), "output", {.follow = true}, [] { return true; }, [&](const LogRecord&) { return ++given < 3; })
            .has_value());
    EXPECT_EQ(given, 3);
    auto failed = read_log(
        place(), "output", {}, [] { return true; },
        [&](const LogRecord&) -> Result<bool> { return base::failure(Errc::kCancelled, "enough"); });
    EXPECT_EQ(failed.error().code, Errc::kCancelled);
}

TEST_F(LogTest, TheTailIsOfLinesNotOfRecords) {
    auto writer = open();
    append(writer, "one\ntwo\nth");
    append(writer, "ree\nfour");
    EXPECT_EQ(text({.tail_lines = 0}), "");
    EXPECT_EQ(text({.tail_lines = 1}), "four");
    EXPECT_EQ(text({.tail_lines = 2}), "three\nfour");
    EXPECT_EQ(text({.tail_lines = 3}), "two\nthree\nfour");
    EXPECT_EQ(text({.tail_lines = 4}), "one\ntwo\nthree\nfour");
    EXPECT_EQ(text({.tail_lines = UINT64_MAX}), "one\ntwo\nthree\nfour");
    append(writer, "\n");
    EXPECT_EQ(text({.tail_lines = 1}), "four\n");
    EXPECT_EQ(read({.tail_lines = 2})[0].unix_ns, 1000) << "the time at which it began";
}

TEST_F(LogTest, TheTailOfTwoSourcesKeepsTheirLinesApart) {
    auto writer = open();
    append(writer, "out 1 begins, ");
    append(writer, "ERR 1\n", LogSource::kStderr);
    append(writer, "ERR 2 begins, ", LogSource::kStderr);
    append(writer, "ends\nout 2\n");
    append(writer, "ends\n", LogSource::kStderr);
    EXPECT_EQ(text({.tail_lines = 1}), "out 2\n");
    EXPECT_EQ(text({.tail_lines = 2}), "ERR 2 begins, out 2\nends\n");
    EXPECT_EQ(text({.tail_lines = 3}), "ERR 1\nERR 2 begins, out 2\nends\n");
    EXPECT_EQ(text({.tail_lines = 4}), "out 1 begins, ERR 1\nERR 2 begins, ends\nout 2\nends\n");
    EXPECT_EQ(text({.tail_lines = 1, .want_stdout = false}), "ERR 2 begins, ends\n");
}

TEST_F(LogTest, TheTailReachesAcrossFiles) {
    auto writer = open({.file_bytes = kLeastLogFileBytes, .files = 50});
    std::vector<std::string> lines;
    for (int i = 0; i < 500; ++i) {
        lines.push_back(std::to_string(i) + std::string(static_cast<std::size_t>(i % 90), '.') + "\n");
        append(writer, lines.back());
    }
    ASSERT_GT(files(), 5u);
    for (std::size_t tail : {1u, 7u, 100u, 499u, 500u}) {
        std::string expected;
        for (std::size_t i = lines.size() - tail; i < lines.size(); ++i) expected += lines[i];
        EXPECT_EQ(text({.tail_lines = tail}), expected) << tail;
    }
}

// ---- readers of a log that is written

// Runs `write` in a thread; the log counts as written until it returns.
template <typename Write>
class Writing {
  public:
    explicit Writing(Write write) : thread_([this, write = std::move(write)] { write(), done_ = true; }) {}
    ~Writing() { thread_.join(); }
    std::function<bool()> still() {
        return [this] { return !done_; };
    }

  private:
    std::atomic<bool> done_{false};
    std::thread thread_;
};

TEST_F(LogTest, AFollowerMissesNothingWhileFilesRotate) {
    auto writer = open({.file_bytes = 64 << 10, .files = 3});
    // Never more than half a file ahead of the reader.
    std::mutex mutex;
    std::condition_variable changed;
    std::uint64_t given = 0;
    constexpr std::uint64_t kRecords = 60000;
    Writing writing([&] {
        for (std::uint64_t i = 0; i < kRecords; ++i) {
            append(writer, std::to_string(i) + " some output\n");
            if (i % 256 != 0) continue;
            std::unique_lock lock(mutex);
            changed.wait(lock, [&] { return given + 512 > i; });
        }
    });
    std::uint64_t expected = 0;
    auto ended =
        read_log(place(), "output", {.follow = true}, writing.still(), [&](const LogRecord& record) -> Result<bool> {
            EXPECT_EQ(record.kind, LogKind::kBytes);
            EXPECT_EQ(record.sequence, expected);
            EXPECT_EQ(base::as_text(record.bytes), std::to_string(expected) + " some output\n");
            ++expected;
            if (expected % 128 == 0) {
                std::scoped_lock lock(mutex);
                given = expected;
                changed.notify_one();
            }
            return !HasFailure();
        });
    {
        std::scoped_lock lock(mutex);
        given = UINT64_MAX / 2;
        changed.notify_one();
    }
    EXPECT_TRUE(ended.has_value());
    EXPECT_EQ(expected, kRecords);
    EXPECT_EQ(files(), 3u);
}

TEST_F(LogTest, AFastWriterCostsAReaderNothingUnsaid) {
    auto writer = open({.file_bytes = 16 << 10, .files = 2});
    constexpr std::uint64_t kRecords = 200000;
    Writing writing([&] {
        for (std::uint64_t i = 0; i < kRecords; ++i) append(writer, std::to_string(i) + "\n");
    });
    std::uint64_t next = 0, missing = 0;
    auto ended =
        read_log(place(), "output", {.follow = true}, writing.still(), [&](const LogRecord& record) -> Result<bool> {
            if (next == 0 && missing == 0) next = record.sequence;  // the log may have rotated before we began
            EXPECT_EQ(record.sequence, next);
            if (record.kind == LogKind::kMissing) {
                EXPECT_FALSE(record.damaged);
                missing += record.missing_records;
                next += record.missing_records;
            } else {
                EXPECT_EQ(base::as_text(record.bytes), std::to_string(next) + "\n");
                ++next;
            }
            return !HasFailure();
        });
    EXPECT_TRUE(ended.has_value()) << ended.error().to_string();
    EXPECT_EQ(next, kRecords);
    RecordProperty("missing", std::to_string(missing));
}

TEST_F(LogTest, AReaderThatFallsBehindIsToldHowMuchIsGone) {
    auto writer = open({.file_bytes = kLeastLogFileBytes, .files = 2});
    append(writer, "first");
    std::uint64_t missing = 0, given = 0;
    bool written = true;
    auto ended = read_log(
        place(), "output", {.follow = true}, [&] { return std::exchange(written, false); },
        [&](const LogRecord& record) -> Result<bool> {
            if (record.kind == LogKind::kMissing) {
                missing += record.missing_records;
                EXPECT_FALSE(record.damaged);
                return true;
            }
            if (given++ == 0)
                for (int i = 0; i < 2000; ++i) append(writer, "more");
            return true;
        });
    EXPECT_TRUE(ended.has_value());
    EXPECT_GT(missing, 1000u);
    EXPECT_EQ(missing + given, 2001u);
}

TEST_F(LogTest, WithoutFollowAReadingEndsWhereItBegan) {
    auto writer = open();
    for (int i = 0; i < 10; ++i) append(writer, "old\n");
    int given = 0;
    auto sink = [&](const LogRecord&) -> Result<bool> {
        append(writer, "new\n");
        ++given;
        return true;
    };
    EXPECT_TRUE(read_log(
                    place(), "output", {}, [] { return true; }, sink)
                    .has_value());
    EXPECT_EQ(given, 10);
    EXPECT_TRUE(read_log(
                    place(), "output", {.tail_lines = 3}, [] { return true; }, sink)
                    .has_value());
    EXPECT_EQ(given, 13);
}

TEST_F(LogTest, AFollowerWithoutTailSeesOnlyWhatIsNew) {
    auto writer = open();
    append(writer, "old, unfinished");
    int asked = 0;
    std::string seen;
    auto ended = read_log(
        place(), "output", {.follow = true, .tail_lines = 0},
        [&] {
            if (++asked == 2) append(writer, " new\n");
            return asked < 3;
        },
        [&](const LogRecord& record) -> Result<bool> {
            seen += base::as_text(record.bytes);
            return true;
        });
    EXPECT_TRUE(ended.has_value());
    EXPECT_EQ(seen, " new\n");
}

TEST_F(LogTest, AFollowerIsWokenNotOnlyByTheClock) {
    auto writer = open();
    std::atomic<std::int64_t> appended{0};
    std::vector<double> late_ms;
    auto now = [] { return std::chrono::steady_clock::now().time_since_epoch().count(); };
    std::mutex mutex;
    std::condition_variable changed;
    int seen = 0;
    Writing writing([&] {
        for (int i = 0; i < 20; ++i) {
            appended = now();
            append(writer, "x");
            std::unique_lock lock(mutex);
            changed.wait(lock, [&] { return seen > i; });
        }
    });
    auto ended = read_log(place(), "output", {.follow = true}, writing.still(), [&](const LogRecord&) -> Result<bool> {
        late_ms.push_back(static_cast<double>(now() - appended) / 1e6);
        std::scoped_lock lock(mutex);
        ++seen;
        changed.notify_one();
        return true;
    });
    EXPECT_TRUE(ended.has_value());
    ASSERT_EQ(late_ms.size(), 20u);
    std::sort(late_ms.begin(), late_ms.end());
    EXPECT_LT(late_ms[10], kLogPollMs / 4);
}

TEST_F(LogTest, AFollowerEndsAtItsTimeThoughNothingComes) {
    auto writer = open();
    append(writer, "x");
    int asked = 0;
    EXPECT_EQ(read({.follow = true, .until_ns = 2000}, [&] { return ++asked < 100; }).size(), 1u);
    EXPECT_LT(asked, 3);
}

TEST_F(LogTest, AFollowerIsThereBeforeTheLog) {
    std::optional<LogWriter> writer;
    int asked = 0;
    auto all = read({.follow = true}, [&] {
        if (++asked == 2) {
            writer.emplace(open());
            append(*writer, "first");
        }
        return asked < 3;
    });
    EXPECT_TRUE(ended_.has_value());
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(all[0].text, "first");
}

TEST_F(LogTest, AFollowerGoesOnWhenTheWriterIsReplacedAfterATornRecord) {
    std::optional<LogWriter> writer(open());
    append(*writer, "one");
    int asked = 0;
    auto all = read({.follow = true}, [&] {
        if (++asked == 2) {
            writer.reset();
            auto fd = os::open_file(file(), O_WRONLY | O_APPEND).value();
            EXPECT_EQ(::write(fd.get(), "\x40\0\0\0\x01\x01\0\0torn", 12), 12);
        }
        if (asked == 3) {
            writer.emplace(open());
            append(*writer, "two is longer than what was torn, by far");
        }
        return asked < 4;
    });
    EXPECT_TRUE(ended_.has_value());
    ASSERT_EQ(all.size(), 2u);
    EXPECT_EQ(all[1].sequence, 1u);
}

// ---- memory

TEST_F(LogTest, ALongLogIsReadInLittleMemory) {
    constexpr std::size_t kLogBytes = 128 << 20;
    {
        auto writer = open({.file_bytes = 40 << 20, .files = 4});
        const std::string chunk(32 << 10, 'x');  // one line without an end: the hardest for a tail
        for (std::size_t i = 0; i < kLogBytes / chunk.size(); ++i) append(writer, chunk);
    }
    struct rusage before {
    }, after{};
    ::getrusage(RUSAGE_SELF, &before);
    std::size_t bytes = 0;
    ASSERT_TRUE(read_log(
                    place(), "output", {.tail_lines = 5}, [] { return false; },
                    [&](const LogRecord& record) {
                        bytes += record.bytes.size();
                        return true;
                    })
                    .has_value());
    ::getrusage(RUSAGE_SELF, &after);
    EXPECT_EQ(bytes, kLogBytes);
    EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 8 << 10) << "KiB";
    EXPECT_LE(kLogReadBytes, 512u << 10);
}

}  // namespace
}  // namespace caisson::box
