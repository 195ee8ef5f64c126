#include "agent/devices.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

namespace caisson::agent {

using base::failure_errno;

std::vector<DeviceRule> default_device_rules() {
    auto character = [](unsigned major, std::optional<unsigned> minor) {
        return DeviceRule{.block = false, .major = major, .minor = minor, .read_write = true, .make_node = true};
    };
    return {
        character(1, 3),             // null
        character(1, 5),             // zero
        character(1, 7),             // full
        character(1, 8),             // random
        character(1, 9),             // urandom
        character(5, 0),             // tty
        character(5, 2),             // ptmx
        character(136, std::nullopt),  // pts/*
        {.block = false, .make_node = true},
        {.block = true, .make_node = true},
    };
}

namespace {

bpf_insn instruction(int code, int destination, int source, int offset, int immediate) {
    bpf_insn insn{};
    insn.code = static_cast<__u8>(code);
    insn.dst_reg = static_cast<__u8>(destination & 15);
    insn.src_reg = static_cast<__u8>(source & 15);
    insn.off = static_cast<__s16>(offset);
    insn.imm = immediate;
    return insn;
}

enum Register { kResult = 0, kContext = 1, kType = 2, kAccess = 3, kMajor = 4, kMinor = 5, kScratch = 6 };

}  // namespace

std::vector<bpf_insn> device_program(const std::vector<DeviceRule>& rules) {
    auto load = [](Register to, std::size_t offset) {
        return instruction(BPF_LDX | BPF_MEM | BPF_W, to, kContext, static_cast<int>(offset), 0);
    };
    std::vector<bpf_insn> program = {
        // access_type holds the access in its upper half, the kind of device in its lower one.
        load(kType, offsetof(bpf_cgroup_dev_ctx, access_type)),
        instruction(BPF_ALU | BPF_MOV | BPF_X, kAccess, kType, 0, 0),
        instruction(BPF_ALU | BPF_AND | BPF_K, kType, 0, 0, 0xffff),
        instruction(BPF_ALU | BPF_RSH | BPF_K, kAccess, 0, 0, 16),
        load(kMajor, offsetof(bpf_cgroup_dev_ctx, major)),
        load(kMinor, offsetof(bpf_cgroup_dev_ctx, minor)),
    };
    for (const auto& rule : rules) {
        int allowed = (rule.make_node ? BPF_DEVCG_ACC_MKNOD : 0) |
                      (rule.read_write ? BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE : 0);
        std::vector<bpf_insn> block = {
            // Whatever is asked for beyond `allowed` makes the rule not apply.
            instruction(BPF_ALU | BPF_MOV | BPF_X, kScratch, kAccess, 0, 0),
            instruction(BPF_ALU | BPF_AND | BPF_K, kScratch, 0, 0, ~allowed & 0xffff),
            instruction(BPF_JMP | BPF_JNE | BPF_K, kScratch, 0, 0, 0),
            instruction(BPF_JMP | BPF_JNE | BPF_K, kType, 0, 0, rule.block ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR),
        };
        if (rule.major) block.push_back(instruction(BPF_JMP | BPF_JNE | BPF_K, kMajor, 0, 0, static_cast<int>(*rule.major)));
        if (rule.minor) block.push_back(instruction(BPF_JMP | BPF_JNE | BPF_K, kMinor, 0, 0, static_cast<int>(*rule.minor)));
        block.push_back(instruction(BPF_ALU64 | BPF_MOV | BPF_K, kResult, 0, 0, 1));
        block.push_back(instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
        // Every test that fails continues behind this rule.
        for (std::size_t i = 0; i < block.size(); ++i)
            if (block[i].code == (BPF_JMP | BPF_JNE | BPF_K)) block[i].off = static_cast<__s16>(block.size() - i - 1);
        program.insert(program.end(), block.begin(), block.end());
    }
    program.push_back(instruction(BPF_ALU64 | BPF_MOV | BPF_K, kResult, 0, 0, 0));
    program.push_back(instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
    return program;
}

Result<os::Fd> load_device_program(const std::vector<bpf_insn>& program) {
    union bpf_attr attributes {};
    attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attributes.expected_attach_type = BPF_CGROUP_DEVICE;
    attributes.insns = reinterpret_cast<__u64>(program.data());
    attributes.insn_cnt = static_cast<__u32>(program.size());
    attributes.license = reinterpret_cast<__u64>("Apache-2.0");
    long fd = ::syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes);
    if (fd < 0) return failure_errno("the guest's kernel refused the container's device filter (BPF)");
    return os::Fd(static_cast<int>(fd));  // close-on-exec by birth
}

namespace {

long change_attachment(int command, const os::Fd& program, const os::Fd& cgroup) {
    union bpf_attr attributes {};
    attributes.target_fd = static_cast<__u32>(cgroup.get());
    attributes.attach_bpf_fd = static_cast<__u32>(program.get());
    attributes.attach_type = BPF_CGROUP_DEVICE;
    return ::syscall(SYS_bpf, command, &attributes, sizeof attributes);
}

}  // namespace

Result<> attach_device_program(const os::Fd& program, const os::Fd& cgroup) {
    if (change_attachment(BPF_PROG_ATTACH, program, cgroup) != 0)
        return failure_errno("the guest's kernel refused to attach the container's device filter (BPF)");
    return {};
}

Result<> detach_device_program(const os::Fd& program, const os::Fd& cgroup) {
    if (change_attachment(BPF_PROG_DETACH, program, cgroup) != 0)
        return failure_errno("the guest's kernel refused to detach the container's device filter (BPF)");
    return {};
}

}  // namespace caisson::agent
