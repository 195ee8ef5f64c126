// Runs a command in a box, listens to the home's journal meanwhile, and then asks the journal about the box.
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <string>

#include "caisson/runtime.h"

namespace {
int fail(const caisson::Error& error) {
    std::fprintf(stderr, "%s\n%s\n", error.to_string().c_str(), error.hint.c_str());
    return 125;
}

// Events arrive in a thread of the Runtime's.
class Listener {
  public:
    void hear(const caisson::AuditEvent& event) {
        std::scoped_lock guard(mutex_);
        if (event.box_name != "example-journal") return;
        heard_ += event.kind + " ";
        removed_ = removed_ || event.kind == "box_removed";
        woken_.notify_all();
    }
    std::string until_removed() {
        std::unique_lock lock(mutex_);
        woken_.wait_for(lock, std::chrono::seconds(20), [this] { return removed_; });
        return heard_;
    }

  private:
    std::mutex mutex_;
    std::condition_variable woken_;
    std::string heard_;
    bool removed_ = false;
};
}  // namespace

int main() {
    Listener listener;  // outlives the Runtime, and so its thread
    auto options = caisson::leave_root({});
    if (!options) return fail(options.error());
    options->on_event = [&listener](const caisson::AuditEvent& event) { listener.hear(event); };
    options->audit_events = 2;
    auto runtime = caisson::Runtime::open(*options);
    if (!runtime) return fail(runtime.error());

    auto box = runtime->run({.image = "caisson/base", .command = {"true"}, .name = "example-journal", .network = "none"});
    if (!box) return fail(box.error());
    auto outcome = box->main().wait({});
    if (!outcome) return fail(outcome.error());
    std::printf("heard: %s\n", listener.until_removed().c_str());

    auto newest = box->audit_log();
    if (!newest) return fail(newest.error());
    std::printf("newest:");
    for (const auto& event : *newest) std::printf(" %s", event.kind.c_str());
    auto head = runtime->audit_head(box->id());
    if (!head) return fail(head.error());
    auto verified = runtime->verify_audit(box->id(), *head);
    if (!verified) return fail(verified.error());
    std::printf("\nchains: %d, findings: %d\n", int(verified->chains), int(verified->findings.size()));
    return verified->findings.empty() ? 0 : 1;
}
