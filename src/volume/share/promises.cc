// What the agent may answer by itself while this box is the only one that has the volume; wire/share.h.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "volume/share/server.h"

namespace caisson::volume::share {

using base::append;
using base::bytes_of;

// Before the answer to what brought it about: whoever hears that one asks anew.
void Server::tell(wire::ShareNews news, base::ByteView data) {
    fuse_out_header header{};
    header.error = static_cast<std::int32_t>(news);
    header.len = static_cast<std::uint32_t>(sizeof header + data.size());
    append(out_, bytes_of(header));
    append(out_, data);
}

// The agent may have been told: it hears of each change from now on.
void Server::promised(Node& node, const fuse_attr& attributes) {
    node.promised = true;
    node.promised_access = {attributes.atime, attributes.atimensec};
}

wire::ShareFile Server::told_of(Node& node, const fuse_attr& attributes, bool empty) {
    wire::ShareFile file{node.number, 0, 0, attributes};
    if (node.is_regular() && ::getxattr(node.path().c_str(), kKeptCapability, nullptr, 0) < 0 && errno == ENODATA)
        file.flags |= wire::ShareFile::kNoCapability;
    if (empty) file.flags |= wire::ShareFile::kEmpty;
    promised(node, attributes);
    return file;
}

void Server::promise(Node& node) {
    if (!node.promised || !promises(*node.mount)) return;
    fuse_attr attributes{};
    // What has no name any more is asked for seldom.
    if (tree_.attributes(node, attributes) == 0 && attributes.nlink > 0) tell(wire::ShareNews::kFile, bytes_of(told_of(node, attributes)));
    else take_back(node);
}

void Server::tell_of_name(wire::ShareNews news, std::uint64_t parent, const std::string& name, base::ByteView file) {
    base::Bytes data;
    append(data, bytes_of(wire::ShareName{parent}));
    append(data, file);
    append(data, base::as_bytes(name));
    tell(news, data);
}

void Server::promise_name(std::uint64_t parent, const std::string& name, Node& node, const Reply& entry, bool empty) {
    if (!promises(*node.mount)) return;
    fuse_entry_out given{};
    std::memcpy(&given, entry.data.data(), sizeof given);
    tell_of_name(wire::ShareNews::kName, parent, name, bytes_of(told_of(node, given.attr, empty)));
}

void Server::promise_none(const Node& parent, const std::string& name) {
    if (promises(*parent.mount)) tell_of_name(wire::ShareNews::kGone, parent.number, name);
}

void Server::promise_contents(const Node& node, const os::Fd& file) {
    struct stat status {};
    if (!promises(*node.mount) || ::fstat(file.get(), &status) != 0 || status.st_size > static_cast<off_t>(wire::kShareMostContents)) return;
    // One byte more, which there must not be.
    std::array<std::uint8_t, sizeof node.number + wire::kShareMostContents + 1> data;
    std::memcpy(data.data(), &node.number, sizeof node.number);
    const ssize_t got = ::pread(file.get(), data.data() + sizeof node.number, wire::kShareMostContents + 1, 0);
    if (got >= 0 && got == status.st_size) tell(wire::ShareNews::kContents, base::ByteView(data).first(sizeof node.number + static_cast<std::size_t>(got)));
}

void Server::take_back_name(const Node& parent, const std::string& name) {
    if (promises(*parent.mount)) tell_of_name(wire::ShareNews::kNoName, parent.number, name);
}

void Server::take_back(const Node& node) {
    if (node.promised && promises(*node.mount)) tell(wire::ShareNews::kNoFile, bytes_of(node.number));
}

// After each request, for the file that it was about. Whatever may have changed more of it than the time of its last
// reading says so, since the host's clock of files is too coarse to tell.
void Server::promise_again(bool changed, Node& node) {
    if (!node.promised || !promises(*node.mount)) return;
    if (changed) return promise(node);
    struct stat status {};
    if (::fstatat(node.file.get(), "", &status, AT_EMPTY_PATH) != 0) return take_back(node);
    const Node::Time accessed{static_cast<std::uint64_t>(status.st_atim.tv_sec), static_cast<std::uint32_t>(status.st_atim.tv_nsec)};
    if (accessed != node.promised_access) promise(node);
}

// ---- company

void Server::add_mount(std::shared_ptr<Mount> mount) {
    if (mount->presence && mount->presence->may_be_alone()) {
        if (!company_) {
            company_ = os::Fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
            if (company_ && !loop_.watch(company_.get(), EPOLLIN, [this](std::uint32_t) { on_company(); })) company_.reset();
        }
        // Without a bell nobody hears who comes: then it is as if somebody were always there.
        if (!company_ || ::inotify_add_watch(company_.get(), path_of(mount->presence->file()).c_str(), IN_OPEN) < 0)
            mount->presence->never_be_alone();
    }
    tree_.add(std::move(mount));
}

void Server::on_company() {
    std::array<char, 4096> events;
    // The loop comes again while there is more.
    if (::read(company_.get(), events.data(), events.size()) <= 0) return;
    // Whoever it was may have written, and gone again while this process was busy: whether somebody is there now says nothing.
    bool found = false;
    for (const auto& [number, mount] : tree_.mounts()) found = found || (mount->presence && mount->presence->thinks_it_is_alone());
    if (found) leave_alone();
}

// The agent learns it before anything that it is told later; then whoever waits may go on.
void Server::leave_alone() {
    if (keeps_ && !ended_) tell(wire::ShareNews::kNothing, {});
    ++times_alone_;
    ++plain_;
    for (const auto& [number, mount] : tree_.mounts())
        if (mount->presence) mount->presence->leave_alone();
    if (!ended_ && !out_.empty()) flush();
}

}  // namespace caisson::volume::share
