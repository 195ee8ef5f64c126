// What one event costs the caller, for bench/journal: prints one line of nanoseconds for each event that was recorded.
//
// journal_bench HOME EVENTS [PAUSE_US]: records EVENTS events of one box, PAUSE_US microseconds apart, in a database and
// journal below HOME, as the library does it: another thread brings them to the disk meanwhile. Several may run at once.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "audit/journal.h"
#include "os/file.h"
#include "os/host.h"
#include "os/random.h"

using namespace caisson;

namespace {

Result<> measure(const std::string& home, long events, std::chrono::microseconds pause) {
    CAISSON_TRY(os::make_directories(home));
    auto database = CAISSON_TRY(store::Database::open(home + "/caisson.db"));
    store::BoxRecord box;
    box.id = CAISSON_TRY(os::new_ulid());
    box.name = "bench-" + box.id;
    CAISSON_TRY(database.insert_box(box));
    audit::Journal journal(home + "/audit");
    std::mutex mutex;
    std::atomic<bool> done = false;
    std::thread syncing([&] {
        while (!done) {
            std::this_thread::sleep_for(audit::limits::kBatchDelay);
            std::unique_lock lock(mutex);
            const auto batch = journal.take();
            lock.unlock();
            auto synced = audit::Journal::sync(journal.root(), batch);
            lock.lock();
            if (!synced || !journal.acknowledge(database, batch)) std::abort();
        }
    });
    const audit::Event event{"execution_completed", box.id, box.name,
                             {{"execution", std::string("main")}, {"arguments", std::vector<std::string>{"python3", "-c", "print(6*7)"}}, {"exit_code", std::int64_t{0}}}};
    const auto actor = audit::this_actor();
    std::vector<long long> taken;
    for (long i = 0; i < events; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        {
            std::scoped_lock lock(mutex);
            CAISSON_TRY(journal.record(database, box.id, event, actor, os::unix_ms()));
        }
        taken.push_back(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin).count());
        std::this_thread::sleep_for(pause);
    }
    done = true;
    syncing.join();
    for (auto nanoseconds : taken) std::printf("%lld\n", nanoseconds);
    return {};
}

}  // namespace

int main(int count, char** words) {
    if (count < 3) {
        std::fprintf(stderr, "journal_bench HOME EVENTS [PAUSE_US]\n");
        return 2;
    }
    auto measured = measure(words[1], std::atol(words[2]), std::chrono::microseconds(count > 3 ? std::atol(words[3]) : 0));
    if (measured) return 0;
    std::fprintf(stderr, "journal_bench: %s\n", measured.error().to_string().c_str());
    return 1;
}
