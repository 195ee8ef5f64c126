// Runs a fuzz target over its seed corpus where libFuzzer is not linked: replay [-runs=0] FILE|DIRECTORY...
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

#include "os/file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
    int ran = 0;
    auto run = [&](const std::string& path) {
        auto data = caisson::os::read_file(path, 64 << 20);
        if (!data) {
            std::fprintf(stderr, "%s\n", data.error().to_string().c_str());
            return false;
        }
        LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(data->data()), data->size());
        ++ran;
        return true;
    };
    for (int i = 1; i < argc; ++i) {
        std::string argument = argv[i];
        if (argument.starts_with("-")) continue;
        auto names = caisson::os::list_directory(argument);
        if (!names) {
            if (!run(argument)) return 1;
            continue;
        }
        for (const auto& name : *names)
            if (!run(argument + "/" + name)) return 1;
    }
    std::printf("%d inputs\n", ran);
    return ran > 0 ? 0 : 1;  // an empty corpus tests nothing and must not pass
}
