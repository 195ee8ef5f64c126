#include "agent/share_cache.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "agent/share_message.h"
#include "wire/listing.h"

namespace caisson::agent {

namespace {

constexpr std::string_view kCapability = "security.capability";
// What the kernel may believe if it could not be told otherwise.
constexpr std::uint64_t kShortSeconds = 1;

// Linux 6.2, include/uapi/linux/fuse.h; older headers have neither. The first is of the upper half of INIT's flags.
constexpr std::uint32_t kHasExpireOnly = 1u << 3;
constexpr std::uint32_t kExpireOnly = 1;
constexpr std::uint32_t kInitExt = 1u << 30;  // there is an upper half

// What may change what is in a file or a directory, or what a listing tells of a file. All of these are answered.
bool is_change(std::uint32_t operation, base::ByteView arguments) {
    fuse_open_in in{};
    switch (operation) {
        case FUSE_WRITE:
        case FUSE_SETATTR:
        case FUSE_CREATE:
        case FUSE_TMPFILE:
        case FUSE_FALLOCATE:
        case FUSE_COPY_FILE_RANGE:
        case FUSE_MKNOD:
        case FUSE_MKDIR:
        case FUSE_SYMLINK:
        case FUSE_LINK:
        case FUSE_UNLINK:
        case FUSE_RMDIR:
        case FUSE_RENAME:
        case FUSE_RENAME2:
        case FUSE_SETXATTR:
        case FUSE_REMOVEXATTR: return true;
        case FUSE_OPEN: return !take(arguments, in) || (in.flags & O_TRUNC) != 0;
        default: return false;
    }
}

constexpr ShareCache::Way kToServer{true, true}, kFirst{true, true, true}, kLater{true, false}, kDone{false, false};

}  // namespace

std::string ShareCache::key_of(std::uint64_t parent, std::string_view name) {
    std::string key(sizeof parent, '\0');
    std::memcpy(key.data(), &parent, sizeof parent);
    return key.append(name);
}

std::uint64_t ShareCache::parent_of(const std::string& key) {
    std::uint64_t parent = 0;
    std::memcpy(&parent, key.data(), sizeof parent);
    return parent;
}

ShareCache::Way ShareCache::request(std::span<std::uint8_t> message, base::Bytes& answer, Clock::time_point now) {
    base::ByteView rest(message);
    fuse_in_header header{};
    if (!take(rest, header)) return kToServer;
    if (is_change(header.opcode, rest)) {
        contents_.clear();
        listings_.clear();
        changing_.insert(header.unique);
    }
    switch (header.opcode) {
        case FUSE_INIT: begin(rest); return kToServer;
        case FUSE_READ: return read(header, rest, answer, now);
        case FUSE_RENAME:
        case FUSE_RENAME2: renamed(header, rest); return kToServer;
        case FUSE_UNLINK:
        case FUSE_RMDIR: return kFirst;
        case FUSE_LOOKUP: return look_up(header, text_of(rest), answer, now);
        case FUSE_GETATTR: return get_attributes(header, answer, now);
        case FUSE_GETXATTR: return get_attribute(header, rest, answer, now);
        case FUSE_SETLK:
        case FUSE_SETLKW: locked_.insert(header.nodeid); return kToServer;
        case FUSE_FLUSH: return flush(header, answer);
        case FUSE_READDIR:
        case FUSE_READDIRPLUS: return list(message, answer, now);
        case FUSE_RELEASEDIR: closed(rest); return release(message, header, answer);
        case FUSE_RELEASE: return release(message, header, answer);
        case FUSE_FORGET: return forget(message, header);
        case FUSE_BATCH_FORGET: return forget_many(message);
        default: return kToServer;
    }
}

bool ShareCache::is_fresh(Clock::time_point since, Clock::time_point now) { return now - since <= kKeptFor; }

const ShareCache::File* ShareCache::fresh(std::uint64_t node, Clock::time_point now) const {
    const File* file = files_.find(node);
    return file != nullptr && file->known && is_fresh(file->since, now) ? file : nullptr;
}

void ShareCache::begin(base::ByteView arguments) {
    struct {  // the beginning of fuse_init_in, which older headers end before the upper half
        std::uint32_t major, minor, readahead, flags, upper_flags;
    } init{};
    can_expire_ = take(arguments, init) && (init.flags & kInitExt) != 0 && (init.upper_flags & kHasExpireOnly) != 0;
}

bool ShareCache::is_full_of_beliefs(Clock::time_point now) {
    auto is_full = [this] { return believed_names_.size() >= kMostKept || believed_nodes_.size() >= kMostKept; };
    constexpr std::chrono::seconds kOnceIn{1};
    if (!is_full() || now - beliefs_cleared_ < kOnceIn) return is_full();
    beliefs_cleared_ = now;
    auto is_over = [now](const auto& one) { return one.second < now; };
    std::erase_if(believed_names_, is_over);
    std::erase_if(believed_nodes_, is_over);
    return is_full();
}

std::uint64_t ShareCache::believes(const std::string& name, std::uint64_t node, Clock::time_point now) {
    if (!can_expire_ || is_full_of_beliefs(now)) return kShortSeconds;
    const auto until = now + kBelievedFor;
    if (!name.empty()) believed_names_[name] = until;
    believed_nodes_[node] = until;
    return static_cast<std::uint64_t>(kBelievedFor.count());
}

// The kernel takes what it believes of a name along to the new one.
void ShareCache::renamed(const fuse_in_header& header, base::ByteView arguments) {
    if (!can_expire_) return;  // nothing is believed for long
    fuse_rename2_in in{};
    if (header.opcode == FUSE_RENAME2 ? !take(arguments, in) : !take(arguments, in.newdir)) return;
    const auto from = text_of(arguments);
    const auto to = text_of(arguments.subspan(std::min(from.size() + 1, arguments.size())));
    if (believed_names_.size() >= kMostKept) end_beliefs();
    const auto until = Clock::now() + kBelievedFor;
    believed_names_[key_of(header.nodeid, from)] = until;
    believed_names_[key_of(in.newdir, to)] = until;
}

void ShareCache::end_beliefs() {
    auto notice = [this](std::int32_t code, const auto& data, std::string_view name) {
        fuse_out_header header{};
        header.len = static_cast<std::uint32_t>(sizeof header + sizeof data + (name.empty() ? 0 : name.size() + 1));
        header.error = code;
        base::append(notices_, base::bytes_of(header));
        base::append(notices_, base::bytes_of(data));
        if (name.empty()) return;
        base::append(notices_, base::as_bytes(name));
        notices_.push_back(0);
    };
    struct Entry {  // fuse_notify_inval_entry_out, whose flags older headers call padding
        std::uint64_t parent;
        std::uint32_t length, flags;
    };
    for (const auto& [key, until] : believed_names_) {
        const auto parent = parent_of(key);
        const auto name = std::string_view(key).substr(sizeof parent);
        notice(FUSE_NOTIFY_INVAL_ENTRY, Entry{parent, static_cast<std::uint32_t>(name.size()), kExpireOnly}, name);
    }
    // A negative offset: of the contents nothing, they are looked at when the attributes are.
    for (const auto& [node, until] : believed_nodes_) notice(FUSE_NOTIFY_INVAL_INODE, fuse_notify_inval_inode_out{node, -1, 0}, {});
    believed_names_.clear();
    believed_nodes_.clear();
}

// Of a name that nothing was told of.
bool ShareCache::is_missing(std::uint64_t directory, Clock::time_point now) const {
    const File* found = files_.find(directory);
    return found != nullptr && found->whole && is_fresh(found->whole_since, now);
}

ShareCache::Way ShareCache::look_up(const fuse_in_header& header, std::string_view name, base::Bytes& answer, Clock::time_point now) {
    const auto key = key_of(header.nodeid, name);
    const Name* found = names_.find(key);
    const bool told = found != nullptr && is_fresh(found->since, now);
    if (told ? found->node == 0 : found == nullptr && is_missing(header.nodeid, now)) {
        put_answer(answer, header, ENOENT);
        return kDone;
    }
    if (!told) return kToServer;
    const File* file = fresh(found->node, now);
    if (file == nullptr) return kToServer;
    fuse_entry_out entry{};
    entry.nodeid = found->node;
    entry.entry_valid = entry.attr_valid = believes(key, entry.nodeid, now);
    entry.attr = file->attributes;
    ++lookups_[entry.nodeid];
    put_answer(answer, header, 0, base::bytes_of(entry));
    return kDone;
}

ShareCache::Way ShareCache::get_attributes(const fuse_in_header& header, base::Bytes& answer, Clock::time_point now) {
    const File* file = fresh(header.nodeid, now);
    if (file == nullptr) return kToServer;
    fuse_attr_out out{};
    out.attr_valid = believes({}, header.nodeid, now);
    out.attr = file->attributes;
    put_answer(answer, header, 0, base::bytes_of(out));
    return kDone;
}

// Before it writes, the kernel asks whether a program's capabilities are to be taken away, and wants only the size.
ShareCache::Way ShareCache::get_attribute(const fuse_in_header& header, base::ByteView arguments, base::Bytes& answer, Clock::time_point now) {
    fuse_getxattr_in in{};
    if (!take(arguments, in) || in.size != 0 || text_of(arguments) != kCapability) return kToServer;
    const File* file = fresh(header.nodeid, now);
    if (file == nullptr || !file->no_capability) return kToServer;
    put_answer(answer, header, ENODATA);
    return kDone;
}

ShareCache::Way ShareCache::read(const fuse_in_header& header, base::ByteView arguments, base::Bytes& answer, Clock::time_point now) {
    fuse_read_in in{};
    const auto found = contents_.find(header.nodeid);
    if (found == contents_.end() || !take(arguments, in)) return kToServer;
    const auto contents = std::move(found->second);
    contents_.erase(found);
    if (now - contents.since > kContentsKeptFor) return kToServer;
    const base::ByteView all(contents.bytes);
    const auto rest = all.subspan(static_cast<std::size_t>(std::min<std::uint64_t>(in.offset, all.size())));
    put_answer(answer, header, 0, rest.first(std::min<std::size_t>(in.size, rest.size())));
    return kDone;
}

void ShareCache::keep_contents(std::uint64_t node, base::ByteView contents, Clock::time_point now) {
    // What is under way may have been done after the file was opened, and before its answer comes nobody knows.
    if (!changing_.empty()) return;
    if (contents_.size() >= kMostContents) contents_.clear();
    contents_[node] = {base::Bytes(contents.begin(), contents.end()), now};
}

// All that the server does then is to let go of the locks of whoever closes it.
ShareCache::Way ShareCache::flush(const fuse_in_header& header, base::Bytes& answer) {
    if (locked_.count(header.nodeid) > 0) return kToServer;
    put_answer(answer, header, 0);
    return kDone;
}

// Nobody waits for it, unless for a lock that goes with it.
ShareCache::Way ShareCache::release(std::span<std::uint8_t> message, const fuse_in_header& header, base::Bytes& answer) {
    if (locked_.count(header.nodeid) > 0) return kToServer;
    put_answer(answer, header, 0);
    constexpr std::uint64_t kUnanswered = 0;
    std::memcpy(message.data() + offsetof(fuse_in_header, unique), &kUnanswered, sizeof kUnanswered);
    return kLater;
}

ShareCache::Way ShareCache::list(base::ByteView message, base::Bytes& answer, Clock::time_point now) {
    const auto way = listings_.read(message, answer, now);
    keep_given(listings_.take_given());
    return way == ShareListings::Way::kToServer ? kToServer : kDone;
}

// The kernel has looked these up, and the server tells what becomes of them.
void ShareCache::keep_given(const ShareListings::Given& given) {
    wire::each_listing_entry(given.entries, true, [&](const fuse_entry_out& told, const fuse_dirent&, std::string_view name) {
        if (told.nodeid == 0) return;
        auto& file = files_.put(told.nodeid, [](std::uint64_t, const File&) {});
        // Somebody may have read it since, which throws no listing away: what was told of that counts, and may not be known.
        if (file.known ? file.since < given.since : not_kept_ < given.since) {
            if (!file.known) file.no_capability = false;  // of those a listing says nothing
            file.attributes = told.attr;
            file.since = given.since;
            file.known = true;
        }
        keep_name(given.directory, name, told.nodeid, given.since);
    });
}

void ShareCache::closed(base::ByteView arguments) {
    fuse_release_in in{};
    if (take(arguments, in)) listings_.closed(in.fh);
}

// How many of them the server knows of. What it is told to forget is not known here any more either: it may be gone there.
std::uint64_t ShareCache::left_to_forget(std::uint64_t node, std::uint64_t lookups) {
    if (const auto own = lookups_.find(node); own != lookups_.end()) {
        const auto taken = std::min(own->second, lookups);
        lookups -= taken;
        own->second -= taken;
        if (own->second == 0) lookups_.erase(own);
    }
    if (lookups > 0) {
        files_.erase(node);
        locked_.erase(node);
        believed_nodes_.erase(node);
    }
    return lookups;
}

ShareCache::Way ShareCache::forget(std::span<std::uint8_t> message, const fuse_in_header& header) {
    fuse_forget_in in{};
    base::ByteView rest = base::ByteView(message).subspan(sizeof header);
    if (!take(rest, in)) return kToServer;
    in.nlookup = left_to_forget(header.nodeid, in.nlookup);
    std::memcpy(message.data() + sizeof header, &in, sizeof in);
    return in.nlookup == 0 ? kDone : kLater;
}

ShareCache::Way ShareCache::forget_many(std::span<std::uint8_t> message) {
    auto rest = message.subspan(sizeof(fuse_in_header) + std::min(sizeof(fuse_batch_forget_in), message.size() - sizeof(fuse_in_header)));
    for (fuse_forget_one one{}; rest.size() >= sizeof one; rest = rest.subspan(sizeof one)) {
        std::memcpy(&one, rest.data(), sizeof one);
        one.nlookup = left_to_forget(one.nodeid, one.nlookup);
        std::memcpy(rest.data(), &one, sizeof one);
    }
    return kLater;
}

void ShareCache::keep(const wire::ShareFile& told, bool with_name, Clock::time_point now) {
    // Without a name it may be of a file that was forgotten meanwhile.
    if (!with_name && files_.find(told.node) == nullptr) {
        not_kept_ = now;
        return;
    }
    auto& file = files_.put(told.node, [](std::uint64_t, const File&) {});
    file.attributes = told.attributes;
    file.known = true;
    file.no_capability = (told.flags & wire::ShareFile::kNoCapability) != 0;
    file.since = now;
    if ((told.flags & wire::ShareFile::kEmpty) == 0) return;
    file.whole = true;
    file.whole_since = now;
}

void ShareCache::keep_name(std::uint64_t parent, std::string_view name, std::uint64_t node, Clock::time_point now) {
    names_.put(key_of(parent, name), [this](const std::string& key, const Name& gone) {
        if (File* directory = gone.node != 0 ? files_.find(parent_of(key)) : nullptr) directory->whole = false;
    }) = {node, now};
}

void ShareCache::forget_name(std::uint64_t parent, std::string_view name) {
    names_.erase(key_of(parent, name));
    if (File* directory = files_.find(parent)) directory->whole = false;
}

bool ShareCache::is_for_kernel(base::ByteView message, Clock::time_point now) {
    fuse_out_header header{};
    if (!take(message, header)) return true;
    if (header.unique != 0) {
        changing_.erase(header.unique);
        listings_.answered(header.unique, -header.error, message);
        return true;
    }
    wire::ShareName name{};
    wire::ShareFile file{};
    std::uint64_t node = 0;
    switch (static_cast<wire::ShareNews>(header.error)) {
        case wire::ShareNews::kName:
            if (!take(message, name) || !take(message, file)) return false;
            keep(file, true, now);
            keep_name(name.parent, base::as_text(message), file.node, now);
            return false;
        case wire::ShareNews::kFile:
            if (take(message, file)) keep(file, false, now);
            return false;
        case wire::ShareNews::kNoName:
            if (take(message, name)) forget_name(name.parent, base::as_text(message));
            return false;
        case wire::ShareNews::kGone:
            if (take(message, name)) keep_name(name.parent, base::as_text(message), 0, now);
            return false;
        case wire::ShareNews::kNoFile:
            if (take(message, node)) {
                if (File* found = files_.find(node)) found->known = false;
                not_kept_ = now;
            }
            return false;
        case wire::ShareNews::kContents:
            if (take(message, node)) keep_contents(node, message, now);
            return false;
        case wire::ShareNews::kListed:
            listings_.told(message, changing_.empty(), now);
            keep_given(listings_.take_given());
            return false;
        case wire::ShareNews::kNothing:
            end_beliefs();
            contents_.clear();
            listings_.clear();
            files_.clear();
            names_.clear();
            return false;
        case wire::ShareNews::kWindow:
        case wire::ShareNews::kInSlot: return false;  // see ShareWindow
    }
    return true;
}

}  // namespace caisson::agent
