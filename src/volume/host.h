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

// A mount of its own of what was pinned and nothing else, in no place: from its root no ".." leads out, nothing is linked
// or moved over its edge, nothing that is mounted on the host later appears in it, and the kernel refuses through it what
// it is not for, whoever holds it: set-user-id programs, devices, executing, and writing if `mount` is read-only. It is
// made of the descriptor, never of a path. For a process with a mount namespace of its own (os::in_own_mount_namespace()).
Result<os::Fd> detached_mount(const Pinned& pinned, const wire::BoxMount& mount);

class ShareHost {
  public:
    struct Options {
        std::string program;  // caisson-share
        const jail::Sandbox* sandbox = &jail::bubblewrap();
        os::GroupEntry groups;
    };

    // `port`: the machine's stream of shares; `window`: its memory for what files hold (wire/share.h). Both are kept until
    // there is something to serve. Nothing is started yet.
    ShareHost() = default;
    ShareHost(Options options, os::Fd port, os::Fd window)
        : options_(std::move(options)), port_(std::move(port)), window_(std::move(window)) {}

    // Serves what `mounts` lists and nothing else: what is new is pinned and handed over, what is gone is taken away.
    // After an error some of it may be served. Errors name the volume.
    Result<> serve(const Catalogue& catalogue, const wire::BoxMounts& mounts);

    bool started() const { return static_cast<bool>(orders_); }
    // After its end: what it said of why, printable, at most a line of kMostLastWords bytes; often nothing.
    std::string last_words();
    os::Process& process() { return process_; }
    jail::Init& init() { return init_; }

  private:
    static constexpr std::size_t kMostLastWords = 400;
    // An answer takes as long as what the guest just asked for, such as bringing a file to a slow disk. Whoever takes
    // longer than this has been taken over, or its disk is dead; it is killed, for its next answer could be this one.
    static constexpr std::chrono::seconds kAnswerPatience{30};
    Result<> start();
    Result<> give_and_take(const Catalogue& catalogue, const wire::BoxMounts& mounts);
    Result<> hand_over(const Catalogue& catalogue, const std::vector<const wire::BoxMount*>& mounts);

    Options options_;
    os::Fd port_, window_, orders_, words_;
    os::Process process_;
    jail::Init init_;
    std::set<std::uint32_t> served_;
};

}  // namespace caisson::volume
