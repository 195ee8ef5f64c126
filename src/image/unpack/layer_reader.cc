#include "image/unpack/layer_reader.h"

#include <archive.h>
#include <archive_entry.h>

#include <cerrno>

#include "base/text.h"
#include "image/limits.h"

namespace caisson::image::unpack {

using base::failure;
using base::printable;

Result<std::unique_ptr<LayerReader>> LayerReader::open(std::unique_ptr<Stream> stream) {
    std::unique_ptr<LayerReader> reader(new LayerReader(std::move(stream)));
    reader->archive_ = ::archive_read_new();
    if (reader->archive_ == nullptr) return failure(Errc::kIo, "out of memory");
    ::archive_read_support_format_tar(reader->archive_);
    ::archive_read_support_format_empty(reader->archive_);
    if (::archive_read_open(reader->archive_, reader.get(), nullptr, &read_callback, nullptr) != ARCHIVE_OK)
        return reader->fail();
    return reader;
}

LayerReader::~LayerReader() { ::archive_read_free(archive_); }

long LayerReader::read_callback(::archive* archive, void* self_pointer, const void** buffer) {
    auto* self = static_cast<LayerReader*>(self_pointer);
    auto chunk = self->stream_->next();
    if (!chunk) {
        self->stream_failed_ = true;
        self->stream_error_ = std::move(chunk).error();
        ::archive_set_error(archive, EIO, "the layer's stream failed");
        return -1;
    }
    self->bytes_ += chunk->size();
    *buffer = chunk->data();
    return static_cast<long>(chunk->size());
}

base::Failure LayerReader::fail() const {
    if (stream_failed_) return base::failure(base::Error(stream_error_));
    const char* text = ::archive_error_string(archive_);
    return failure(Errc::kCorrupt, "its tar archive is damaged" +
                                       (entries_ > 0 ? " after entry " + std::to_string(entries_) : std::string()) + ": " +
                                       printable(text ? text : "unknown reason", 300));
}

Result<bool> LayerReader::next(Entry& entry) {
    int got = ::archive_read_next_header(archive_, &current_);
    if (got == ARCHIVE_EOF) return false;
    // A warning is a name that is not UTF-8 or the like: the bytes are there.
    if (got != ARCHIVE_OK && got != ARCHIVE_WARN) return fail();
    ++entries_;
    const char* path = ::archive_entry_pathname(current_);
    if (path == nullptr)
        return failure(Errc::kCorrupt, "entry " + std::to_string(entries_) + " of its tar archive has no readable name");
    entry.path = path;
    entry.link_target.clear();
    entry.xattrs.clear();
    auto mode = ::archive_entry_mode(current_);
    entry.mode = mode & 07777;

    auto id = [&](la_int64_t value, const char* what) -> Result<std::uint32_t> {
        // ext4 keeps 32 bits; -1 would mean "no id" to the kernel.
        if (value < 0 || value >= 0xffffffffLL)
            return failure(Errc::kCorrupt, "entry " + printable(entry.path, 300) + " has the impossible " + what + " id " +
                                               std::to_string(value));
        return static_cast<std::uint32_t>(value);
    };
    entry.uid = CAISSON_TRY(id(::archive_entry_uid(current_), "user"));
    entry.gid = CAISSON_TRY(id(::archive_entry_gid(current_), "group"));
    entry.mtime_seconds = ::archive_entry_mtime_is_set(current_) ? ::archive_entry_mtime(current_) : 0;
    entry.mtime_nanoseconds = static_cast<std::uint32_t>(::archive_entry_mtime_nsec(current_)) % 1'000'000'000U;
    entry.device_major = 0;
    entry.device_minor = 0;
    entry.size = 0;
    entry.sparse = false;

    if (const char* target = ::archive_entry_hardlink(current_)) {
        entry.type = EntryType::kHardLink;
        entry.link_target = target;
    } else {
        switch (::archive_entry_filetype(current_)) {
            case AE_IFREG: entry.type = EntryType::kFile; break;
            case AE_IFDIR: entry.type = EntryType::kDirectory; break;
            case AE_IFLNK: entry.type = EntryType::kSymlink; break;
            case AE_IFCHR: entry.type = EntryType::kCharacter; break;
            case AE_IFBLK: entry.type = EntryType::kBlock; break;
            case AE_IFIFO: entry.type = EntryType::kFifo; break;
            case AE_IFSOCK: entry.type = EntryType::kSocket; break;
            default:
                return failure(Errc::kCorrupt, "entry " + printable(entry.path, 300) + " is of an unknown type");
        }
        if (entry.type == EntryType::kSymlink) {
            const char* text = ::archive_entry_symlink(current_);
            entry.link_target = text ? text : "";
        }
    }
    if (entry.type == EntryType::kFile) {
        la_int64_t size = ::archive_entry_size(current_);
        if (size < 0) return failure(Errc::kCorrupt, "entry " + printable(entry.path, 300) + " has a negative size");
        entry.size = static_cast<std::uint64_t>(size);
        entry.sparse = ::archive_entry_sparse_count(current_) > 0;
    }
    if (entry.type == EntryType::kCharacter || entry.type == EntryType::kBlock) {
        entry.device_major = static_cast<std::uint32_t>(::archive_entry_rdevmajor(current_));
        entry.device_minor = static_cast<std::uint32_t>(::archive_entry_rdevminor(current_));
        // The kernel's dev_t has 12 and 20 bits.
        if (entry.device_major > 0xfff || entry.device_minor > 0xfffff)
            return failure(Errc::kCorrupt, "entry " + printable(entry.path, 300) + " has the impossible device number " +
                                               std::to_string(entry.device_major) + ":" +
                                               std::to_string(entry.device_minor));
    }
    ::archive_entry_xattr_reset(current_);
    const char* key = nullptr;
    const void* value = nullptr;
    std::size_t size = 0;
    while (::archive_entry_xattr_next(current_, &key, &value, &size) == ARCHIVE_OK) {
        if (key == nullptr) continue;
        if (entry.xattrs.size() > kMaxXattrsPerEntry)
            return failure(Errc::kLimit, "entry " + printable(entry.path, 300) + " has more than " +
                                             std::to_string(kMaxXattrsPerEntry) + " extended attributes");
        entry.xattrs.emplace_back(key, std::string(static_cast<const char*>(value), value ? size : 0));
    }
    return true;
}

Result<> LayerReader::read_data(const DataCallback& callback) {
    std::uint64_t expected = 0;
    for (;;) {
        const void* buffer = nullptr;
        std::size_t size = 0;
        la_int64_t offset = 0;
        int got = ::archive_read_data_block(archive_, &buffer, &size, &offset);
        if (got == ARCHIVE_EOF) return {};
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN) return fail();
        if (size == 0) continue;
        if (offset < 0 || static_cast<std::uint64_t>(offset) < expected)
            return failure(Errc::kCorrupt, "its tar archive has a sparse file whose parts overlap");
        expected = static_cast<std::uint64_t>(offset) + size;
        CAISSON_TRY(callback(static_cast<std::uint64_t>(offset),
                             base::ByteView(static_cast<const std::uint8_t*>(buffer), size)));
    }
}

Result<LayerReader::Sum> LayerReader::finish() {
    // libarchive stops at the end mark; what follows still belongs to the digest.
    for (;;) {
        if (stream_failed_) return fail();
        auto chunk = CAISSON_TRY(stream_->next());
        if (chunk.empty()) break;
        bytes_ += chunk.size();
    }
    return Sum{stream_->digest(), bytes_};
}

}  // namespace caisson::image::unpack
