// Writer: entries as a pax archive (POSIX.1-2001) that every tar reads: ustar headers, extended ones before them only
// for what does not fit, sparse files in GNU's form 1.0. Single-threaded.
#pragma once

#include "tar/entry.h"

namespace caisson::tar {

class Writer {
  public:
    explicit Writer(Sink sink) : sink_(std::move(sink)) {}
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    // A file's header is followed by exactly its bytes: `size` of them, or those of its extents.
    Result<> begin(const Entry& entry);
    Result<> data(base::ByteView bytes);
    // The end mark, in whole records of 10 KiB as readers of tapes want it.
    Result<> finish();

  private:
    Result<> put(base::ByteView bytes);
    Result<> flush();
    Result<> pad();

    Sink sink_;
    base::Bytes held_;  // small parts, for fewer system calls
    std::uint64_t left_ = 0;
    std::uint64_t written_ = 0;
};

}  // namespace caisson::tar
