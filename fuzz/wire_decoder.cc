// The frame decoder, fed in pieces whose sizes come from the input itself: the same frames as in one piece, no matter
// how the bytes are cut.
#include <cstdlib>
#include <vector>

#include "wire/frame.h"

namespace {

using namespace caisson;

// A digest of what came out, so that two runs can be compared.
struct Seen {
    std::size_t frames = 0;
    std::size_t bytes = 0;
    std::uint64_t digest = 0;
    bool broken = false;
    bool operator==(const Seen&) const = default;
};

void drain(wire::Decoder& decoder, Seen& seen) {
    while (!seen.broken) {
        auto next = decoder.next();
        if (!next) {
            seen.broken = true;
            if (decoder.next()) std::abort();  // sticky
            return;
        }
        if (!*next) return;
        const auto& frame = **next;
        ++seen.frames;
        seen.bytes += frame.payload.size();
        seen.digest = seen.digest * 31 + frame.stream * 7 + static_cast<std::uint64_t>(frame.type);
        if (!frame.payload.empty()) seen.digest = seen.digest * 31 + frame.payload.front() + frame.payload.back();
    }
}

Seen decode(base::ByteView bytes, std::size_t step) {
    wire::Decoder decoder;
    Seen seen;
    while (!bytes.empty() && !seen.broken) {
        auto piece = bytes.first(std::min(bytes.size(), step));
        bytes = bytes.subspan(piece.size());
        decoder.feed(piece);
        drain(decoder, seen);
    }
    return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    std::size_t step = data[0] % 61 + 1;
    base::ByteView bytes(data + 1, size - 1);
    if (!(decode(bytes, step) == decode(bytes, wire::kMaxFeedBytes))) std::abort();
    return 0;
}
