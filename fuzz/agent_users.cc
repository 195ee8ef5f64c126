// An image's passwd and group files, and the user that somebody asks for: three parts separated by zero bytes.
#include <cstdlib>

#include "agent/users.h"
#include "base/bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view text = caisson::base::as_text({data, size});
    std::string_view parts[3];
    for (auto& part : parts) {
        auto end = text.find('\0');
        part = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    }
    auto user = caisson::agent::resolve_user(parts[0], parts[1], parts[2]);
    if (user && (user->home.empty() || user->home[0] != '/' || user->groups.size() > caisson::agent::kMaxGroups))
        std::abort();
    return 0;
}
