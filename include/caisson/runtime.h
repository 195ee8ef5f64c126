// The public C++ API of caisson: run commands from OCI images in micro-VMs.
//
//   auto runtime = caisson::Runtime::open({});
//   auto box = runtime->run({.image = "caisson/base", .command = {"python3", "-c", "print(6*7)"}});
//   auto outcome = box->main().wait({.on_stdout = [](std::string_view bytes) { ... }});
//
// Every call that can fail returns Result. Objects are move-only owners: destroying a Box ends it. Boxes that live on
// their own are made by create() and start(), or run_detached(), and found again by any process that opens the same home:
// wherever a `reference` is asked for, it is a box's name, its id, or a beginning of its id that fits no other. One
// Runtime may be used from several threads; a Box and its Execution belong to one thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "caisson/audit.h"
#include "caisson/check.h"
#include "caisson/copy.h"
#include "caisson/export.h"
#include "caisson/logs.h"
#include "caisson/network.h"
#include "caisson/outcome.h"
#include "caisson/registry.h"
#include "caisson/result.h"
#include "caisson/space.h"
#include "caisson/stats.h"
#include "caisson/update.h"
#include "caisson/volume.h"

namespace caisson {

// Long work tells how far it is. `total` is 0 where it is not known.
struct Progress {
    std::string step;  // "making the template", "reading layer 2 of 5"
    std::uint64_t done = 0;
    std::uint64_t total = 0;
};
using ProgressCallback = std::function<void(const Progress&)>;

struct RuntimeOptions {
    std::string home;         // absolute; empty: $CAISSON_HOME, else the default of this user
    std::string assets;       // VMM and guest kernel; empty: $CAISSON_ASSETS, else where caisson is installed
    std::string accelerator;  // "", "tcg" or "kvm"; empty: $CAISSON_ACCEL, else what works
    std::string program_directory;  // where caisson's helper programs are sought (../libexec/caisson from here);
                                    // empty: where libcaisson.so is installed, or for a program that has the library
                                    // in it, the directory of the program
    int kvm_fd = -1;  // /dev/kvm, open for reading and writing as long as the Runtime lives; -1: opened when it is needed
    int tun_fd = -1;     // the tun device, as leave_root() sets it; -1: opened when it is needed
    int cgroup_fd = -1;  // as leave_root() sets it: through it supervisors enter the control group given to their user
    ProgressCallback on_progress;
    std::function<void(const std::string&)> on_notice;  // one line for a person, e.g. "template was rebuilt"
    // What the journal records from now on, of this process and all others that use the home, in a thread of the Runtime's.
    // It may call the Runtime, and must not destroy it.
    std::function<void(const AuditEvent&)> on_event;
    std::size_t audit_events = 1000;  // most that Box::audit_log() returns of each of the box's chains
    std::int64_t caller_uid = -1;     // as leave_root() sets it: who the journal says did it; -1: the process's user
};

// Whether run() asks a registry for its image.
enum class PullPolicy {
    kMissing,  // if it is not in the store
    kAlways,   // each time; what has not changed is not downloaded again
    kNever,
};

enum class RestartPolicy {
    kNo,
    kOnFailure,  // when it ended otherwise than with 0
    kAlways,     // unless somebody stopped it
};

// A command that the box's supervisor runs in it again and again to learn whether it does its work.
struct HealthCheck {
    std::vector<std::string> command;
    std::chrono::milliseconds interval{30000};  // from the end of one to the next
    std::chrono::milliseconds timeout{30000};   // one that takes longer has failed
    std::uint32_t retries = 3;                  // failures in a row until it is unhealthy
    std::chrono::milliseconds start_period{0};  // failures this early do not count
};

struct BoxOptions {
    std::string image;
    PullPolicy pull = PullPolicy::kMissing;
    PullOptions pull_options;          // its platform stays empty: a box is of this host's
    std::vector<std::string> command;  // empty: the image's
    std::optional<std::string> entrypoint;  // replaces the image's; empty string: none
    std::string name;                  // empty: drawn
    std::string hostname;              // empty: the last 12 characters of the id
    std::vector<std::pair<std::string, std::string>> environment;  // over the image's
    std::string working_directory;     // empty: the image's
    std::string user;                  // empty: the image's
    std::uint32_t cpu_millis = 1000;
    std::uint64_t memory_bytes = 512ull << 20;
    std::uint64_t disk_bytes = 10ull << 30;
    std::uint32_t pids_limit = 0;      // processes and threads of the box; 0: only the guest kernel's own limit
    std::vector<TmpfsOption> tmpfs;
    std::vector<MountOption> mounts;   // in any order; one below another one is mounted after it
    std::vector<CopyOption> copies;
    bool read_only = false;
    // What root may do in the guest's kernel: Docker's 14 capabilities, without those dropped, with those added. Names
    // with or without CAP_, in any case; "ALL" is all of them.
    std::vector<std::string> cap_add, cap_drop;
    bool privileged = false;           // all capabilities but those dropped, every device, nothing hidden or read-only
    bool no_new_privileges = false;    // set-user-id programs and file capabilities give nothing
    bool open_stdin = false;
    bool terminal = false;             // one pseudo-terminal for all three streams; its output arrives as stdout
    std::uint32_t terminal_rows = 0, terminal_columns = 0;  // its size at the start; 0: not known
    bool auto_remove = true;
    bool cold = false;                 // boot instead of restoring a template
    // What it reaches, see docs/network.md: "none", "public" (the internet), "open" (and private networks), or "rules": what
    // the first list allows. Empty: "rules" if there are any, else "public". Denying beats allowing. Instead of all these
    // `network_policy`, the text of a policy file. Where the host cannot make the network there is no box: kHostMissing.
    std::string network;
    std::vector<std::string> allow_network, deny_network;
    std::string network_policy;
    std::vector<std::string> name_servers;              // "192.0.2.1" or "192.0.2.1:5353"; empty: the host's
    std::vector<std::pair<std::string, std::string>> hosts;  // names and their addresses, before all name servers
    std::vector<PublishedPort> ports;
    NetworkLimits network_limits;
    // "http://ADDRESS:PORT" or "socks5://ADDRESS:PORT" of a proxy without authentication: what the policy allows of TCP is
    // connected through it and never directly, but for this host itself; UDP is refused. The policy does not judge the proxy's
    // own address, which the host connects to. Empty: none. Needs a network.
    std::string network_proxy;
    // Lets the journal keep each target once, however many there are (docs/limits.md has the bound), and reads the names that
    // connections show: for a policy of what the box wanted. Needs a network.
    bool network_learn = false;
    std::optional<std::chrono::milliseconds> timeout;  // of the command; its end is Outcome::kTimedOut
    std::map<std::string, std::string> labels;
    RestartPolicy restart = RestartPolicy::kNo;  // only for boxes that are detached and not removed
    std::uint32_t restart_limit = 0;             // for kOnFailure; 0: none
    std::optional<std::chrono::milliseconds> max_duration;  // then it is stopped
    // Stopped after this time without anybody attached to its command and without an execution beside it.
    std::optional<std::chrono::milliseconds> idle_timeout;
    std::chrono::milliseconds stop_timeout{10000};  // between the stop signal and the kill
    int stop_signal = 0;                            // 0: the image's, else SIGTERM
    std::optional<HealthCheck> health;              // replaces the image's
    bool no_health_check = false;                   // not even the image's
    bool require_limits = false;                    // kHostMissing where the host cannot limit memory, CPUs and processes
    // "none" runs the box's VMM without its jail: as the same user with the same limits, but with a view of the whole host
    // and no filter but QEMU's own. For hosts that refuse jails and for whoever debugs them; recorded and shown.
    std::string security = "jailed";
    bool replace = false;                           // removes, by force, a box that has the name
};

// A further command in a box that runs.
struct ExecOptions {
    std::vector<std::string> command;
    std::vector<std::pair<std::string, std::string>> environment;  // over that of the box's command
    std::string working_directory;  // empty: that of the box's command
    std::string user;               // empty: that of the box's command
    bool privileged = false;        // all capabilities; else those of the box. The box's walls stay as they are
    bool open_stdin = false;
    bool terminal = false;
    std::uint32_t terminal_rows = 0, terminal_columns = 0;
    std::optional<std::chrono::milliseconds> timeout;
};

struct AttachOptions {
    std::string execution;  // its id or a unique beginning of it; empty: the box's command
    bool input = true;      // if the command has an input that nobody else holds
};

// Where an execution's streams go while wait() runs. A descriptor stays the caller's and may be blocking. For each
// output the descriptor is used if it is set, else the callback, else the bytes are dropped.
struct StreamOptions {
    int stdin_fd = -1;  // -1: nothing is sent; with BoxOptions::open_stdin the command then sees end of file
    int stdout_fd = -1;
    int stderr_fd = -1;
    std::function<void(std::string_view)> on_stdout;
    std::function<void(std::string_view)> on_stderr;
    // With BoxOptions::terminal: the caller's terminal. The command's takes its size, now and (with forward_signals)
    // whenever it changes. -1: none; see Execution::resize().
    int terminal_fd = -1;
    // Bytes which, read from stdin_fd one right after the other, are not passed on but leave the box to itself: wait()
    // returns Outcome::kDetached, and the box goes on after this process. Empty: none. See parse_detach_keys().
    std::string detach_keys;
    // SIGINT, SIGTERM, SIGHUP and SIGQUIT of this process reach the command while wait() runs; a second SIGINT or
    // SIGTERM stops the box. The calling thread must be the only one that does not block these signals.
    bool forward_signals = false;
};

// One stage of a start, for people who ask where the time goes.
struct Stage {
    std::string name;
    std::chrono::microseconds duration;
};

namespace internal {
struct RuntimeState;
struct BoxState;
}  // namespace internal

// A process in a box, its streams and its end.
class CAISSON_API Execution {
  public:
    // Moves bytes until the command has ended and its last byte is delivered. Call it once. Errors are caisson's own
    // (the caller's descriptors fail other than by a closed reader); how the command ended is the Outcome.
    Result<Outcome> wait(const StreamOptions& streams);
    // Sends a signal to the command. May be called from another thread while wait() runs.
    Result<> signal(int number);
    // Gives the command's terminal another size, in characters. May be called from another thread while wait() runs.
    // kUsage for a size beyond 65535; without a terminal it does nothing.
    Result<> resize(std::uint32_t rows, std::uint32_t columns);
    // Of what was attached to: does it have a terminal, does its input come from here, and which record of its log is
    // the first that wait() will deliver.
    bool terminal() const;
    bool input() const;
    std::uint64_t log_position() const;

