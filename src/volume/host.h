// The share server of one box, as its launcher has it: started when the box has its first volume, told of volumes by
// orders (share/control.h), ended with the machine. Single-threaded callers only: it dies with the calling thread.
#pragma once

#include <chrono>
#include <map>
#include <set>
#include <string>

#include "base/result.h"
#include "jail/sandbox.h"
#include "os/process.h"
#include "volume/catalogue.h"
#include "wire/volume.pb.h"

namespace caisson::volume {

class ShareHost {
  public:
    struct Options {
        std::string program;  // caisson-share
        const jail::Sandbox* sandbox = &jail::bubblewrap();
        os::GroupEntry groups;
    };

    // `port`: the machine's stream of shares, kept until there is something to serve. Nothing is started yet.
    ShareHost() = default;
    ShareHost(Options options, os::Fd port) : options_(std::move(options)), port_(std::move(port)) {}

    // Serves what `mounts` lists and nothing else: what is new is pinned and handed over, what is gone is taken away.
    // After an error some of it may be served. Errors name the volume.
    Result<> serve(const Catalogue& catalogue, const wire::BoxMounts& mounts);

    bool started() const { return static_cast<bool>(orders_); }
    os::Process& process() { return process_; }
    jail::Init& init() { return init_; }

  private:
    Result<> start();
    Result<> hand_over(const Catalogue& catalogue, const std::vector<const wire::BoxMount*>& mounts);

    Options options_;
    os::Fd port_, orders_;
    os::Process process_;
    jail::Init init_;
    std::set<std::uint32_t> served_;
};

}  // namespace caisson::volume
