// The WWW-Authenticate header, docker's base64 and registries.json: what a registry or a user may write.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "image/registry/base64.h"
#include "image/registry/challenge.h"
#include "image/registry/settings.h"

using namespace caisson::image::registry;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view text(reinterpret_cast<const char*>(data), size);
    if (auto challenges = parse_challenges(text))
        for (const auto& challenge : *challenges) {
            if (challenge.scheme.empty()) std::abort();
            for (const auto& [name, value] : challenge.parameters)
                if (name.empty() || value.find_first_of("\r\n") != std::string::npos) std::abort();
        }
    if (base64_decode(base64_encode(text)) != std::string(text)) std::abort();
    static_cast<void>(base64_decode(text));
    static_cast<void>(parse_settings(text));
    return 0;
}