  private:
    friend class Box;
    friend class Runtime;
    explicit Execution(std::shared_ptr<internal::BoxState> state) : state_(std::move(state)) {}
    std::shared_ptr<internal::BoxState> state_;
};

// A running box. Destroying it kills what still runs and removes it if it was to be removed.
class CAISSON_API Box {
  public:
    const std::string& id() const;
    const std::string& name() const;
    Execution& main() { return main_; }
    // Where the time of start and end went; complete once main().wait() has returned.
    std::vector<Stage> timings() const;
    // How the guest is run and why: "software emulation (TCG): ...".
    const std::string& engine() const;
    // The newest entries of its journal, oldest first; of the box and of its network at most
    // RuntimeOptions::audit_events each.
    Result<std::vector<AuditEvent>> audit_log() const;

  private:
    friend class Runtime;
    explicit Box(std::shared_ptr<internal::BoxState> state);
    std::shared_ptr<internal::BoxState> state_;
    Execution main_;
};

// What every list of boxes shows.
struct BoxInfo {
    std::string id, name, image, command, state, reason;  // `command` is a JSON array
    std::int64_t created_ms = 0;                          // Unix time, as all of these; 0: not yet
    std::int64_t finished_ms = 0;
    std::optional<int> exit_code;  // as a shell sees it
    std::int64_t started_ms = 0;
    std::string outcome;           // of its last life: "exited", "signalled", "timed_out", "failed"; empty: none yet
    std::string health;            // "", "starting", "healthy", "unhealthy"
    std::int64_t restarts = 0;
    std::map<std::string, std::string> labels;
    std::string security;          // "jailed" or "none", see BoxOptions
};

struct ExecutionInfo {
    std::string id, command, state;  // "running" or "ended"; `command` is a JSON array
    bool detached = false;
    std::int64_t started_ms = 0, finished_ms = 0;
    std::string outcome, reason;
    std::optional<int> exit_code;
};

// What all host processes of a box may take together, enforced by the host's control groups: more than the box's own
// options say, for there is a VMM around it.
struct HostLimits {
    bool applied = false;            // some limit is; of the last start
    std::string reason;              // why not, or why not all
    std::uint64_t memory_bytes = 0;  // 0: not limited, as below
    std::uint32_t cpu_millis = 0, pids = 0;
    int cgroup_version = 0;          // 1 or 2; 0: none
    std::vector<std::string> groups; // their directories
};

// What one process of a box runs under, as the kernel tells it. What it does not tell this user stays empty.
struct JailedProcess {
    std::string kind;  // "vmm", "supervisor", "share" (the server of its volumes), "network", "network_namespace"
    std::int64_t pid = 0;
    std::string user;                      // uid on the host
    std::vector<std::string> namespaces;   // of its own: "user", "mnt", "pid", ...
    std::vector<std::string> mounts;       // "PATH ro" or "PATH rw", if its mount namespace is its own
    std::vector<std::string> descriptors;  // "NUMBER WHAT"
    std::string capabilities;              // permitted, hexadecimal
    bool no_new_privileges = false;
    unsigned call_filters = 0;  // system call filters; QEMU has one of its own on top
    std::string filter;         // which list of calls caisson put on it: "vmm", "shim", "share", "netd", "netns"; empty: none
    std::string landlock;       // "version N", "impossible: ...", "not used: ..."; empty: not used or not known
};

// All that is known about one box.
struct BoxDetails {
    BoxInfo info;
    std::string image_digest, engine;
    std::string hostname, working_directory, user;
    std::vector<std::string> environment;
    bool auto_remove = false, read_only = false, terminal = false, open_stdin = false;
    bool privileged = false, no_new_privileges = false;
    std::vector<std::string> cap_add, cap_drop;  // "CAP_NET_ADMIN" or "ALL"
    std::uint32_t cpu_millis = 0, pids_limit = 0;
    std::uint64_t memory_bytes = 0, disk_bytes = 0;
    std::vector<TmpfsOption> tmpfs;
    std::vector<MountInfo> mounts;  // volumes and tmpfs, by target
    HostLimits host_limits;
    std::string network_policy;         // text of a policy file; empty: no network
    bool network_learn = false;         // see BoxOptions
    std::string network_proxy;          // empty: none
    std::vector<PublishedPort> ports;   // of a box that runs, with the ports that were chosen
    std::string network, restart;  // "none", "public", "open" or "rules"; "no", "on-failure", "on-failure:3", "always"
    std::int64_t timeout_ms = 0, max_duration_ms = 0, idle_timeout_ms = 0, stop_timeout_ms = 0;  // 0: none
    int stop_signal = 0;
    std::optional<HealthCheck> health_check;
    std::int64_t supervisor_pid = 0, vmm_pid = 0;  // 0: it does not run
    std::vector<JailedProcess> jail;    // of its processes that run
    std::uint64_t disk_used_bytes = 0;  // of its directory: what it wrote, and its logs
    std::vector<ExecutionInfo> executions;  // those that run, and detached ones that are over
};

// Facts of this installation and its home.
struct RuntimeInfo {
    std::string version, home, engine;
    std::size_t boxes = 0, running = 0, paused = 0, images = 0, templates = 0;
    std::uint64_t home_bytes = 0;
};

struct ImageInfo {
    std::string name;       // "caisson/base:latest"
    std::string id;         // digest of its configuration
    std::string digest;     // of its manifest
    std::string created;    // RFC 3339
    std::string platform;   // "linux/amd64"
    std::uint64_t size_bytes = 0;
    std::size_t layers = 0;
};

struct LayerInfo {
    std::string digest, media_type, diff_id;
    std::uint64_t size_bytes = 0;
};

// All that is known about one image.
struct ImageDetails {
    ImageInfo info;
    std::string source_digest;  // what the registry's name stood for; empty if it was not pulled
    std::vector<LayerInfo> layers;  // lowest first
    std::vector<std::string> entrypoint, cmd, env, volumes, exposed_ports;
    std::string working_directory, user, stop_signal;
    std::map<std::string, std::string> labels;
};

struct PruneOptions {
    bool all = false;  // also images that no box was made from
};
struct Pruned {
    std::vector<std::string> images;  // names that went away
    std::uint64_t freed_bytes = 0;
};

// How an imported root file system is to be run.
struct ImageConfig {
    std::vector<std::string> entrypoint, cmd, env;
    std::string working_directory, user;
    std::map<std::string, std::string> labels;
};

struct TemplateShape {
    std::string image;
    std::uint32_t cpu_millis = 1000;
    std::uint64_t memory_bytes = 512ull << 20;
    bool network = true;  // for boxes with a network; those without have templates of their own
};

struct TemplateInfo {
    std::string key;
    std::string image;
    std::uint32_t cpus = 0;
    std::uint32_t memory_mib = 0;
    std::string accelerator, vmm_version, kernel_version;
    std::int64_t created_unix = 0;
    std::uint64_t disk_bytes = 0;
    bool current = false;  // usable on this boot of the host
};

// One line of `caisson doctor`.
struct Check {
    enum class Level { kGood, kInfo, kBad };
    Level level = Level::kGood;
    std::string name;    // stable: "kvm", "user_namespaces"
    std::string found;   // what is the case
    std::string remedy;  // exact command; empty if none is needed
};

// One layer of what keeps boxes away from the host, as `caisson doctor` shows it.
struct Layer {
    enum class State {
        kOn,
        kOff,         // this host could have it
        kImpossible,  // not on this kernel or with this hardware
    };
    std::string name;  // stable: "user_namespaces", "landlock"
    State state = State::kOff;
    std::string detail;
    std::string fix;  // exact command; empty if none is needed or known
};

class CAISSON_API Runtime {
  public:
    // Opens (and makes) the home, and tidies up after processes that died.
    static Result<Runtime> open(RuntimeOptions options);
    Runtime(Runtime&&) noexcept;
    Runtime& operator=(Runtime&&) noexcept;
    ~Runtime();

