// The first bytes of a guest's packet, as the kernel's queue hands them over: what is taken for the beginning of a
// connection has whole ends of one family. The first byte says whether the rest is a packet or messages of the queue.
#include <cstdint>
#include <cstdlib>

#include "net/space/packet.h"
#include "net/space/queue.h"

using namespace caisson;

namespace {

void look_at(base::ByteView packet) {
    const auto beginning = net::parse_beginning(packet);
    if (!beginning) return;
    const bool fine = beginning->guest.port != 0 && beginning->outside.port != 0 && packet.size() >= 40 &&
                      beginning->guest.address.is_v4() == beginning->outside.address.is_v4() &&
                      beginning->guest.address.is_v4() == (packet[0] >> 4 == 4);
    if (!fine) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const base::ByteView rest(data + 1, size - 1);
    if (data[0] % 2 == 0) {
        look_at(rest);
        return 0;
    }
    for (const auto& queued : net::parse_queue(rest)) look_at(queued.bytes);
    return 0;
}
