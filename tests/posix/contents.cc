// What files hold.
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <cstring>

#include "posix/check.h"

using namespace posix;

namespace {
int opened(const char* name, int flags, mode_t mode = 0644) { return static_cast<int>(OKAY(::open(name, flags, mode))); }
char* mapped(int file, std::size_t bytes, int protection, int kind) {
    void* at = ::mmap(nullptr, bytes, protection, kind, file, 0);
    if (at == MAP_FAILED) differs(__LINE__, "mmap failed");
    return static_cast<char*>(at);
}
std::string at(int file, off_t offset, std::size_t bytes) {
    std::string text(bytes, '\0');
    text.resize(static_cast<std::size_t>(OKAY(::pread(file, text.data(), bytes, offset))));
    return text;
}
}  // namespace

CASE(contents_large_file) {
    const auto text = pattern(20 << 20);
    put("f", text);
    EQUAL(status_of("f").st_size, text.size());
    EXPECT(text_of("f") == text);
}
CASE(contents_odd_places_and_sizes) {
    const int file = opened("f", O_CREAT | O_RDWR);
    std::string wanted;
    for (unsigned i = 1; i < 200; ++i) {
        const std::size_t offset = (i * 7919u) % 60000, bytes = (i * 523u) % 9000 + 1;
        const auto part = pattern(bytes, i);
        if (wanted.size() < offset + bytes) wanted.resize(offset + bytes);
        wanted.replace(offset, bytes, part);
        EQUAL(::pwrite(file, part.data(), bytes, static_cast<off_t>(offset)), bytes);
    }
    EXPECT(text_of("f") == wanted);
    EXPECT(at(file, 12345, 6789) == wanted.substr(12345, 6789));
}
CASE(contents_odd_places_and_sizes_write_only) {
    const int file = opened("f", O_CREAT | O_WRONLY);
    std::string wanted;
    for (unsigned i = 1; i < 20; ++i) {
        const std::size_t offset = (i * 79199u) % 3000000, bytes = (i * 523573u) % 2500000 + 1;
        const auto part = pattern(bytes + i, i);  // and from odd places in memory
        if (wanted.size() < offset + bytes) wanted.resize(offset + bytes);
        wanted.replace(offset, bytes, part, i, bytes);
        for (std::size_t done = 0; done < bytes;)
            done += static_cast<std::size_t>(OKAY(::pwrite(file, part.data() + i + done, bytes - done, static_cast<off_t>(offset + done))));
    }
    EXPECT(text_of("f") == wanted);
}
CASE(contents_written_beside_a_map) {
    put("f", pattern(20000));
    const int both = opened("f", O_RDWR), reads = opened("f", O_RDONLY), writes = opened("f", O_WRONLY);
    char* map = mapped(both, 20000, PROT_READ | PROT_WRITE, MAP_SHARED);
    const char* seen = mapped(reads, 20000, PROT_READ, MAP_SHARED);
    std::memcpy(map + 5000, "DIRT", 4);
    EQUAL(::pwrite(writes, "zz", 2, 100), 2);
    EQUAL(::pwrite(writes, "yy", 2, 5002), 2);
    EXPECT(std::memcmp(seen + 100, "zz", 2) == 0);
    EXPECT(std::memcmp(seen + 5000, "DIyy", 4) == 0);
    EXPECT(at(reads, 5000, 4) == "DIyy");
    std::memcpy(map + 5000, "more", 4);
    EXPECT(at(reads, 5000, 4) == "more");
    EQUAL(::pwrite(writes, "q", 1, 4999), 1);
    EXPECT(at(reads, 4999, 5) == "qmore");
}
CASE(contents_vectors) {
    const int file = opened("f", O_CREAT | O_RDWR);
    char a[] = "abc", b[] = "defg";
    const struct iovec parts[2] = {{a, 3}, {b, 4}};
    EQUAL(::pwritev(file, parts, 2, 5), 7);
    EXPECT(text_of("f") == std::string("\0\0\0\0\0abcdefg", 12));
    char c[4], d[4];
    const struct iovec back[2] = {{c, 4}, {d, 4}};
    EQUAL(::preadv(file, back, 2, 5), 7);
    EXPECT(std::memcmp(c, "abcd", 4) == 0 && std::memcmp(d, "efg", 3) == 0);
}
CASE(contents_read_at_and_behind_the_end) {
    put("f", "abc");
    const int file = opened("f", O_RDONLY);
    EXPECT(at(file, 3, 10).empty());
    EXPECT(at(file, 1000000, 10).empty());
    EXPECT(at(file, 2, 10) == "c");
    char byte;
    REFUSED(EINVAL, ::pread(file, &byte, 1, -1));
    const int directory = opened(".", O_RDONLY);
    REFUSED(EISDIR, ::read(directory, &byte, 1));
}
CASE(contents_seen_by_another_process) {
    const int file = opened("f", O_CREAT | O_RDWR);
    EQUAL(::write(file, "one", 3), 3);
    in_child([] {
        EXPECT(text_of("f") == "one");
        const int other = opened("f", O_WRONLY);
        EQUAL(::pwrite(other, "two", 3, 0), 3);
    });
    EXPECT(at(file, 0, 3) == "two");
}
CASE(contents_empty_write) {
    put("f", "abc");
    const auto before = status_of("f");
    const int file = opened("f", O_WRONLY);
    EQUAL(::write(file, "", 0), 0);
    EQUAL(status_of("f").st_size, before.st_size);
}