    // Starts a box and its command. Validates everything first; a refused or failed request leaves nothing behind.
    // kCommandNotFound and kNotExecutable are errors of starting the command.
    Result<Box> run(const BoxOptions& options);
    // What run() would do, for people: machine, jail, mounts, command. Starts nothing.
    Result<std::string> plan(const BoxOptions& options);

    // The same, but the box lives on its own: it returns once the command runs.
    Result<BoxInfo> run_detached(const BoxOptions& options);
    // A box that has not been started. BoxOptions::auto_remove counts for its first life.
    Result<BoxInfo> create(const BoxOptions& options);
    // Starts a box that was created or has ended; it lives on its own. What it had written to its disk is there. One
    // that runs already is left alone.
    Result<BoxInfo> start(const std::string& reference);
    // The boxes that a restart policy wants to run and that do not because their supervisor died or the host was
    // restarted; `failed` hears of those that could not be started.
    Result<std::vector<BoxInfo>> start_by_policy(const std::function<void(const BoxInfo&, const Error&)>& failed);

    // Starts a command beside the box's own; it ends with the Execution. kInUse: the box does not run.
    // kCommandNotFound and kNotExecutable say that it could not be started, and why.
    Result<Execution> exec(const std::string& reference, const ExecOptions& options);
    // The same, but it lives on its own; its output goes to a log, its end to its record.
    Result<ExecutionInfo> exec_detached(const std::string& reference, const ExecOptions& options);
    // Joins what runs. Errors: kNotFound, there never was such an execution; kInUse, it (or the box) is over.
    Result<Execution> attach(const std::string& reference, const AttachOptions& options);
    // Waits for the end of a box's life, or of an execution; at once if that was before. kInUse: a box that was never
    // started.
    Result<Outcome> wait(const std::string& reference, const std::string& execution = {});

