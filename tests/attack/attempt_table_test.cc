// Whoever owns a jailed process owns nothing more: attempts.cc runs in the place of QEMU, of the reader of layers, of
// the registry client, of the server of volumes and of a box's network, each under exactly the description that caisson makes for it, and gets what attempt_table.h says.
// `attack_table --print` prints the table as it stands in docs/security.md.
#include "attempt_table.h"
#include "host_things.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <map>

#include "base/text.h"
#include "image/protocol.h"
#include "image/registry/client.h"
#include "image/unpacker.h"
#include "net/host.h"
#include "net/relay/netd.h"
#include "os/file.h"
#include "os/landlock.h"
#include "vmm/machine.h"
#include "vmm/vm.h"
#include "volume/host.h"
#include "volume/jail.h"
#include "volume/share/control.h"

namespace caisson::attack {
namespace {

using Results = std::map<std::string, std::string>;

#ifdef __x86_64__
constexpr bool kHasPorts = true;
#else
constexpr bool kHasPorts = false;
#endif

constexpr const char* kKindNames[kKinds] = {"VMM", "unpacker", "registry client", "volume server", "network"};

// ---- the table as text

const std::string& under_filter(const Expected& expected) { return expected.filtered.empty() ? expected.alone : expected.filtered; }

std::string cell(const Expected& expected) {
    if (expected.alone.empty()) return "–";
    const auto& filtered = under_filter(expected);
    std::string notes;
    if (!expected.landlocked.empty()) notes = "before Landlock " + std::to_string(expected.landlock_version) + ": " + filtered;
    if (expected.alone != filtered) notes += (notes.empty() ? "alone: " : "; alone: ") + expected.alone;
    const auto& whole = expected.landlocked.empty() ? filtered : expected.landlocked;
    return notes.empty() ? whole : whole + " (" + notes + ")";
}

std::string in_markdown(const std::vector<Row>& rows) {
    std::string text = "| attempt | layer below the filter | VMM | unpacker | registry client | volume server | network |\n|---|---|---|---|---|---|---|\n";
    std::string group;
    for (const auto& row : rows) {
        if (row.group != group) text += "| **" + row.group + "** | | | | | | |\n";
        group = row.group;
        text += "| " + row.attempt + " | " + row.layer;
        for (const auto& expected : row.expected) text += " | " + cell(expected);
        text += " |\n";
    }
    return text;
}

bool is_among(const std::string& result, const std::string& expected) {
    for (std::size_t at = 0; at <= expected.size();) {
        auto end = std::min(expected.find(" or ", at), expected.size());
        if (expected.substr(at, end - at) == result) return true;
        at = end + 4;
    }
    return false;
}

// ---- the jails

// As the VMM's starter does it, with files in the place of assets, template and disks.
jail::Description vmm(Place& place, const std::string& program) {
    for (const char* name : {"root", "root/usr", "root/usr/bin", "root/template", "root/box", "root/disk", "root/run", "template"})
        place.directory(name);
    place.file("root" + std::string(vmm::kQemuPath), program, 0755);
    place.file("template/mem", std::string(1 << 20, 'o'), 0444);
    vmm::MachinePlan plan;
    plan.start = vmm::MachinePlan::Start::kRestore;
    plan.template_directory = place.path() + "/template";
    plan.disk = vmm::Disk{place.file("disk.qcow2", "disk", 0600), place.file("base.ext4", "base", 0444), 1 << 20};
    vmm::Assets assets;
    assets.vmm_root = place.path() + "/root";
    assets.agent = place.path() + "/caisson-agent";  // caisson-enter is beside it
    auto description = vmm::vmm_jail(plan, assets);
    for (const char* word : {"shared=/template/mem", "writable=/box/disk.qcow2"}) description.arguments.emplace_back(word);
    return description;
}

image::Store::Options store_options(Place& place, const std::string& program) {
    image::Store::Options options;
    options.images_directory = place.path() + "/images";
    for (const char* name : {"images", "images/blobs", "images/blobs/sha256", "downloads"}) place.directory(name);
    options.unpack_program = options.fetch_program = place.file("helper", program, 0755);
    options.enter_program = place.path() + "/caisson-enter";
    return options;
}

jail::Description unpacker(Place& place, const std::string& program) {
    auto description = image::unpacker_jail(store_options(place, program), "disk", 64 << 20);
    description.descriptors = {{place.keep(os::open_file(place.file("disk.ext4", "", 0600), O_RDWR).value()), image::kOutputFd}};
    for (const char* word : {"listed=0,1,2,3,", "writable=@3"}) description.arguments.emplace_back(word);
    return description;
}

jail::Description fetch(Place& place, const std::string& program) {
    auto description = image::registry::client_jail(store_options(place, program), place.path() + "/downloads");
    description.arguments.emplace_back("writable=/downloads");
    return description;
}

// What a launcher gives to the server for one volume: through the gate, as a mount of its own.
int handed_over(Place& place, const std::string& name, const std::string& subpath, bool read_only) {
    const volume::Roots roots{place.path() + "/home/volumes/anonymous", place.path() + "/home/volumes/named"};
    auto sockets = os::make_socketpair(SOCK_SEQPACKET).value();
    volume::share::answer_order(sockets.second.get(), {});
    auto given = os::in_own_mount_namespace([&]() -> Result<> {
        wire::BoxMount mount;
        mount.set_read_only(read_only);
        volume::share::Order order;
        order.descriptors.push_back(CAISSON_TRY(volume::detached_mount(CAISSON_TRY(volume::pin(roots, volume::Kind::kNamed, name, subpath)), mount)));
        return volume::share::give_order(sockets.first.get(), order);
    });
    EXPECT_TRUE(given.has_value()) << given.error().to_string();
    auto order = volume::share::take_order(sockets.second.get());
    EXPECT_TRUE(order && *order && (*order)->descriptors.size() == 1);
    return place.keep(std::move((*order)->descriptors[0]));
}

jail::Description share(Place& place, const std::string& program) {
    for (const char* name : {"home/volumes", "home/volumes/anonymous", "home/volumes/named"}) place.directory(name);
    for (const char* name : {"kept", "own", "other"}) {
        const auto volume = "home/volumes/named/" + std::string(name);
        for (const auto& directory : {volume, volume + "/d"}) place.directory(directory);
        place.file(volume + "/f", "of a volume", 0600);
        place.file(volume + "/program", program, 0700);
        EXPECT_EQ(::symlink((place.path() + "/home").c_str(), (place.path() + "/" + volume + "/link").c_str()), 0);
    }
    auto description = volume::share_jail(place.file("caisson-share", program, 0755), jail::bubblewrap());
    auto sockets = os::make_socketpair(SOCK_SEQPACKET).value();
    auto port = os::make_socketpair(SOCK_STREAM).value();
    description.descriptors = {{place.keep(std::move(sockets.first)), volume::kShareOrdersFd},
                               {place.keep(std::move(port.first)), volume::kSharePortFd},
                               {place.keep(vmm::make_window().value()), volume::kShareWindowFd},
                               {handed_over(place, "kept", "", true), 5}, {handed_over(place, "own", "", false), 6},
                               {handed_over(place, "other", "f", false), 7}};
    for (auto* other : {&sockets.second, &port.second}) place.keep(std::move(*other));
    for (const char* word : {"listed=0,1,2,3,4,5,6,7,", "writable=/proc/self/fd/6", "kept=5", "own=6", "single=7"})
        description.arguments.emplace_back(word);
    return description;
}

jail::Description netd(Place& place, const std::string& program) {
    auto description = net::netd_jail(place.file("caisson-netd", program, 0755), jail::bubblewrap());
    auto orders = os::make_socketpair(SOCK_SEQPACKET).value();
    auto events = os::make_socketpair(SOCK_SEQPACKET).value();
    description.descriptors = {{place.keep(std::move(orders.first)), net::relay::kOrdersFd}, {place.keep(std::move(events.first)), net::relay::kEventsFd}};
    for (auto* other : {&orders.second, &events.second}) place.keep(std::move(*other));
    description.arguments.emplace_back("listed=0,1,2,3,");
    return description;
}

// Which of the two layers on top of a jail are there.
enum class Layers { kWhole, kNoLandlock, kNeither };

jail::Description with_layers(jail::Description description, Layers layers) {
    if (layers != Layers::kWhole) description.enter.clear();
    if (layers == Layers::kNeither) description.filter.reset();
    return description;
}

const std::string& wanted_under(const Expected& expected, Layers layers) {
    if (layers == Layers::kNeither) return expected.alone;
    const bool landlocked = layers == Layers::kWhole && !expected.landlocked.empty() && os::landlock_version() >= expected.landlock_version;
    return landlocked ? expected.landlocked : under_filter(expected);
}

// ---- the runs

// All that a jail says, until it has ended or its time is over.
std::string read_report(int fd) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    std::string text;
    for (;;) {
        auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
        pollfd readable{fd, POLLIN, 0};
        if (left <= 0 || ::poll(&readable, 1, static_cast<int>(left)) <= 0) return text;
        char buffer[4096];
        auto got = ::read(fd, buffer, sizeof buffer);
        if (got <= 0) return text;
        text.append(buffer, static_cast<std::size_t>(got));
    }
}

std::string signal_of(const os::ExitStatus& ended) {
    const int number = ended.signalled ? ended.code : ended.code - 128;  // bubblewrap says it as a shell does
    const char* name = number > 0 && number < NSIG ? ::sigabbrev_np(number) : nullptr;
    return name ? "SIG" + std::string(name) : "exit code " + std::to_string(ended.code);
}

class AttemptTable : public testing::Test {
  protected:
    // What the attempts come to under `description`, whose arguments are complete.
    static Results run(jail::Description description, const std::string& only = "") {
        if (!only.empty()) description.arguments.push_back("only=" + only);
        auto output = os::make_pipe().value();
        for (int target : {1, 2}) description.descriptors.push_back({output.second.get(), target});
        // What an embedding application may have left open, without close-on-exec.
        os::Fd leaked(::open("/dev/null", O_RDWR));
        EXPECT_EQ(::dup2(leaked.get(), 77), 77);
        auto started = jail::start(description);
        ::close(77);
        EXPECT_TRUE(started.has_value()) << started.error().to_string();
        if (!started) return {};
        started->init.learn();
        output.second.reset();
        auto text = read_report(output.first.get());
        auto ended = started->process.wait(std::chrono::seconds(5));
        Results results;
        for (const auto& line : base::split(text, '\n')) {
            auto space = line.find(' ');
            if (space != std::string::npos) results[line.substr(0, space)] = line.substr(space + 1);
        }
        if (!results.contains("end")) results["end"] = ended ? signal_of(*ended) : "TIMEOUT";
        // bubblewrap's own words are no result.
        EXPECT_EQ(text.find("bwrap: "), std::string::npos) << text;
        return results;
    }

