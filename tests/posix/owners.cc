// Owners and permissions.
#include <grp.h>
#include <sys/wait.h>

#include "posix/check.h"

using namespace posix;

namespace {
mode_t mode_of(const std::string& name) { return status_of(name).st_mode & 07777; }
}  // namespace

CASE(chmod_sets_every_bit) {
    put("f");
    OKAY(::mkdir("d", 0755));
    for (mode_t mode : {0u, 0777u, 04755u, 02755u, 01777u, 07777u, 0123u}) {
        OKAY(::chmod("f", mode));
        EQUAL(mode_of("f"), mode);
        OKAY(::chmod("d", mode));
        EQUAL(mode_of("d"), mode);
    }
    EXPECT(S_ISREG(status_of("f").st_mode));
}
CASE(chmod_changes_ctime_only) {
    put("f");
    const auto before = status_of("f");
    pause_ms(30);
    OKAY(::chmod("f", 0600));
    EXPECT(nanoseconds(status_of("f").st_ctim) > nanoseconds(before.st_ctim));
    EQUAL(nanoseconds(status_of("f").st_mtim), nanoseconds(before.st_mtim));
}
CASE(chmod_is_the_owners) {
    put("f");
    OKAY(::chown("f", 1000, 1000));
    as(1001, 1001, [] { REFUSED(EPERM, ::chmod("f", 0777)); });
    as(1000, 1000, [] { OKAY(::chmod("f", 0700)); });
    EQUAL(mode_of("f"), 0700);
}
CASE(chmod_drops_set_group_id_of_a_foreign_group) {
    put("f", "", 0755);
    OKAY(::chown("f", 1000, 2000));
    as(1000, 1000, [] { OKAY(::chmod("f", 02755)); });
    EQUAL(mode_of("f"), 0755);
    OKAY(::chmod("f", 02755));
    EQUAL(mode_of("f"), 02755);
}
CASE(chmod_of_an_open_file) {
    put("f", "", 0644);
    const int file = static_cast<int>(OKAY(::open("f", O_RDONLY)));
    OKAY(::fchmod(file, 0));
    EQUAL(mode_of("f"), 0);
    OKAY(::fchmodat(AT_FDCWD, "f", 0604, 0));
    EQUAL(mode_of("f"), 0604);
}
CASE(chmod_of_special_files) {
    OKAY(::mkfifo("p", 0600));
    OKAY(::chmod("p", 0622));
    EQUAL(status_of("p").st_mode, S_IFIFO | 0622);
}
CASE(permissions_of_owner_group_and_others) {
    put("f", "abc", 0640);
    OKAY(::chown("f", 1000, 2000));
    as(1000, 1000, [] { ::close(static_cast<int>(OKAY(::open("f", O_RDWR)))); });
    as(1001, 2000, [] {
        ::close(static_cast<int>(OKAY(::open("f", O_RDONLY))));
        REFUSED(EACCES, ::open("f", O_RDWR));
    });
    as(1001, 1001, [] { REFUSED(EACCES, ::open("f", O_RDONLY)); });
    OKAY(::chmod("f", 0077));
    as(1000, 2000, [] { REFUSED(EACCES, ::open("f", O_RDONLY)); });
    as(1001, 1001, [] { ::close(static_cast<int>(OKAY(::open("f", O_RDWR)))); });
}
CASE(permissions_by_a_second_group) {
    put("f", "abc", 0640);
    OKAY(::chown("f", 1000, 2000));
    in_child([] {
        const gid_t groups[] = {3000, 2000};
        OKAY(::setgroups(2, groups));
        OKAY(::setresgid(1001, 1001, 1001));
        OKAY(::setresuid(1001, 1001, 1001));
        ::close(static_cast<int>(OKAY(::open("f", O_RDONLY))));
    });
}
CASE(permissions_to_execute) {
    put("f", "#!/proc/self/exe\n", 0644);
    as(1000, 1000, [] { REFUSED(EACCES, ::execl("f", "f", nullptr)); });
    REFUSED(EACCES, ::execl("f", "f", nullptr));
}
CASE(program_runs_from_here) {
    put("program", text_of("/proc/self/exe"), 0755);
    in_child([] {
        const pid_t child = ::fork();
        if (child == 0) {
            ::close(2);
            ::execl("program", "program", nullptr);
            ::_exit(99);
        }
        int status = 0;
        OKAY(::waitpid(child, &status, 0));
        EQUAL(WEXITSTATUS(status), 2);  // "usage"
    });
}
CASE(program_that_runs_cannot_be_written) {
    put("program", text_of("/proc/self/exe"), 0755);
    int ends[2];
    OKAY(::pipe(ends));
    const pid_t child = ::fork();
    if (child == 0) {
        // It says how it is used, and waits until somebody reads that.
        ::close(ends[0]);
        ::dup2(ends[1], 2);
        static char full[65536];
        ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
        while (::write(ends[1], full, sizeof full) > 0) {
        }
        ::fcntl(ends[1], F_SETFL, 0);
        // While somebody has it open for writing, as below, it cannot be started either.
        do ::execl("program", "program", nullptr);
        while (errno == ETXTBSY);
        ::_exit(99);
    }
    ::close(ends[1]);
    bool refused = false;
    for (int i = 0; i < 200 && !refused; ++i) {
        const int file = ::open("program", O_WRONLY);
        refused = file < 0 && errno == ETXTBSY;
        if (file >= 0) ::close(file);
        pause_ms(10);
    }
    char part[4096];
    while (::read(ends[0], part, sizeof part) > 0) {
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT(refused);
    EQUAL(WEXITSTATUS(status), 2);
}

CASE(chown_sets_owner_and_group) {
    put("f");
    OKAY(::chown("f", 123, 456));
    EQUAL(status_of("f").st_uid, 123);
    EQUAL(status_of("f").st_gid, 456);
    OKAY(::chown("f", static_cast<uid_t>(-1), 7));
    EQUAL(status_of("f").st_uid, 123);
    EQUAL(status_of("f").st_gid, 7);
    OKAY(::chown("f", 0, 0));
    EQUAL(status_of("f").st_uid, 0);
    OKAY(::chown("f", 4294967294u, 4294967294u));
    EQUAL(status_of("f").st_uid, 4294967294u);
}
CASE(chown_of_everything) {
    OKAY(::mkdir("d", 0755));
    OKAY(::mkfifo("p", 0600));
    OKAY(::symlink("d", "l"));
    for (const char* name : {"d", "p", "l"}) {
        OKAY(::lchown(name, 11, 12));
        EQUAL(status_of(name).st_uid, 11);
        EQUAL(status_of(name).st_gid, 12);
    }
    OKAY(::chown("l", 13, 14));
    EQUAL(status_of("d").st_uid, 13);
    EQUAL(status_of("l").st_uid, 11);
}
CASE(chown_is_roots) {
    put("f");
    OKAY(::chown("f", 1000, 1000));
    as(1000, 1000, [] {
        REFUSED(EPERM, ::chown("f", 1001, static_cast<gid_t>(-1)));
        REFUSED(EPERM, ::chown("f", static_cast<uid_t>(-1), 1001));
        OKAY(::chown("f", 1000, 1000));
    });
    in_child([] {
        const gid_t groups[] = {2000};
        OKAY(::setgroups(1, groups));
        OKAY(::setresgid(1000, 1000, 1000));
        OKAY(::setresuid(1000, 1000, 1000));
        OKAY(::chown("f", static_cast<uid_t>(-1), 2000));
    });
    EQUAL(status_of("f").st_gid, 2000);
}
CASE(chown_drops_set_id_bits) {
    put("f", "", 06755);
    OKAY(::chown("f", 1000, 1000));
    EQUAL(mode_of("f"), 0755);
    OKAY(::chmod("f", 06755));
    as(1000, 1000, [] { OKAY(::chown("f", 1000, 1000)); });
    EQUAL(mode_of("f"), 0755);
    OKAY(::mkdir("d", 02755));
    OKAY(::chmod("d", 06755));
    OKAY(::chown("d", 1000, 1000));
    EQUAL(mode_of("d"), 06755);
    OKAY(::chmod("f", 02644));
    OKAY(::chown("f", 1001, 1001));
    EQUAL(mode_of("f"), 02644);  // without group execution it means something else
}
CASE(chown_changes_ctime) {
    put("f");
    const auto before = status_of("f");
    pause_ms(30);
    OKAY(::chown("f", 1, 1));
    EXPECT(nanoseconds(status_of("f").st_ctim) > nanoseconds(before.st_ctim));
}
CASE(writing_drops_set_id_bits) {
    put("f", "abc", 06777);
    OKAY(::chown("f", 1000, 1000));
    OKAY(::chmod("f", 06777));
    as(1001, 1001, [] {
        const int file = static_cast<int>(OKAY(::open("f", O_WRONLY)));
        EQUAL(::write(file, "x", 1), 1);
    });
    EQUAL(mode_of("f"), 0777);
}
CASE(writing_as_root_keeps_set_id_bits) {
    put("f", "abc", 06777);
    const int file = static_cast<int>(OKAY(::open("f", O_WRONLY)));
    EQUAL(::write(file, "x", 1), 1);
    EQUAL(mode_of("f"), 06777);
}
CASE(truncating_drops_set_id_bits) {
    put("f", "abc", 06777);
    as(1001, 1001, [] { OKAY(::truncate("f", 1)); });
    EQUAL(mode_of("f"), 0777);
    OKAY(::chmod("f", 06777));
    as(1001, 1001, [] { ::close(static_cast<int>(OKAY(::open("f", O_WRONLY | O_TRUNC)))); });
    EQUAL(mode_of("f"), 0777);
}
CASE(set_group_id_directories_pass_their_group_on) {
    OKAY(::mkdir("d", 0777));
    OKAY(::chown("d", 0, 2000));
    OKAY(::chmod("d", 02777));
    as(1000, 1000, [] {
        put("d/f");
        OKAY(::mkdir("d/e", 0755));
        OKAY(::symlink("x", "d/l"));
        OKAY(::mkfifo("d/p", 0644));
    });
    EQUAL(status_of("d/f").st_gid, 2000);
    EQUAL(status_of("d/f").st_uid, 1000);
    EQUAL(status_of("d/e").st_gid, 2000);
    EQUAL(mode_of("d/e"), 02755);
    EQUAL(status_of("d/l").st_gid, 2000);
    EQUAL(status_of("d/p").st_gid, 2000);
}
CASE(set_group_id_is_not_given_to_strangers) {
    OKAY(::mkdir("d", 0777));
    OKAY(::chown("d", 0, 2000));
    OKAY(::chmod("d", 02777));
    as(1000, 1000, [] { ::close(static_cast<int>(OKAY(::open("d/f", O_CREAT | O_WRONLY, 02755)))); });
    EQUAL(mode_of("d/f"), 0755);
}
CASE(new_files_belong_to_their_maker) {
    as(1000, 1001, [] {
        put("f");
        OKAY(::mkdir("d", 0755));
        OKAY(::mkfifo("p", 0644));
    });
    for (const char* name : {"f", "d", "p"}) {
        EQUAL(status_of(name).st_uid, 1000);
        EQUAL(status_of(name).st_gid, 1001);
    }
}
CASE(sticky_directory) {
    OKAY(::mkdir("d", 0777));
    OKAY(::chmod("d", 01777));
    as(1000, 1000, [] {
        put("d/mine");
        OKAY(::mkdir("d/dir", 0777));
    });
    as(1001, 1001, [] {
        REFUSED(EPERM, ::unlink("d/mine"));
        REFUSED(EPERM, ::rmdir("d/dir"));
        REFUSED(EPERM, ::rename("d/mine", "d/other"));
        put("d/yours");
        REFUSED(EPERM, ::rename("d/yours", "d/mine"));
        OKAY(::unlink("d/yours"));
    });
    as(1000, 1000, [] {
        OKAY(::unlink("d/mine"));
        OKAY(::rmdir("d/dir"));
    });
}
CASE(sticky_directorys_owner_may_remove) {
    OKAY(::mkdir("d", 0777));
    OKAY(::chown("d", 1000, 1000));
    OKAY(::chmod("d", 01777));
    as(1001, 1001, [] { put("d/f"); });
    as(1000, 1000, [] { OKAY(::unlink("d/f")); });
}
CASE(access_asks_for_the_real_ids) {
    put("f", "", 0640);
    OKAY(::chown("f", 1000, 1000));
    EQUAL(OKAY(::access("f", R_OK | W_OK)), 0);
    REFUSED(EACCES, ::access("f", X_OK));
    REFUSED(ENOENT, ::access("missing", F_OK));
    as(1001, 1001, [] {
        OKAY(::access("f", F_OK));
        REFUSED(EACCES, ::access("f", R_OK));
    });
    as(1000, 1000, [] {
        OKAY(::access("f", R_OK | W_OK));
        REFUSED(EACCES, ::access("f", X_OK));
    });
    in_child([] {
        OKAY(::setresuid(1001, 0, 0));
        REFUSED(EACCES, ::access("f", R_OK));
        OKAY(::faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
    });
}
CASE(directory_permissions) {
    OKAY(::mkdir("d", 0711));
    put("d/f", "abc", 0644);
    as(1000, 1000, [] {
        EXPECT(text_of("d/f") == "abc");
        REFUSED(EACCES, ::open("d", O_RDONLY | O_DIRECTORY));
    });
    OKAY(::chmod("d", 0744));
    as(1000, 1000, [] {
        EQUAL(names_in("d").size(), 1);
        REFUSED(EACCES, ::open("d/f", O_RDONLY));
    });
    OKAY(::chmod("d", 0777));
    as(1000, 1000, [] {
        OKAY(::unlink("d/f"));
        put("d/g");
    });
}
CASE(permission_lost_by_chmod_counts_at_once) {
    put("f", "abc", 0644);
    as(1000, 1000, [] { EXPECT(text_of("f") == "abc"); });
    OKAY(::chmod("f", 0600));
    as(1000, 1000, [] { REFUSED(EACCES, ::open("f", O_RDONLY)); });
}