    // Asks the box's command to end, kills it after `grace` (unset: as it was asked to be), waits until the box is
    // stopped. One that does not run is left alone.
    Result<> stop(const std::string& reference, std::optional<std::chrono::milliseconds> grace = {});
    Result<BoxInfo> restart(const std::string& reference, std::optional<std::chrono::milliseconds> grace = {});
    // Sends a signal to the box's command or to an execution.
    Result<> kill(const std::string& reference, int signal, const std::string& execution = {});
    // Freezes the whole machine; its time stands still until it goes on, and is the host's again then.
    Result<> pause(const std::string& reference);
    Result<> resume(const std::string& reference);
    Result<> rename(const std::string& reference, const std::string& name);

    // A volume for a box that is there: put in place at once if it runs, else when it is started; it keeps it until it is
    // detached. A volume with this name is made if there is none. kInUse: something is mounted there, or the box is paused,
    // starting or stopping. After an error the box has what it had.
    Result<MountInfo> attach_volume(const std::string& reference, const MountOption& mount);
    // `target` as it was attached or mounted. kInUse: a process in the box uses it; with `force` that one keeps it until it
    // lets go, and gets ESTALE for it from then on. An anonymous volume is removed.
    Result<> detach_volume(const std::string& reference, const std::string& target, bool force = false);

