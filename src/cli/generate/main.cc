// caisson-generate DIRECTORY VERSION DATE: writes DIRECTORY/man, bash, zsh and fish.
#include <sys/stat.h>

#include <cstdio>

#include "cli/generate/table.h"

namespace {

bool write(const std::string& directory, const std::string& name, const std::string& content) {
    ::mkdir(directory.c_str(), 0755);
    const auto path = directory + "/" + name;
    std::FILE* file = std::fopen(path.c_str(), "we");
    bool good = file != nullptr && std::fwrite(content.data(), 1, content.size(), file) == content.size();
    if (file != nullptr && std::fclose(file) != 0) good = false;
    if (!good) std::fprintf(stderr, "caisson-generate: cannot write %s\n", path.c_str());
    return good;
}

}  // namespace

int main(int argc, char** argv) {
    using namespace caisson::cli::generate;
    if (argc != 4) {
        std::fprintf(stderr, "usage: caisson-generate DIRECTORY VERSION DATE\n");
        return 2;
    }
    const std::string directory = argv[1];
    const auto table = read_table();
    ::mkdir(directory.c_str(), 0755);
    bool good = write(directory + "/bash", "caisson", bash_completion(table)) &&
                write(directory + "/zsh", "_caisson", zsh_completion(table)) &&
                write(directory + "/fish", "caisson.fish", fish_completion(table));
    for (const auto& [name, page] : manual(table, argv[2], argv[3]))
        good = write(directory + "/man", name, page) && good;
    return good ? 0 : 1;
}
