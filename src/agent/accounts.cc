#include "agent/accounts.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "os/file.h"

namespace caisson::agent {

namespace {

// One of the image's files, which may be anything: only a regular one is read, and nothing is waited for.
Result<std::string> read_user_file(const char* path) {
    auto fd = os::open_file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!fd) {
        int error = fd.error().sys_errno;
        if (error == ENOENT || error == ENOTDIR || error == ELOOP) return std::string();
        return base::failure(std::move(fd).error());
    }
    struct stat info {};
    if (::fstat(fd->get(), &info) != 0 || !S_ISREG(info.st_mode)) return std::string();
    return os::read_fd(fd->get(), kMaxUserFileBytes, path);
}

}  // namespace

Accounts read_accounts() { return {read_user_file("/etc/passwd"), read_user_file("/etc/group")}; }

Result<UserIdentity> find_user(std::string_view specification, const Accounts& accounts) {
    for (const auto* file : {&accounts.passwd, &accounts.group})
        if (!*file) return base::failure(Error(file->error()));
    return resolve_user(specification, *accounts.passwd, *accounts.group);
}

}  // namespace caisson::agent