    // Oldest first.
    Result<std::vector<BoxInfo>> boxes() const;
    Result<BoxDetails> inspect(const std::string& reference) const;
    // Removes a box. kInUse while it runs, unless `force`: then it is killed first, which may take a few seconds.
    Result<> remove_box(const std::string& reference, bool force = false);
    // Removes boxes that do not run and have all of these labels (an empty value fits any); those never started too.
    Result<std::vector<BoxInfo>> prune_boxes(const std::map<std::string, std::string>& labels);
    Result<RuntimeInfo> info() const;
    // Gives what a box wrote to `sink`, oldest first, until it says false; see LogOptions. Nothing is given twice, and
    // what is gone is said. The sink may be slow: the box does not wait for it. kNotFound: no such box or execution;
    // kCorrupt: everything that can be read was given, but some of it is damaged.
    Result<> logs(const std::string& reference, const LogOptions& options,
                  const std::function<Result<bool>(const LogEntry&)>& sink) const;
    // The box's end of a copy: its standard output or input is the stream, see copy.h. A box that does not run has its
    // machine started for this, without its command; it is in use until the Execution is destroyed.
    Result<Execution> copy_out(const std::string& reference, const CopyOptions& options);
    Result<Execution> copy_in(const std::string& reference, const CopyOptions& options);

