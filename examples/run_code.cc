// Runs a Python snippet in a box and prints its output, its exit code and the time it took.
//   example_run_code 'print(6 * 7)'
#include <chrono>
#include <cstdio>

#include "caisson/runtime.h"

namespace {
int fail(const caisson::Error& error) {
    std::fprintf(stderr, "%s\n%s\n", error.to_string().c_str(), error.hint.c_str());
    return 125;
}
}  // namespace

int main(int argc, char** argv) {
    auto options = caisson::leave_root({});  // caisson never works as root; for ordinary users this does nothing
    if (!options) return fail(options.error());
    auto runtime = caisson::Runtime::open(*options);
    if (!runtime) return fail(runtime.error());

    auto started = std::chrono::steady_clock::now();
    auto box = runtime->run({.image = "caisson/base",
                             .command = {"python3", "-c", argc > 1 ? argv[1] : "print(6 * 7)"},
                             .network = "none",  // without this: the internet, and no private network
                             .timeout = std::chrono::seconds(30)});
    if (!box) return fail(box.error());
    std::string output;
    auto outcome = box->main().wait({.stderr_fd = 2, .on_stdout = [&](std::string_view bytes) { output += bytes; }});
    if (!outcome) return fail(outcome.error());
    auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - started);
    std::printf("output: %sexit code: %d, time: %d ms\n", output.c_str(), outcome->shell_code(), int(took.count()));
    return outcome->shell_code();
}
