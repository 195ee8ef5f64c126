// Everything that a guest can send to its shim: rubbish, a preamble, frames, control messages, credit.
#include <algorithm>
#include <cstdlib>

#include "wire/control.h"
#include "wire/frame.h"

using namespace caisson;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    std::size_t step = static_cast<std::size_t>(data[0]) * 16 + 1;
    base::ByteView bytes(data + 1, size - 1);
    // The marker of the seed corpus.
    wire::Marker marker;
    for (std::size_t i = 0; i < marker.size(); ++i) marker[i] = static_cast<std::uint8_t>(i);
    auto seeker = wire::PreambleSeeker::expecting(marker);
    bool found = false;
    wire::Decoder decoder;
    wire::SendWindow to_guest;
    wire::ReceiveWindow from_guest;
    while (!bytes.empty()) {
        auto piece = bytes.first(std::min(bytes.size(), step));
        bytes = bytes.subspan(piece.size());
        if (!found) {
            auto rest = seeker.feed(piece);
            if (!rest) return 0;
            if (!*rest) continue;
            found = true;
            piece = **rest;
        }
        decoder.feed(piece);
        for (;;) {
            auto frame = decoder.next();
            if (!frame) return 0;
            if (!*frame) break;
            switch ((*frame)->type) {
                case wire::FrameType::kControl: {
                    auto message = wire::parse_from_agent((*frame)->payload);
                    if (!message) return 0;
                    base::Bytes again;
                    if (!wire::append_control(again, *message)) std::abort();
                    break;
                }
                case wire::FrameType::kData:
                    if (!from_guest.receive((*frame)->payload.size())) return 0;
                    from_guest.consume((*frame)->payload.size() / 2);
                    break;
                case wire::FrameType::kCredit:
                    if (!to_guest.add(wire::credit_of(**frame))) return 0;
                    if (to_guest.available() > wire::kMaxCredit) std::abort();
                    break;
                case wire::FrameType::kEof: break;
            }
        }
    }
    return 0;
}