    Result<std::vector<ImageInfo>> images() const;
    // From an OCI layout (a directory), an OCI archive or a docker archive; `fd` is read and stays the caller's. Makes
    // the images' root disks too: kCorrupt, kLimit and kUnsupported name the layer and entry that cannot be unpacked,
    // and nothing has changed then.
    Result<std::vector<ImageInfo>> load_images(int fd, const std::string& name);
    Result<ImageInfo> import_image(int fd, const std::string& name, const ImageConfig& config);
    // Downloads an image ("debian:12", "ghcr.io/owner/name@sha256:...") unless it is here in the same version, and makes
    // its root disk. May be called by several threads and processes at once; they share downloads. A broken download
    // is resumed by the next call. kNotFound: no such image, or none for the platform; kPermission: the registry wants
    // a (better) login, or its certificate is not trusted; kIo, kTimeout: the network; kCorrupt, kLimit: what came is
    // not what its digest says, or cannot be unpacked, and nothing of it was kept.
    Result<ImageInfo> pull_image(const std::string& name, const PullOptions& options);
    // Whether a registry accepts a login. kPermission if it does not.
    Result<> check_registry_login(const std::string& registry, const RegistryAccess& access, bool plain_http);
    // Writes images as an OCI archive to `fd`, which stays the caller's. Digests are those of the images as they came.
    Result<> save_images(const std::vector<std::string>& references, int fd);
    // Gives an image a further name, which may have belonged to another image.
    Result<ImageInfo> tag_image(const std::string& reference, const std::string& new_name);
    Result<ImageDetails> inspect_image(const std::string& reference) const;
    // Removes what nothing needs: unfinished downloads, blobs and root disks of no image, on demand unused images.
    Result<Pruned> prune_images(const PruneOptions& options);
    // Names that went away.
    Result<std::vector<std::string>> remove_image(const std::string& reference);

    // An empty volume. kAlreadyExists; kUsage: no name for one, or the size that its type needs is missing; kUnsupported.
    Result<VolumeInfo> create_volume(const VolumeOptions& options);
    // Named ones first, each by name, with their space counted if it is asked for: that looks at each of their files.
    Result<std::vector<VolumeInfo>> volumes(bool count_space = false) const;
    // By its name, or an anonymous one by its id. kNotFound.
    Result<VolumeInfo> inspect_volume(const std::string& name) const;
    // With all that is in it. kInUse names the boxes that have it, running or not; kNotFound.
    Result<> remove_volume(const std::string& name);
    // Removes named volumes that no box has and that have all of these labels (an empty value fits any), and, without
    // labels, what processes that died left of others.
    Result<PrunedVolumes> prune_volumes(const std::map<std::string, std::string>& labels);

    // A copy of all of a volume under a new name, sharing its blocks on file systems that can. With its limit.
    Result<VolumeInfo> clone_volume(const std::string& source, const std::string& name);
    // A volume's end of a copy, see copy.h; what the stream holds is the guest's view of the files. kNotFound. Of what
    // is read nothing changes in the volume; it may be in use meanwhile.
    Result<HostCopy> read_volume(const std::string& name, const VolumeCopyOptions& options);
    // kNoSpace if the volume's limit is reached.
    Result<HostCopy> write_volume(const std::string& name, const VolumeCopyOptions& options);