    // In a jail where no process may be made each attempt is a jail of its own.
    static Results run_all(const jail::Description& description) {
        auto results = run(description);
        if (results["end"] == "reached" && results["host_file"] != "nochild") return results;
        results.clear();
        for (const auto& row : attempt_table()) {
            auto alone = run(description, row.id);
            results[row.id] = alone.contains(row.id) ? alone[row.id] : alone["end"];
        }
        results["end"] = "reached";
        return results;
    }

    static void compare(Kind kind, const Results& results, Layers layers) {
        constexpr const char* kWithout[] = {"", ", without Landlock", ", without Landlock and filter"};
        const auto where = std::string("in place of the ") + kKindNames[kind] + kWithout[static_cast<int>(layers)];
        const bool forbids = jail::can_forbid_user_namespaces(jail::find_bwrap().value());
        std::string measured, wrong;
        for (const auto& row : attempt_table()) {
            const auto& wanted = wanted_under(row.expected[kind], layers);
            if (wanted.empty() || (row.id == "ports" && !kHasPorts)) continue;
            auto found = results.find(row.id);
            const auto got = found == results.end() ? "(not tried)" : found->second;
            measured += "  " + row.id + ": " + got + "\n";
            // bubblewrap that is too old to forbid them; caisson doctor says so.
            if (!forbids && wanted == "ENOSPC") continue;
            if (!is_among(got, wanted)) wrong += "attempt " + row.id + " (" + row.attempt + "): " + got + " instead of " + wanted + "\n";
        }
        EXPECT_EQ(wrong, "") << where;
        std::printf("what came of the attempts %s:\n%s", where.c_str(), measured.c_str());
    }

