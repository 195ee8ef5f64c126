// Talking with a helper program (caisson-unpack, caisson-fetch) by the protocol of image/protocol.h. What it says is
// treated as hostile. Internal to src/image.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "jail/jail.h"
#include "os/fd.h"
#include "os/process.h"

namespace caisson::image {

// Made before the helper is started; `descriptors` is what it is to start with.
struct HelperChannels {
    static Result<HelperChannels> create(bool with_data);
    std::vector<os::Command::Descriptor> descriptors() const;
    os::FdPair request, status, data;
};

struct HelperTalk {
    std::string who;   // "the unpacker"
    std::string what;  // context of its errors
    std::vector<std::string_view> request;  // written one after the other
    // Kinds that its errors may be of, besides what reading an image can end with; everything else is an I/O error.
    std::vector<Errc> further_errors;
    std::function<Result<>(base::ByteView)> data;
    std::function<void(const nlohmann::json&)> progress;
};

// The "result" object. Errors are those that the helper reports, with `what` as context; kIo if it dies.
// At the end nothing of the helper's jail is left.
Result<nlohmann::json> converse(HelperChannels channels, jail::Jailed helper, const HelperTalk& talk);

// Fields of what a helper said; empty and 0 if they are missing or of another kind. Texts are fit for a terminal.
std::string text_field(const nlohmann::json& object, const char* key);
std::uint64_t number_field(const nlohmann::json& object, const char* key);

}  // namespace caisson::image