    Result<std::vector<TemplateInfo>> templates() const;
    // Makes the template that boxes of this image and shape start from, unless it is there.
    Result<TemplateInfo> build_template(const TemplateShape& shape);
    Result<> remove_template(const std::string& key);

    // Gives the journal's entries to `sink`, by time, until it says false. Of a box that was removed they are there until
    // the journal's limits take them (docs/audit.md). kNotFound: no such box. Lines that cannot be read are passed over:
    // verify_audit() says which.
    Result<> audit(const AuditQuery& query, const std::function<Result<bool>(const AuditEvent&)>& sink) const;
    // Whether the journal is what was written: of everything, or of one box, or of "home". `anchored` is a head of that one
    // chain that somebody kept. kNotFound: no such box.
    Result<AuditVerification> verify_audit(const std::string& box = {}, const std::optional<AuditHead>& anchored = {}) const;
    // The last entry of a box's chain, or of the home's for an empty reference, once it is surely on the disk: to be kept
    // where the home's owner cannot change it. kNotFound.
    Result<AuditHead> audit_head(const std::string& box = {}) const;
    // What takes room in the home, what of it nobody needs. Looks at each file, of volumes too. See space.h.
    Result<Space> space() const;
    // Removes what nobody needs: directories of boxes that are gone, base disks and templates without users, blobs of no
    // image, unfinished downloads. Never what a process works on, and never a volume. What cannot be removed is told of in
    // the answer and keeps nobody from the rest.
    Result<Collected> collect_garbage(const GarbageOptions& options);

    // Looks at the host. Never fails: what cannot be found out is a check of level kBad.
    static std::vector<Check> diagnose(const RuntimeOptions& options);
    // What keeps boxes away from this host, layer by layer, always the same ones in the same order. Never fails. Takes
    // a few milliseconds: it makes a jail to see whether it can. Call it as the user that boxes run as.
    static std::vector<Layer> layers(const RuntimeOptions& options);
    // Looks for everything in a home that is not as it should be, beside whatever else uses it. Without CheckOptions::repair
    // nothing is changed; else what is doubtful is moved to <home>/aside, and volumes are never removed. What a finding is
    // says caisson/check.h. Errors are those that keep it from looking at all; kNotFound: there is no home.
    static Result<CheckReport> check(const RuntimeOptions& options, const CheckOptions& checks);

    // What boxes take of the host now, in the order of the references; without any, of all that run. kNotFound, kUsage.
    Result<std::vector<BoxStats>> stats(const std::vector<std::string>& references = {}) const;
    // Changes what a box was asked to be, see caisson/update.h; what of it takes effect when is in the answer, also of a dry
    // run, which changes nothing. kUsage: it cannot be so; kInUse: the box is starting, stopping or paused, uses more memory
    // than it is to have, or a port of the host is in use; kNotFound: a port that is to be published no more is not
    // published; kIo: its network's process died, see BoxUpdate::restart_network. After an error the box is as it was.
    Result<BoxUpdatePlan> update_box(const std::string& reference, const BoxUpdate& update);

  private:
    explicit Runtime(std::shared_ptr<internal::RuntimeState> state);
    std::shared_ptr<internal::RuntimeState> state_;
};

// For programs started as root, before they make threads or open a Runtime: makes the home, gives it to the service
// user (the user "caisson", else uid 61777), and turns this process into that user for good. Returns `options` with
// the home filled in, /dev/kvm opened and control groups made, for that user may not. Does nothing for ordinary users. What only root may read
// must be opened before.
CAISSON_API Result<RuntimeOptions> leave_root(RuntimeOptions options);

// "ctrl-p,ctrl-q" as bytes: keys separated by commas, each a character or ctrl- and a letter or one of @ [ \\ ] ^ _.
// Empty for an empty text. kUsage for anything else.
CAISSON_API Result<std::string> parse_detach_keys(std::string_view text);

// "SIGTERM", "TERM", "15", "SIGRTMIN+3" as a number of 1 to 64; kUsage for anything else.
CAISSON_API Result<int> parse_signal(std::string_view text);

CAISSON_API std::string_view version();

}  // namespace caisson