    // Each layer does what the table says of it also where those on top are gone.
    static void expect_denials(Kind kind, jail::Description (*describe)(Place&, const std::string&)) {
        auto ready = jail::preflight();
        ASSERT_TRUE(ready.has_value()) << ready.error().to_string() << "; " << ready.error().hint;
        Place place;
        HostThings host(place);
        place.file("caisson-enter", os::read_file(CAISSON_ENTER, 64 << 20).value(), 0755);
        auto description = describe(place, os::read_file(CAISSON_ATTEMPTS, 64 << 20).value());
        // The server's files lie in mounts that come to it later, and that no rule of Landlock could name by then; the network's
        // process may open no file.
        const bool landlock = kind != kShare && kind != kNetd;
        ASSERT_TRUE(description.filter.has_value() && description.enter.empty() != landlock);
        for (const auto& argument : host.arguments()) description.arguments.push_back(argument);
        for (auto layers : {Layers::kWhole, Layers::kNoLandlock, Layers::kNeither})
            if (landlock || layers != Layers::kNoLandlock) compare(kind, run_all(with_layers(description, layers)), layers);
    }
};

TEST_F(AttemptTable, InPlaceOfTheVmm) { expect_denials(kVmm, vmm); }
TEST_F(AttemptTable, InPlaceOfTheUnpacker) { expect_denials(kUnpacker, unpacker); }
TEST_F(AttemptTable, InPlaceOfTheRegistryClient) { expect_denials(kFetch, fetch); }
TEST_F(AttemptTable, InPlaceOfTheVolumeServer) { expect_denials(kShare, share); }
TEST_F(AttemptTable, InPlaceOfTheNetwork) { expect_denials(kNetd, netd); }

// What may come of an attempt as "ok" under a whole description is listed here, and no more.
TEST(AttemptTableText, NothingElseSucceeds) {
    const std::vector<std::string> meant{"loopback registry client", "loopback network", "outside registry client", "outside network",  // their work
                                         // It has volumes to write to, for a guest that may; see docs/security.md.
                                         "volume_access_list volume server",
                                         // Bounded by control groups, or by the host's own limits.
                                         "much_address_space registry client", "large_file volume server", "many_processes VMM",
                                         "many_processes unpacker", "many_processes registry client"};
    std::vector<std::string> succeed;
    for (const auto& row : attempt_table())
        for (int kind = 0; kind < kKinds; ++kind) {
            const auto& expected = row.expected[static_cast<std::size_t>(kind)];
            if (is_among("ok", expected.landlocked.empty() ? under_filter(expected) : expected.landlocked))
                succeed.push_back(row.id + " " + kKindNames[kind]);
        }
    EXPECT_EQ(succeed, meant);
}

TEST(AttemptTableText, IsInTheDocs) {
    auto page = os::read_file(CAISSON_SOURCE "/docs/security.md").value();
    EXPECT_NE(page.find(in_markdown(attempt_table())), std::string::npos)
        << "docs/security.md does not have the table that follows (attack_table --print):\n"
        << in_markdown(attempt_table());
}

}  // namespace

void print_table() { std::printf("%s", in_markdown(attempt_table()).c_str()); }

}  // namespace caisson::attack

int main(int count, char** arguments) {
    if (count == 2 && std::string(arguments[1]) == "--print") {
        caisson::attack::print_table();
        return 0;
    }
    testing::InitGoogleTest(&count, arguments);
    return RUN_ALL_TESTS();
}
