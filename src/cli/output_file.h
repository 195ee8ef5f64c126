// Where a command writes an archive; opened as the caller, before root is given up. A file is made, and must not be there.
#pragma once

#include <string>
#include <utility>

#include "os/fd.h"

namespace caisson::cli {

class OutputFile {
  public:
    // "-" or empty: standard output, unless that is a terminal (kUsage).
    static Result<OutputFile> open(const std::string& path);
    OutputFile(OutputFile&& other) noexcept : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, {})) {}
    OutputFile& operator=(OutputFile&&) = delete;
    // What is not complete does not stay. A service user may not remove its caller's file, but it can empty it.
    ~OutputFile();
    int fd() const { return fd_.get(); }
    // It is complete.
    Result<> finish();

  private:
    OutputFile() = default;
    os::Fd fd_;
    std::string path_;
};

}  // namespace caisson::cli
