#include <signal.h>

#include <algorithm>
#include <cctype>
#include <string>

#include "base/text.h"
#include "caisson/runtime.h"

namespace caisson {

Result<int> parse_signal(std::string_view text) {
    constexpr std::uint64_t kMost = 64;
    auto unknown = [&] {
        return base::failure(Errc::kUsage, "there is no signal '" + base::printable(text, 64) + "'",
                             "write a name such as TERM or a number from 1 to 64");
    };
    if (auto number = base::parse_u64(text)) {
        if (*number < 1 || *number > kMost) return unknown();
        return static_cast<int>(*number);
    }
    std::string name(text);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    if (base::starts_with(name, "SIG")) name.erase(0, 3);
    if (base::starts_with(name, "RTMIN")) {
        // The guest's, as it is counted there: the C library keeps the first two for itself.
        constexpr std::uint64_t kFirstRealTime = 34;
        std::uint64_t offset = 0;
        if (name.size() > 5) {
            auto parsed = name[5] == '+' ? base::parse_u64(std::string_view(name).substr(6)) : Result<std::uint64_t>(unknown());
            if (!parsed || *parsed > kMost - kFirstRealTime) return unknown();
            offset = *parsed;
        }
        return static_cast<int>(kFirstRealTime + offset);
    }
    for (int number = 1; number < 32; ++number) {
        const char* known = ::sigabbrev_np(number);
        if (known != nullptr && name == known) return number;
    }
    return unknown();
}

}  // namespace caisson
