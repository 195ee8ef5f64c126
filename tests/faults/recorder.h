// Writes down what is done to the files below one directory, in the order in which the kernel did it.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "calls.h"

namespace faults {

// A traced process's call: number and arguments at its beginning.
struct Invocation {
    pid_t task = 0;
    const Call* call = nullptr;
    std::uint64_t arguments[6] = {};
};

// A name in a directory, found before the call is made: afterwards it may be another file's.
struct Place {
    std::uint64_t directory = 0;  // of the recorder's numbers
    std::string name;
    std::string path;  // through /proc, for the tracer to look at
    std::optional<std::uint64_t> file;
};

std::string read_string(pid_t task, std::uint64_t address);
bool read_memory(pid_t task, std::uint64_t address, void* target, std::size_t size);

// The log has one line for each act, its words parted by tabs; files and directories have numbers, of which none is
// used again. What was written lies in LOG.data, one piece after the other. The root directory has the number 1.
//   have DIRECTORY NAME NUMBER d|f|l|o        what was there at the beginning
//   make DIRECTORY NAME NUMBER d|f|l|o MODE TARGET
//   link DIRECTORY NAME NUMBER
//   rename DIRECTORY NAME DIRECTORY2 NAME2 NUMBER
//   remove DIRECTORY NAME NUMBER
//   write NUMBER OFFSET LENGTH PLACE_IN_DATA SIZE_AFTERWARDS
//   size NUMBER BYTES                         truncated or grown
//   hole NUMBER OFFSET LENGTH                 reads as zeros from now on
//   mode NUMBER MODE
//   attribute NUMBER NAME HEX, noattribute NUMBER NAME
//   sync NUMBER, syncall
//   mark TEXT                                 a line that something wrote into the file of marks
class Recorder {
  public:
    // Needs root: others may not look into processes that hide what they hold. Exits if the log cannot be made.
    Recorder(const std::string& log, const std::string& directory, const std::string& marks);
    ~Recorder();
    Recorder(const Recorder&) = delete;
    Recorder& operator=(const Recorder&) = delete;

    // Before the call is made; true if its result is of interest.
    bool before(const Invocation& invocation);
    void after(const Invocation& invocation, std::int64_t result);

  private:
    struct Pending {
        std::optional<Place> first, second;
        bool existed = false;  // what the first place names
        std::uint64_t flags = 0;
    };
    using Inode = std::pair<dev_t, ino_t>;

    void walk(const std::string& path, std::uint64_t number);
    std::optional<std::uint64_t> known(const struct stat& info) const;
    std::uint64_t learn(const struct stat& info);
    std::optional<Place> place(pid_t task, int directory, std::uint64_t path_address) const;
    std::optional<std::uint64_t> of_fd(pid_t task, int fd) const;
    void made(const Place& place, const std::string& path);
    void wrote(const Invocation& invocation, std::uint64_t file, std::int64_t result);
    void sized(std::uint64_t file, const std::string& path);
    void on_fd(const Invocation& invocation, std::int64_t result);
    void on_paths(const Invocation& invocation, const Pending& pending, std::int64_t result);
    void attribute(std::uint64_t file, const std::string& path, const std::string& name);
    __attribute__((format(printf, 2, 3))) void note(const char* format, ...);

    std::FILE* log_ = nullptr;
    std::FILE* data_ = nullptr;
    std::uint64_t data_size_ = 0;
    std::uint64_t last_number_ = 1;
    std::map<Inode, std::uint64_t> numbers_;
    std::map<pid_t, Pending> pending_;
    Inode marks_{};
};

}  // namespace faults