CASE(truncate_shrinks_and_grows) {
    put("f", "abcdef");
    OKAY(::truncate("f", 3));
    EXPECT(text_of("f") == "abc");
    OKAY(::truncate("f", 8));
    EXPECT(text_of("f") == std::string("abc\0\0\0\0\0", 8));
    OKAY(::truncate("f", 0));
    OKAY(::truncate("f", 5));
    EXPECT(text_of("f") == std::string(5, '\0'));
}
CASE(truncate_open_file) {
    const int file = opened("f", O_CREAT | O_RDWR);
    EQUAL(::write(file, "abcdef", 6), 6);
    OKAY(::ftruncate(file, 2));
    EQUAL(::lseek(file, 0, SEEK_CUR), 6);
    EQUAL(::write(file, "x", 1), 1);
    EXPECT(text_of("f") == std::string("ab\0\0\0\0x", 7));
}
CASE(truncate_within_a_page_leaves_zeros) {
    put("f", std::string(10000, 'x'));
    OKAY(::truncate("f", 5000));
    OKAY(::truncate("f", 10000));
    EXPECT(text_of("f") == std::string(5000, 'x') + std::string(5000, '\0'));
}
CASE(truncate_refusals) {
    OKAY(::mkdir("d", 0755));
    put("f");
    REFUSED(EISDIR, ::truncate("d", 0));
    REFUSED(ENOENT, ::truncate("x", 0));
    REFUSED(EINVAL, ::truncate("f", -1));
    OKAY(::chmod("f", 0444));
    as(1000, 1000, [] { REFUSED(EACCES, ::truncate("f", 0)); });
}
CASE(truncate_times) {
    put("f", "abc");
    const auto before = status_of("f");
    pause_ms(30);
    OKAY(::truncate("f", 1));
    EXPECT(nanoseconds(status_of("f").st_mtim) > nanoseconds(before.st_mtim));
    EXPECT(nanoseconds(status_of("f").st_ctim) > nanoseconds(before.st_ctim));
}
CASE(offsets_beyond_four_gigabytes) {
    const int file = opened("f", O_CREAT | O_RDWR);
    constexpr off_t far = (off_t{1} << 40) + 12345;
    EQUAL(::pwrite(file, "far", 3, far), 3);
    EQUAL(status_of("f").st_size, far + 3);
    EXPECT(at(file, far, 10) == "far");
    EXPECT(at(file, far - 3, 3) == std::string(3, '\0'));
    EXPECT(status_of("f").st_blocks < 1000);
}

