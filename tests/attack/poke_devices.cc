// Speaks for a guest whose kernel is hostile: in place of Linux, on the bare machine, it pokes the registers and queues of
// its virtio devices at random, until the machine is taken away. test_poked_devices.py says what must come of it.
//
// QEMU starts it as it starts Linux (PVH: 32 bits, no paging), so it needs no driver, no library and no memory but its
// own. All that it does follows from `seed`, which the test writes into the file. An odd seed spares nothing; an even one
// never writes to the agent's port, for the supervisor ends a guest that sends it nonsense, and that would be all. With
// seed 0 it does one thing only: it asks the random source for a gigabyte.
//
// Source: Virtual I/O Device (VIRTIO) Version 1.2, 2.7 (queues), 4.2.2 (registers), 5.2.6 (block), 5.3.6 (console).
#include <stdint.h>

extern "C" {
struct {
    char mark[8];
    uint64_t seed;
} poke_seed __attribute__((section(".data"), used)) = {{'P', 'O', 'K', 'E', 'S', 'E', 'E', 'D'}, 1};
}

namespace {

// Where microvm has its devices.
constexpr uint32_t kFirstDevice = 0xfeb00000, kDeviceBytes = 512;
constexpr int kSlots = 24;
constexpr uint32_t kMagic = 0x74726976;
constexpr uint32_t kSerial = 3, kBlock = 2, kRandom = 4;
// What devices are told to read and write: far above this program.
constexpr uint32_t kArena = 64u << 20, kArenaBytes = 16u << 20;
constexpr uint32_t kAgentOutput = 5;  // the queue of the agent's port

enum Register : uint32_t {
    kDeviceId = 0x008, kDeviceFeaturesSelect = 0x014, kDriverFeatures = 0x020, kDriverFeaturesSelect = 0x024, kQueueSelect = 0x030,
    kQueueSize = 0x038, kQueueReady = 0x044, kNotify = 0x050, kInterruptAck = 0x064, kStatus = 0x070, kDescriptors = 0x080,
    kAvailable = 0x090, kUsed = 0x0a0, kConfig = 0x100
};

struct Device {
    uint32_t base, id;
};
Device devices[kSlots];
uint32_t device_count = 0;
uint64_t state;

uint32_t random32() {  // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return static_cast<uint32_t>((state * 0x2545f4914f6cdd1dULL) >> 32);
}
bool one_in(uint32_t n) { return random32() % n == 0; }

template <typename T>
void store(uint32_t at, T value) { *reinterpret_cast<volatile T*>(at) = value; }
template <typename T>
T load(uint32_t at) { return *reinterpret_cast<volatile T*>(at); }

void out8(uint16_t port, uint8_t value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
void out32(uint16_t port, uint32_t value) { asm volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
uint8_t in8(uint16_t port) {
    uint8_t value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

void say(char c) {
    while (!(in8(0x3f8 + 5) & 0x20)) {
    }
    out8(0x3f8, static_cast<uint8_t>(c));
}
void say(const char* text) {
    while (*text != 0) say(*text++);
}
void say(uint32_t number) {
    char digits[11];
    int at = 10;
    digits[10] = 0;
    do digits[--at] = static_cast<char>('0' + number % 10);
    while (number /= 10);
    say(digits + at);
}

// Numbers that code trips over, more often than others.
uint32_t strange() {
    switch (random32() % 10) {
        case 0: return 0;
        case 1: return random32() % 16;
        case 2: return 0xffffffff;
        case 3: return 1u << random32() % 32;
        case 4: return (1u << random32() % 32) - 1;
        case 5: return 0x80000000u - random32() % 16;
        case 6: return kArena + random32() % kArenaBytes;
        case 7: return random32() % 1024;
        default: return random32();
    }
}

// Of memory: mostly such that a device gets far with it, else beyond the end, other devices' registers, anything that is
// not this program.
uint64_t address() {
    switch (random32() % 24) {
        case 0: return kFirstDevice + random32() % (kSlots * kDeviceBytes);
        case 1: return kArena + kArenaBytes - random32() % 64;
        case 2: return (static_cast<uint64_t>(random32()) << 32 | random32()) | 0x2000000;
        case 3: return random32() | 0x2000000;
        case 4: return ~uint64_t{0} - random32() % 4096;
        default: return kArena + random32() % kArenaBytes;
    }
}

bool spared(const Device& device, uint32_t queue) {
    return poke_seed.seed % 2 == 0 && device.id == kSerial && queue == kAgentOutput;
}

void write_register(const Device& device, uint32_t offset, uint32_t value) {
    if (offset == kNotify && spared(device, value)) return;
    store<uint32_t>(device.base + offset, value);
}

void put_address(const Device& device, uint32_t offset, uint64_t value) {
    write_register(device, offset, static_cast<uint32_t>(value));
    write_register(device, offset + 4, static_cast<uint32_t>(value >> 32));
}

// As a driver begins, with whatever features.
void begin(const Device& device) {
    write_register(device, kStatus, 0);
    write_register(device, kStatus, 1);
    write_register(device, kStatus, 3);
    for (uint32_t half = 0; half < 2; ++half) {
        write_register(device, kDeviceFeaturesSelect, half);
        uint32_t features = load<uint32_t>(device.base + 0x010);
        write_register(device, kDriverFeaturesSelect, half);
        if (poke_seed.seed != 0 && one_in(3)) features &= random32() | (half == 1 ? 1 : 0);
        write_register(device, kDriverFeatures, features);
    }
    write_register(device, kStatus, 11);
    write_register(device, kStatus, 15);
}

// What a device finds in the first buffer of a chain.
void put_request(const Device& device, uint32_t at) {
    if (device.id == kBlock) {
        constexpr uint32_t kTypes[] = {0, 0, 0, 1, 1, 4, 8, 11, 13, 14};
        store<uint32_t>(at, one_in(10) ? strange() : kTypes[random32() % 10]);
        store<uint32_t>(at + 4, 0);
        store<uint32_t>(at + 8, one_in(4) ? strange() : random32() % 4096);
        store<uint32_t>(at + 12, one_in(8) ? strange() : 0);
    } else {
        store<uint32_t>(at, one_in(4) ? strange() : random32() % 4);         // port
        store<uint32_t>(at + 4, one_in(4) ? strange() : random32() % 8 | random32() % 2 << 16);  // event, value
    }
}

void put_descriptor(uint32_t table, uint32_t index, uint32_t size) {
    const uint32_t at = table + index * 16;
    const uint64_t where = address();
    store<uint32_t>(at, static_cast<uint32_t>(where));
    store<uint32_t>(at + 4, static_cast<uint32_t>(where >> 32));
    store<uint32_t>(at + 8, one_in(6) ? strange() : random32() % 8192);
    uint32_t flags = one_in(8) ? random32() : random32() % 4 | (one_in(8) ? 4 : 0);
    uint32_t next = one_in(8) ? random32() : (index + 1) % size;
    store<uint32_t>(at + 12, (flags & 0xffff) | next << 16);
}

// A chain as a driver would make it, up to its buffers' sizes: what is to be read, data in either direction, an answer.
void put_proper_chain(const Device& device, uint32_t table, uint32_t available) {
    put_request(device, kArena);
    const uint32_t sizes[] = {16, one_in(4) ? strange() : 512 * (random32() % 65), 1};
    const uint32_t data_flags = device.id == kBlock ? random32() % 2 * 2 : 0;
    const uint32_t flags[] = {1, data_flags | 1, 2};
    for (uint32_t i = 0; i < 3; ++i) {
        store<uint32_t>(table + i * 16, i == 0 ? kArena : kArena + 0x800000 + random32() % 0x400000);
        store<uint32_t>(table + i * 16 + 4, 0);
        store<uint32_t>(table + i * 16 + 8, sizes[i]);
        store<uint32_t>(table + i * 16 + 12, flags[i] | (i + 1) << 16);
    }
    store<uint16_t>(available + 4, 0);
    store<uint16_t>(available + 2, 1);
}

void use_queue(const Device& device, uint32_t queue) {
    if (one_in(2)) begin(device);  // after its first error a device does nothing until it is reset
    write_register(device, kQueueSelect, queue);
    const uint32_t size = one_in(16) ? strange() : 1u << random32() % 9;
    const uint32_t table = kArena + (random32() % 64 << 16), available = table + 0x4000, used = table + 0x8000;
    write_register(device, kQueueSize, size);
    put_address(device, kDescriptors, one_in(16) ? address() : table);
    put_address(device, kAvailable, one_in(16) ? address() : available);
    put_address(device, kUsed, one_in(16) ? address() : used);
    write_register(device, kQueueReady, 1);
    const uint32_t entries = size == 0 || size > 256 ? 256 : size;
    for (uint32_t i = 0; i < entries; ++i) put_descriptor(table, i, entries);
    put_request(device, kArena);
    store<uint32_t>(table, kArena);
    store<uint32_t>(table + 4, 0);
    store<uint32_t>(table + 8, one_in(8) ? strange() : 16);
    for (uint32_t i = 0; i < entries; ++i) store<uint16_t>(available + 4 + i * 2, static_cast<uint16_t>(one_in(4) ? random32() : i));
    store<uint16_t>(available, static_cast<uint16_t>(random32() % 2));
    store<uint16_t>(available + 2, static_cast<uint16_t>(one_in(8) ? random32() : 1 + random32() % entries));
    if (one_in(2)) put_proper_chain(device, table, available);
    write_register(device, kNotify, queue);
}

void poke_elsewhere() {
    switch (random32() % 4) {
        case 0: store<uint32_t>(0xfec00000 + random32() % 8 * 16, strange()); break;  // I/O APIC
        case 1: out8(static_cast<uint16_t>(0x40 + random32() % 4), static_cast<uint8_t>(random32())); break;  // timer
        case 2: out8(static_cast<uint16_t>(0x70 + random32() % 2), static_cast<uint8_t>(random32())); break;  // clock
        default:  // QEMU's configuration device: a transfer described in memory
            store<uint32_t>(kArena + 256, random32());
            store<uint32_t>(kArena + 260, random32() % 65536 << 16);  // big-endian: long ones would be all that it does
            store<uint32_t>(kArena + 264, 0);
            store<uint32_t>(kArena + 268, __builtin_bswap32(static_cast<uint32_t>(kArena + random32() % kArenaBytes)));
            out32(0x514, 0);
            out32(0x518, __builtin_bswap32(kArena + 256));
    }
}

void poke() {
    const Device& device = devices[random32() % device_count];
    switch (random32() % 16) {
        case 0: begin(device); break;
        case 1:
        case 2:
        case 3:
        case 4: use_queue(device, one_in(8) ? strange() : random32() % 8); break;
        case 5: store<uint32_t>(kArena + (random32() % kArenaBytes & ~3u), strange()); break;
        case 6: write_register(device, kNotify, one_in(4) ? strange() : random32() % 8); break;
        case 7: poke_elsewhere(); break;
        case 8: store<uint8_t>(device.base + kConfig + random32() % 256, static_cast<uint8_t>(random32())); break;
        case 9: store<uint16_t>(device.base + kConfig + random32() % 255, static_cast<uint16_t>(random32())); break;
        case 10: write_register(device, kInterruptAck, random32()); break;
        case 11:  // slots without a device, too
            static_cast<void>(load<uint32_t>(kFirstDevice + (random32() % (kSlots * kDeviceBytes - 4))));
            break;
        default: write_register(device, random32() % 128 * 4, strange());
    }
}

void ask_for_randomness(const Device& device) {
    begin(device);
    write_register(device, kQueueSelect, 0);
    write_register(device, kQueueSize, 8);
    put_address(device, kDescriptors, kArena);
    put_address(device, kAvailable, kArena + 0x4000);
    put_address(device, kUsed, kArena + 0x8000);
    write_register(device, kQueueReady, 1);
    store<uint32_t>(kArena, kArena + 0x10000);
    store<uint32_t>(kArena + 4, 0);
    store<uint32_t>(kArena + 8, 1u << 30);
    store<uint32_t>(kArena + 12, 2);  // the device writes
    store<uint16_t>(kArena + 0x4000, 0);
    store<uint16_t>(kArena + 0x4004, 0);
    store<uint16_t>(kArena + 0x4002, 1);
    write_register(device, kNotify, 0);
}

}  // namespace

extern "C" [[noreturn]] void poke_main() {
    state = poke_seed.seed * 0x9e3779b97f4a7c15ULL + 1;
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
        const uint32_t base = kFirstDevice + slot * kDeviceBytes;
        const uint32_t id = load<uint32_t>(base + kDeviceId);
        if (load<uint32_t>(base) == kMagic && id != 0) devices[device_count++] = {base, id};
    }
    say("poking ");
    say(device_count);
    say(" devices\r\n");
    for (const auto& device : devices) {
        if (device.id != 0) begin(device);
        if (device.id == kRandom && poke_seed.seed == 0) ask_for_randomness(device);
    }
    while (poke_seed.seed == 0) say("asked for a gigabyte\r\n");
    for (uint32_t count = 1; device_count > 0; ++count) {
        poke();
        if (count % 1024 != 0) continue;
        say("pokes ");
        say(count);
        say("\r\n");
    }
    for (;;) asm volatile("hlt");
}

// The note tells QEMU where to begin (XEN_ELFNOTE_PHYS32_ENTRY).
asm(R"(
.section .note.pvh, "a", @note
.align 4
.long 4, 4, 18
.asciz "Xen"
.long poke_start
.section .bss
.align 16
.skip 65536
poke_stack:
.text
.globl poke_start
poke_start:
    cli
    movl $poke_stack, %esp
    call poke_main
)");
