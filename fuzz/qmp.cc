// What a taken-over VMM may say on its control socket.
#include <cstddef>
#include <cstdint>

#include "vmm/qmp.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    caisson::vmm::QmpParser parser;
    // In two pieces, so that messages are also cut in the middle.
    for (auto piece : {caisson::base::ByteView(data, size / 2), caisson::base::ByteView(data + size / 2, size - size / 2)}) {
        if (!parser.feed(piece)) return 0;
        for (;;) {
            auto message = parser.next();
            if (!message || !*message) break;
        }
    }
    return 0;
}