CASE(sparse_holes_and_data) {
    const int file = opened("f", O_CREAT | O_RDWR);
    OKAY(::ftruncate(file, 1 << 20));
    EQUAL(::pwrite(file, "x", 1, 512 << 10), 1);
    EQUAL(OKAY(::lseek(file, 0, SEEK_DATA)), 512 << 10);
    EQUAL(OKAY(::lseek(file, 0, SEEK_HOLE)), 0);
    EQUAL(OKAY(::lseek(file, 512 << 10, SEEK_HOLE)), (512 << 10) + 4096);
    REFUSED(ENXIO, ::lseek(file, 600 << 10, SEEK_DATA));
    REFUSED(ENXIO, ::lseek(file, 1 << 20, SEEK_HOLE));
}
CASE(sparse_punched_holes) {
    put("f", std::string(64 << 10, 'x'));
    const int file = opened("f", O_RDWR);
    const auto before = status_of("f").st_blocks;
    OKAY(::fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 16 << 10, 16 << 10));
    EXPECT(at(file, 16 << 10, 16 << 10) == std::string(16 << 10, '\0'));
    EXPECT(at(file, 0, 16 << 10) == std::string(16 << 10, 'x'));
    EQUAL(status_of("f").st_size, 64 << 10);
    OKAY(::fsync(file));
    EXPECT(status_of("f").st_blocks <= before - 32 || before == 0);
    REFUSED(EOPNOTSUPP, ::fallocate(file, FALLOC_FL_PUNCH_HOLE, 0, 4096));
}
CASE(allocate_space) {
    const int file = opened("f", O_CREAT | O_RDWR);
    OKAY(::fallocate(file, 0, 0, 1 << 20));
    EQUAL(status_of("f").st_size, 1 << 20);
    EXPECT(status_of("f").st_blocks >= 2048);
    OKAY(::fallocate(file, FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 20));
    EQUAL(status_of("f").st_size, 1 << 20);
    EQUAL(::posix_fallocate(file, 0, 3 << 20), 0);
    EQUAL(status_of("f").st_size, 3 << 20);
    REFUSED(EINVAL, ::fallocate(file, 0, 0, 0));
    const int reader = opened("f", O_RDONLY);
    REFUSED(EBADF, ::fallocate(reader, 0, 0, 10));
}

CASE(map_shared_reads_and_writes) {
    put("f", std::string(10000, 'a'));
    const int file = opened("f", O_RDWR);
    char* map = mapped(file, 10000, PROT_READ | PROT_WRITE, MAP_SHARED);
    EQUAL(map[9999], 'a');
    map[5000] = 'm';
    EXPECT(at(file, 5000, 1) == "m");
    OKAY(::msync(map, 10000, MS_SYNC));
    in_child([] { EXPECT(text_of("f").substr(4999, 3) == "ama"); });
    EQUAL(::pwrite(file, "w", 1, 6000), 1);
    EQUAL(map[6000], 'w');
    OKAY(::munmap(map, 10000));
}
CASE(map_survives_close_and_unlink) {
    put("f", std::string(8192, 'a'));
    int file = opened("f", O_RDWR);
    char* map = mapped(file, 8192, PROT_READ | PROT_WRITE, MAP_SHARED);
    OKAY(::close(file));
    OKAY(::unlink("f"));
    map[4096] = 'b';
    OKAY(::msync(map, 8192, MS_SYNC));
    EQUAL(map[4096], 'b');
    EQUAL(map[0], 'a');
}
CASE(map_written_without_msync_is_kept) {
    put("f", std::string(8192, 'a'));
    in_child([] {
        const int file = opened("f", O_RDWR);
        char* map = mapped(file, 8192, PROT_READ | PROT_WRITE, MAP_SHARED);
        map[100] = 'z';
    });
    EQUAL(text_of("f")[100], 'z');
    in_child([] {
        const int direct = ::open("f", O_RDONLY | O_DIRECT);
        if (direct < 0) return;
        alignas(4096) static char page[4096];
        EQUAL(::read(direct, page, 4096), 4096);
        EQUAL(page[100], 'z');
    });
}
CASE(map_private_is_private) {
    put("f", std::string(4096, 'a'));
    const int file = opened("f", O_RDONLY);
    char* map = mapped(file, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    map[0] = 'p';
    EXPECT(text_of("f")[0] == 'a');
    if (::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) != MAP_FAILED) differs(__LINE__, "a shared map may be written through a read-only file");
    EQUAL(errno, EACCES);
}
CASE(map_shared_by_two_processes) {
    put("f", std::string(4096, '\0'));
    const int file = opened("f", O_RDWR);
    auto* map = reinterpret_cast<std::uint32_t*>(mapped(file, 4096, PROT_READ | PROT_WRITE, MAP_SHARED));
    const pid_t child = ::fork();
    for (int i = 0; i < 100000; ++i) __atomic_fetch_add(map, 1, __ATOMIC_SEQ_CST);
    if (child == 0) ::_exit(0);
    int status = 0;
    OKAY(::waitpid(child, &status, 0));
    EQUAL(*map, 200000);
}
CASE(map_behind_the_end) {
    put("f", "abc");
    const int file = opened("f", O_RDWR);
    char* map = mapped(file, 8192, PROT_READ | PROT_WRITE, MAP_SHARED);
    EQUAL(map[3], 0);
    map[10] = 'x';
    EQUAL(status_of("f").st_size, 3);
    const pid_t child = ::fork();
    if (child == 0) ::_exit(map[4096]);
    int status = 0;
    OKAY(::waitpid(child, &status, 0));
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}
CASE(map_sees_truncation) {
    put("f", std::string(8192, 'a'));
    const int file = opened("f", O_RDWR);
    char* map = mapped(file, 8192, PROT_READ, MAP_SHARED);
    EQUAL(map[6000], 'a');
    OKAY(::ftruncate(file, 5000));
    EQUAL(map[4999], 'a');
    EQUAL(map[6000], 0);
    OKAY(::ftruncate(file, 8192));
    EQUAL(map[6000], 0);
}
CASE(map_changes_mtime) {
    put("f", std::string(4096, 'a'));
    const auto before = status_of("f");
    const int file = opened("f", O_RDWR);
    pause_ms(30);
    char* map = mapped(file, 4096, PROT_READ | PROT_WRITE, MAP_SHARED);
    map[0] = 'b';
    OKAY(::msync(map, 4096, MS_SYNC));
    OKAY(::munmap(map, 4096));
    OKAY(::close(file));
    EXPECT(nanoseconds(status_of("f").st_mtim) > nanoseconds(before.st_mtim));
}

