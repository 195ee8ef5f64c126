// The system calls that faults.cc looks at: what each is a kind of, and which of its arguments say on what it works.
#pragma once

#include <linux/fs.h>
#include <sys/syscall.h>

namespace faults {

// What can be made to fail by its name. kOther is recorded only.
enum class Kind {
    kWrite,
    kPwrite,
    kSync,
    kRename,
    kLink,
    kOpen,
    kFallocate,
    kTruncate,
    kMkdir,
    kUnlink,
    kFork,
    kMmap,
    kOther
};
constexpr const char* kKindNames[] = {"write",     "pwrite", "sync",   "rename", "link", "open", "fallocate",
                                      "ftruncate", "mkdir",  "unlink", "fork",   "mmap", "other"};
constexpr int kKinds = 12;  // without kOther

// On what a call works. A number after it is the argument's.
enum class Subject { kNothing, kFd, kPath, kPathAt, kTwoPaths, kTwoPathsAt, kTargetPath, kTargetPathAt };

struct Call {
    long number;
    const char* name;
    Kind kind;
    Subject subject;
};

#define CAISSON_CALL(name, kind, subject) \
    { SYS_##name, #name, Kind::kind, Subject::subject }
constexpr Call kCalls[] = {
    CAISSON_CALL(write, kWrite, kFd),
    CAISSON_CALL(writev, kWrite, kFd),
    CAISSON_CALL(sendfile, kWrite, kFd),
    CAISSON_CALL(pwrite64, kPwrite, kFd),
    CAISSON_CALL(pwritev, kPwrite, kFd),
    CAISSON_CALL(pwritev2, kPwrite, kFd),
    CAISSON_CALL(copy_file_range, kPwrite, kFd),
    CAISSON_CALL(fsync, kSync, kFd),
    CAISSON_CALL(fdatasync, kSync, kFd),
    CAISSON_CALL(syncfs, kSync, kFd),
    CAISSON_CALL(renameat, kRename, kTwoPathsAt),
    CAISSON_CALL(renameat2, kRename, kTwoPathsAt),
    CAISSON_CALL(linkat, kLink, kTwoPathsAt),
    CAISSON_CALL(symlinkat, kLink, kTargetPathAt),
    CAISSON_CALL(openat, kOpen, kPathAt),
    CAISSON_CALL(openat2, kOpen, kPathAt),
    CAISSON_CALL(fallocate, kFallocate, kFd),
    CAISSON_CALL(ftruncate, kTruncate, kFd),
    CAISSON_CALL(truncate, kTruncate, kPath),
    CAISSON_CALL(mkdirat, kMkdir, kPathAt),
    CAISSON_CALL(mknodat, kMkdir, kPathAt),
    CAISSON_CALL(unlinkat, kUnlink, kPathAt),
    CAISSON_CALL(clone, kFork, kNothing),
    CAISSON_CALL(clone3, kFork, kNothing),
    CAISSON_CALL(mmap, kMmap, kNothing),
    CAISSON_CALL(fchmod, kOther, kFd),
    CAISSON_CALL(fchmodat, kOther, kPathAt),
    CAISSON_CALL(fsetxattr, kOther, kFd),
    CAISSON_CALL(setxattr, kOther, kPath),
    CAISSON_CALL(fremovexattr, kOther, kFd),
    CAISSON_CALL(removexattr, kOther, kPath),
#ifdef SYS_open  // the older calls, which newer architectures do without
    CAISSON_CALL(rename, kRename, kTwoPaths),
    CAISSON_CALL(link, kLink, kTwoPaths),
    CAISSON_CALL(symlink, kLink, kTargetPath),
    CAISSON_CALL(open, kOpen, kPath),
    CAISSON_CALL(creat, kOpen, kPath),
    CAISSON_CALL(mkdir, kMkdir, kPath),
    CAISSON_CALL(mknod, kMkdir, kPath),
    CAISSON_CALL(rmdir, kUnlink, kPath),
    CAISSON_CALL(unlink, kUnlink, kPath),
    CAISSON_CALL(fork, kFork, kNothing),
    CAISSON_CALL(vfork, kFork, kNothing),
    CAISSON_CALL(chmod, kOther, kPath),
#endif
};
#undef CAISSON_CALL

}  // namespace faults
