#include "agent/copy.h"

#include "base/text.h"
#include "os/file.h"
#include "tar/extract.h"
#include "tar/names.h"
#include "tar/pack.h"

namespace caisson::agent {

namespace {

constexpr int kFailed = 1;
constexpr int kNotFound = 3;

Result<> copy_out(const wire::Copy& copy, const std::string& path, int output, const tar::Notice& notice) {
    // In a container nobody made links to deceive who is in it.
    auto origin = CAISSON_TRY(tar::open_origin(path, copy.follow_links() || tar::means_directory(path)));
    return tar::pack(origin, tar::write_to(output), notice);
}

Result<> copy_in(const wire::Copy& copy, const std::string& path, int input, const tar::Notice& notice) {
    auto destination = CAISSON_TRY(tar::open_destination(path, true));
    tar::ExtractOptions options;
    if (!copy.top().empty()) options.top = copy.top();
    options.keep_owner = copy.keep_owner();
    options.make_devices = true;
    // As for any command of the container's: /bin may be a link to /usr/bin. The root directory bounds it.
    options.follow_links = true;
    options.replaces_all = true;
    options.must_exist = copy.must_exist();
    return tar::extract(tar::read_from(input), destination, options, notice);
}

}  // namespace

int run_copy(const wire::Copy& copy, int input, int output, int errors) {
    tar::Notice say = [errors](const std::string& text) {
        static_cast<void>(os::write_all(errors, base::printable(text) + "\n"));
    };
    const std::string path = copy.path().empty() || copy.path()[0] != '/' ? "/" + copy.path() : copy.path();
    auto done = copy.direction() == wire::Copy::OUT ? copy_out(copy, path, output, say) : copy_in(copy, path, input, say);
    if (done) return 0;
    say(done.error().to_string());
    return done.error().code == Errc::kNotFound ? kNotFound : kFailed;
}

}  // namespace caisson::agent