CASE(direct_io) {
    const int file = opened("f", O_CREAT | O_RDWR | O_DIRECT);
    void* memory = nullptr;
    EQUAL(::posix_memalign(&memory, 4096, 65536), 0);
    std::memset(memory, 'd', 65536);
    EQUAL(::pwrite(file, memory, 65536, 0), 65536);
    std::memset(memory, 0, 65536);
    EQUAL(::pread(file, memory, 65536, 0), 65536);
    EQUAL(static_cast<char*>(memory)[65535], 'd');
    EXPECT(text_of("f") == std::string(65536, 'd'));
    EQUAL(::pread(file, memory, 4096, 65536), 0);
}
CASE(direct_io_and_the_cache_agree) {
    put("f", std::string(8192, 'a'));
    EQUAL(text_of("f")[0], 'a');
    const int direct = opened("f", O_RDWR | O_DIRECT);
    alignas(4096) static char page[4096];
    std::memset(page, 'b', sizeof page);
    EQUAL(::pwrite(direct, page, 4096, 0), 4096);
    EQUAL(text_of("f")[0], 'b');
    const int file = opened("f", O_RDWR);
    EQUAL(::pwrite(file, "c", 1, 5), 1);
    EQUAL(::pread(direct, page, 4096, 0), 4096);
    EQUAL(page[5], 'c');
}

CASE(copy_range_within_and_between) {
    const auto text = pattern(300000);
    put("a", text);
    const int from = opened("a", O_RDWR), to = opened("b", O_CREAT | O_RDWR);
    loff_t in = 1000, out = 50;
    std::size_t left = 200000;
    while (left > 0) {
        const long done = OKAY(::copy_file_range(from, &in, to, &out, left, 0));
        EXPECT(done > 0);
        left -= static_cast<std::size_t>(done);
    }
    EXPECT(text_of("b") == std::string(50, '\0') + text.substr(1000, 200000));
    in = 0;
    out = 299990;
    EQUAL(OKAY(::copy_file_range(from, &in, from, &out, 10, 0)), 10);
    EXPECT(text_of("a").substr(299990) == text.substr(0, 10));
    in = 300000;
    EQUAL(::copy_file_range(from, &in, to, nullptr, 10, 0), 0);
    in = 0;
    out = 5;
    REFUSED(EINVAL, ::copy_file_range(from, &in, from, &out, 10, 0));
    const int reader = opened("b", O_RDONLY);
    REFUSED(EBADF, ::copy_file_range(from, nullptr, reader, nullptr, 10, 0));
}
CASE(sendfile_to_and_from) {
    const auto text = pattern(200000);
    put("a", text);
    const int from = opened("a", O_RDONLY), to = opened("b", O_CREAT | O_RDWR);
    std::size_t done = 0;
    while (done < text.size()) done += static_cast<std::size_t>(OKAY(::sendfile(to, from, nullptr, text.size() - done)));
    EXPECT(text_of("b") == text);
}
CASE(splice_through_a_pipe) {
    put("a", pattern(30000));
    const int from = opened("a", O_RDONLY), to = opened("b", O_CREAT | O_WRONLY);
    int ends[2];
    OKAY(::pipe(ends));
    std::size_t left = 30000;
    while (left > 0) {
        const long got = OKAY(::splice(from, nullptr, ends[1], nullptr, left, 0));
        long moved = 0;
        while (moved < got) moved += OKAY(::splice(ends[0], nullptr, to, nullptr, static_cast<std::size_t>(got - moved), 0));
        left -= static_cast<std::size_t>(got);
    }
    EXPECT(text_of("b") == pattern(30000));
}

