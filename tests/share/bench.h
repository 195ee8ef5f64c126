// A share server without a guest: the real caisson-share, and this host's own kernel in the place of the guest's. What
// carries messages between them is what the agent has. Needs root and /dev/fuse.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "os/fd.h"
#include "os/file.h"
#include "os/process.h"

namespace caisson::volume::share {

struct BenchVolume {
    std::string path;  // a directory, or a single file
    bool read_only = false;
    std::uint64_t limit_bytes = 0;
    std::string own_file = "";  // by which servers know of each other; for one without a limit
};

class Bench {
  public:
    struct Options {
        std::vector<BenchVolume> volumes;
        std::uint32_t user = 0, group = 0;    // of the box
        unsigned long long descriptors = 0;  // limit of the server; 0: whatever there is
        bool keeps = false;  // what the server promises is believed, as an agent's guest does, and the window is used
        int port = -1;                       // somebody else's instead of the kernel's: nothing is mounted
    };
    // Empty if one can be had here, else why not.
    static std::string missing();
    // Ends the process that main() was called as if that was meant to carry messages; see start().
    static void be_pump(int count, char** words);

    static Result<std::unique_ptr<Bench>> start(const Options& options);
    // Unmounts, and waits for both processes.
    ~Bench();
    std::string place(std::size_t volume = 0) const { return mounted_ + "/m" + std::to_string(volume); }
    pid_t server() const { return server_.pid(); }
    int orders() const { return orders_.get(); }
    int port() const { return port_.get(); }
    // Bytes that a volume with a limit says it holds.
    std::int64_t used(std::size_t volume = 0) const;
    std::size_t open_descriptors() const;

  private:
    Bench() = default;
    Result<> start_server(const Options& options, os::Fd orders, os::Fd port);
    Result<> mount(const Options& options, const os::Fd& port);
    Result<> add(std::uint32_t number, const BenchVolume& volume);
    std::optional<os::TemporaryDirectory> place_;
    std::string mounted_;
    os::Fd orders_, port_, window_;  // the window: for the pump in place of a device
    std::map<std::size_t, os::Fd> counts_;
    os::Process server_, pump_;
};

// Runs a program with nothing but a PATH and gives what it wrote to both outputs.
struct Ran {
    int code = -1;
    std::string output;
};
Ran run(const std::vector<std::string>& arguments, const std::string& directory = "/");

}  // namespace caisson::volume::share
