// What a taken-over VMM says to the server of its box's volumes; see hostile_vmm.cc.
#pragma once

#include <functional>
#include <string>

namespace caisson::attack {

// Speaks FUSE, as a guest's kernel does, over `port` and tells by `say` what comes of each attempt, a line "NAME ERRNO" or
// "NAME ok" each. What it goes for is the volume m1, which the box has read-only, and whatever else there may be.
void attack_read_only_volume(int port, const std::function<void(const std::string&)>& say);
// The same of m1 that the box may write to: what becomes of owners, modes and kinds.
void change_writable_volume(int port, const std::function<void(const std::string&)>& say);
// Has a file of m1 open, and reads it until that is refused; tells how it is.
void read_until_refused(int port, const std::function<void(const std::string&)>& say);
// Bytes that are no messages.
void send_garbage(int port);
// Asks for as much as it can, for ever, and takes no answer.
[[noreturn]] void ask_and_never_read(int port);
// Opens what needs no file of the host's, for ever: the list of its volumes.
[[noreturn]] void open_for_ever(int port);

}  // namespace caisson::attack