CASE(sync_of_everything) {
    const int file = opened("f", O_CREAT | O_RDWR);
    EQUAL(::write(file, "abc", 3), 3);
    OKAY(::fsync(file));
    OKAY(::fdatasync(file));
    OKAY(::sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE));
    OKAY(::syncfs(file));
    const int directory = opened(".", O_RDONLY | O_DIRECTORY);
    OKAY(::fsync(directory));
    OKAY(::fdatasync(directory));
    const int reader = opened("f", O_RDONLY);
    OKAY(::fsync(reader));
}
CASE(sync_on_every_write) {
    for (int flag : {O_SYNC, O_DSYNC}) {
        const int file = opened("f", O_CREAT | O_RDWR | O_TRUNC | flag);
        EXPECT((::fcntl(file, F_GETFL) & flag) == flag);
        EQUAL(::write(file, "abc", 3), 3);
        EXPECT(text_of("f") == "abc");
    }
}
CASE(flags_can_be_changed) {
    put("f", "abc");
    const int file = opened("f", O_RDWR);
    OKAY(::fcntl(file, F_SETFL, O_APPEND));
    EQUAL(::write(file, "d", 1), 1);
    EXPECT(text_of("f") == "abcd");
    OKAY(::fcntl(file, F_SETFL, 0));
    EQUAL(::pwrite(file, "x", 1, 0), 1);
    EXPECT(text_of("f") == "xbcd");
}
CASE(flags_append_can_be_taken_back) {
    put("f", "abc");
    const int file = opened("f", O_RDWR | O_APPEND);
    EQUAL(::write(file, "d", 1), 1);
    OKAY(::fcntl(file, F_SETFL, 0));
    EQUAL(::pwrite(file, "x", 1, 0), 1);
    EXPECT(text_of("f") == "xbcd");
}
CASE(map_beside_a_log_that_is_appended_to) {
    put("f", std::string(4096, 'a'));
    const int log = opened("f", O_RDWR | O_APPEND);
    const int file = opened("f", O_RDWR);
    char* map = mapped(file, 4096, PROT_READ | PROT_WRITE, MAP_SHARED);
    map[10] = 'm';
    EQUAL(::write(log, "end", 3), 3);
    OKAY(::msync(map, 4096, MS_SYNC));
    map[11] = 'n';
    OKAY(::munmap(map, 4096));
    OKAY(::fsync(log));
    EQUAL(status_of("f").st_size, 4099);
    EQUAL(text_of("f")[10], 'm');
    EXPECT(text_of("f").substr(4096) == "end");
}
CASE(descriptors_share_their_offset) {
    put("f", "abcdef");
    const int file = opened("f", O_RDONLY);
    const int copy = static_cast<int>(OKAY(::dup(file)));
    char byte;
    EQUAL(::read(file, &byte, 1), 1);
    EQUAL(::read(copy, &byte, 1), 1);
    EQUAL(byte, 'b');
    in_child([&] { EQUAL(::read(copy, &byte, 1), 1); });
    EQUAL(::read(file, &byte, 1), 1);
    EQUAL(byte, 'd');
}
CASE(readahead_and_advice) {
    put("f", pattern(1 << 20));
    const int file = opened("f", O_RDONLY);
    EQUAL(::posix_fadvise(file, 0, 0, POSIX_FADV_SEQUENTIAL), 0);
    EQUAL(::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), 0);
    OKAY(::readahead(file, 0, 1 << 20));
    EXPECT(text_of("f") == pattern(1 << 20));
}
CASE(file_system_facts) {
    struct statvfs facts {};
    OKAY(::statvfs(".", &facts));
    EXPECT(facts.f_bsize >= 512);
    EXPECT(facts.f_blocks > 0);
    EXPECT(facts.f_bavail <= facts.f_blocks);
    EQUAL(facts.f_namemax, 255);
    const int file = opened("f", O_CREAT | O_RDWR);
    OKAY(::fstatvfs(file, &facts));
    EQUAL(facts.f_namemax, 255);
}
CASE(blocks_say_what_is_taken) {
    put("f", pattern(100000));
    const int file = opened("f", O_RDWR);
    OKAY(::fsync(file));
    EXPECT(status_of("f").st_blocks * 512 >= 100000);
    EXPECT(status_of("f").st_blksize >= 512);
    OKAY(::truncate("f", 0));
    EXPECT(status_of("f").st_blocks < 100);
}
