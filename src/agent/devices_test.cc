#include "agent/devices.h"

#include <gtest/gtest.h>

#include <cstring>

namespace caisson::agent {
namespace {

// Just enough of the kernel's interpreter to run what device_program() builds.
bool allowed(const std::vector<bpf_insn>& program, int access, int type, unsigned major, unsigned minor) {
    const bpf_cgroup_dev_ctx context{static_cast<__u32>(access << 16 | type), major, minor};
    std::uint64_t registers[11] = {};
    for (std::size_t at = 0; at < program.size(); ++at) {
        const auto& insn = program[at];
        auto& to = registers[insn.dst_reg];
        auto immediate = static_cast<std::uint32_t>(insn.imm);
        switch (insn.code) {
            case BPF_LDX | BPF_MEM | BPF_W: {
                __u32 value = 0;
                EXPECT_LE(static_cast<std::size_t>(insn.off) + 4, sizeof context);
                std::memcpy(&value, reinterpret_cast<const char*>(&context) + insn.off, 4);
                to = value;
                break;
            }
            case BPF_ALU | BPF_MOV | BPF_X: to = static_cast<std::uint32_t>(registers[insn.src_reg]); break;
            case BPF_ALU | BPF_AND | BPF_K: to = static_cast<std::uint32_t>(to) & immediate; break;
            case BPF_ALU | BPF_RSH | BPF_K: to = static_cast<std::uint32_t>(to) >> immediate; break;
            case BPF_ALU64 | BPF_MOV | BPF_K: to = immediate; break;
            case BPF_JMP | BPF_JNE | BPF_K:
                if (to != immediate) at += static_cast<std::size_t>(insn.off);
                break;
            case BPF_JMP | BPF_EXIT: return registers[0] == 1;
            default: ADD_FAILURE() << "unexpected instruction " << static_cast<int>(insn.code); return false;
        }
    }
    ADD_FAILURE() << "ran off the end";
    return false;
}

constexpr int kMknod = BPF_DEVCG_ACC_MKNOD;
constexpr int kRead = BPF_DEVCG_ACC_READ;
constexpr int kReadWrite = BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE;
constexpr int kBlock = BPF_DEVCG_DEV_BLOCK;
constexpr int kChar = BPF_DEVCG_DEV_CHAR;

TEST(Devices, OnlyTheHarmlessOnesOpen) {
    auto program = device_program(default_device_rules());
    for (unsigned major = 0; major < 300; ++major)
        for (unsigned minor = 0; minor < 20; ++minor) {
            bool harmless = (major == 1 && (minor == 3 || minor == 5 || (minor >= 7 && minor <= 9))) ||
                            (major == 5 && (minor == 0 || minor == 2)) || major == 136;
            EXPECT_EQ(allowed(program, kRead, kChar, major, minor), harmless) << major << ":" << minor;
            EXPECT_EQ(allowed(program, kReadWrite, kChar, major, minor), harmless) << major << ":" << minor;
            EXPECT_FALSE(allowed(program, kRead, kBlock, major, minor)) << major << ":" << minor;
            EXPECT_FALSE(allowed(program, kReadWrite | kMknod, kBlock, major, minor)) << major << ":" << minor;
        }
}

TEST(Devices, NodesMayBeMade) {
    auto program = device_program(default_device_rules());
    EXPECT_TRUE(allowed(program, kMknod, kBlock, 254, 0));
    EXPECT_TRUE(allowed(program, kMknod, kChar, 240, 1));
    EXPECT_FALSE(allowed(program, kMknod | kRead, kChar, 240, 1));
    EXPECT_TRUE(allowed(program, kMknod | kReadWrite, kChar, 1, 3));
}

TEST(Devices, AnEmptyListAllowsNothing) {
    auto program = device_program({});
    EXPECT_FALSE(allowed(program, kMknod, kChar, 1, 3));
    EXPECT_FALSE(allowed(program, kRead, kChar, 1, 3));
}

TEST(Devices, ARuleAppliesOnlyIfItCoversEverythingThatIsAsked) {
    auto program = device_program({{.block = true, .major = 7, .make_node = true},
                                   {.block = true, .major = 7, .minor = 1, .read_write = true}});
    EXPECT_TRUE(allowed(program, kMknod, kBlock, 7, 1));
    EXPECT_TRUE(allowed(program, kRead, kBlock, 7, 1));
    EXPECT_FALSE(allowed(program, kRead | kMknod, kBlock, 7, 1));
    EXPECT_FALSE(allowed(program, kRead, kBlock, 7, 2));
    EXPECT_FALSE(allowed(program, kMknod, kChar, 7, 1));
}

}  // namespace
}  // namespace caisson::agent
