#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/text.h"
#include "jail/golden_test.h"
#include "os/file.h"
#include "vmm/accelerator.h"
#include "vmm/assets.h"
#include "vmm/initramfs.h"
#include "vmm/machine.h"
#include "vmm/qcow2.h"
#include "vmm/qmp.h"
#include "vmm/shape.h"
#include "vmm/template.h"
#include "vmm/vm.h"
#include "wire/share.h"

namespace caisson::vmm {
namespace {

TEST(Shape, RoundsUpToTheLadder) {
    EXPECT_EQ(shape_for(1000, 512ull << 20).value(), (Shape{1, 512}));
    EXPECT_EQ(shape_for(1, 1).value(), (Shape{1, 256}));
    EXPECT_EQ(shape_for(1500, (512ull << 20) + 1).value(), (Shape{2, 1024}));
    EXPECT_EQ(shape_for(8000, 8192ull << 20).value(), (Shape{8, 8192}));
    EXPECT_FALSE(shape_for(8001, 1).has_value());
    EXPECT_FALSE(shape_for(1000, (8192ull << 20) + 1).has_value());
}

TEST(Accelerator, TrustsKvmOnlyWithEveryProof) {
    HostFacts good{.cpu_flag = true, .kvm_exists = true, .kvm_opens = true};
    EXPECT_EQ(choose_accelerator(good)->accelerator, Accelerator::kKvm);
    auto expect_tcg = [](HostFacts facts, const char* reason) {
        auto choice = choose_accelerator(facts);
        ASSERT_TRUE(choice.has_value());
        EXPECT_EQ(choice->accelerator, Accelerator::kTcg);
        EXPECT_NE(choice->reason.find(reason), std::string::npos) << choice->reason;
        facts.forced = "kvm";
        EXPECT_EQ(choose_accelerator(facts).error().code, Errc::kHostMissing);
    };
    auto facts = good;
    facts.kvm_exists = false;
    expect_tcg(facts, "does not exist");
    facts = good;
    facts.cpu_flag = false;
    expect_tcg(facts, "neither vmx nor svm");
    facts = good;
    facts.kvm_opens = false;
    expect_tcg(facts, "cannot be opened");
    facts = good;
    facts.kvm_failed_here = true;
    expect_tcg(facts, "did not start");
    facts = good;
    facts.forced = "tcg";
    EXPECT_EQ(choose_accelerator(facts)->accelerator, Accelerator::kTcg);
    facts.forced = "hvf";
    EXPECT_EQ(choose_accelerator(facts).error().code, Errc::kUsage);
}

TEST(Accelerator, TheTimeStampCounterIsMeasuredRepeatably) {
    auto first = measure_tsc_khz();
    auto second = measure_tsc_khz();
    ASSERT_TRUE(first.has_value());
    ASSERT_TRUE(second.has_value());
    EXPECT_NEAR(static_cast<double>(*first), static_cast<double>(*second), static_cast<double>(*first) * 0.01);
}

MachinePlan restore_plan() {
    MachinePlan plan;
    plan.start = MachinePlan::Start::kRestore;
    plan.template_directory = "/home/templates/k";
    plan.disk = Disk{"/home/boxes/b/disk.qcow2", "/home/disks/d", kDefaultDiskBytes};
    return plan;
}

TEST(Machine, RestoreCommandLineIsTheGoldenOne) {
    EXPECT_EQ(base::join(qemu_arguments(restore_plan()), " "),
              "/usr/bin/qemu-system-x86_64 -M microvm,isa-serial=on,pic=off,memory-backend=mem -accel tcg,thread=multi,tb-size=256 "
              "-cpu max,-erms,-fsrm -m 512M -smp 1 -nodefaults -no-user-config -display none -no-reboot "
              "-global virtio-mmio.force-legacy=false "
              "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny "
              "-object memory-backend-file,id=mem,size=512M,mem-path=/template/mem,share=off,readonly=on,rom=off "
              "-blockdev {\"driver\":\"qcow2\",\"node-name\":\"d0\",\"discard\":\"unmap\",\"file\":{\"driver\":\"file\","
              "\"filename\":\"/box/disk.qcow2\",\"discard\":\"unmap\",\"locking\":\"off\"},\"backing\":{\"driver\":\"raw\",\"read-only\":true,"
              "\"file\":{\"driver\":\"file\",\"read-only\":true,\"filename\":\"/disk/base.ext4\",\"locking\":\"off\"}}} "
              "-device virtio-blk-device,drive=d0,id=disk0 -add-fd fd=13,set=2 "
              "-blockdev {\"driver\":\"raw\",\"node-name\":\"w0\",\"file\":{\"driver\":\"file\",\"filename\":\"/dev/fdset/2\",\"locking\":\"off\"}} "
              "-device virtio-blk-device,drive=w0,id=window,werror=report,rerror=report,serial=window "
              "-object rng-builtin,id=rng -device virtio-rng-device,rng=rng,id=rng0,max-bytes=4096,period=100 "
              "-chardev socket,id=agent,fd=4 -chardev socket,id=share,fd=7 -device virtio-serial-device,id=serial0,max_ports=3 "
              "-device virtserialport,chardev=agent,name=agent,nr=1,id=port-agent "
              "-device virtserialport,chardev=share,name=share,nr=2,id=port-share "
              "-chardev socket,id=console,fd=5 -serial chardev:console -chardev socket,id=qmp,fd=3 -mon "
              "chardev=qmp,mode=control -incoming defer");
}

MachinePlan plan_with_volumes() {
    auto plan = restore_plan();
    plan.shape.disks = kVolumeDisks;
    plan.volumes = {{"/home/volumes/disks/a", false, 1ull << 30}, {"/home/volumes/disks/b", true, 64ull << 20}};
    return plan;
}

TEST(Machine, VolumesThatAreDisksComeInTheirPlacesAndTheRestIsEmpty) {
    auto line = base::join(qemu_arguments(plan_with_volumes()), " ");
    for (const char* part :
         {"-blockdev {\"driver\":\"raw\",\"node-name\":\"v0\",\"discard\":\"unmap\",\"file\":{\"driver\":\"file\",\"filename\":\"/box/volume0\","
          "\"discard\":\"unmap\",\"locking\":\"off\"}} -device virtio-blk-device,drive=v0,id=volume0,serial=volume0 ",
          "-blockdev {\"driver\":\"raw\",\"node-name\":\"v1\",\"read-only\":true,\"file\":{\"driver\":\"file\",\"filename\":\"/box/volume1\","
          "\"read-only\":true,\"locking\":\"off\"}} -device virtio-blk-device,drive=v1,id=volume1,serial=volume1 ",
          "-blockdev {\"driver\":\"null-co\",\"node-name\":\"v2\",\"read-zeroes\":true,\"size\":4096} -device virtio-blk-device,drive=v2,",
          "drive=v3,id=volume3,serial=volume3 -add-fd "})
        EXPECT_NE(line.find(part), std::string::npos) << part << "\n" << line;
    // A machine without places for them has nothing of it.
    EXPECT_EQ(base::join(qemu_arguments(restore_plan()), " ").find("volume"), std::string::npos);
    EXPECT_NE(template_command_line({.disks = kVolumeDisks}, Accelerator::kTcg, 1), template_command_line({}, Accelerator::kTcg, 1));
}

TEST(Machine, TheWindowIsMemoryThatItIsGivenAndATemplatesIsEmpty) {
    const auto restored = base::join(qemu_arguments(restore_plan()), " ");
    EXPECT_NE(restored.find("-add-fd fd=13,set=2 -blockdev {\"driver\":\"raw\",\"node-name\":\"w0\",\"file\":{\"driver\":\"file\",\"filename\":\"/dev/fdset/2\""),
              std::string::npos);
    // As large: a guest that was frozen with it does not look again.
    const auto made = template_command_line({}, Accelerator::kTcg, 1);
    EXPECT_NE(made.find("{\"driver\":\"null-co\",\"node-name\":\"w0\",\"read-zeroes\":true,\"size\":" + std::to_string(wire::kShareWindowBytes) + "}"),
              std::string::npos);
    EXPECT_EQ(made.find("fdset/2"), std::string::npos);
}

TEST(Machine, TheWindowKeepsItsSizeAndIsNoProgram) {
    const auto window = make_window().value();
    struct stat status {};
    ASSERT_EQ(::fstat(window.get(), &status), 0);
    EXPECT_EQ(status.st_size, static_cast<off_t>(wire::kShareWindowBytes));
    EXPECT_EQ(status.st_mode & 07777, 0600u) << "it holds what a guest says, and could be executed";
    for (off_t size : {off_t{0}, static_cast<off_t>(2 * wire::kShareWindowBytes)}) {
        EXPECT_EQ(::ftruncate(window.get(), size), -1) << size;
        EXPECT_EQ(errno, EPERM);
    }
    EXPECT_EQ(::fcntl(window.get(), F_ADD_SEALS, F_SEAL_WRITE), -1);
}

TEST(Machine, AVolumesDiskIsWritableInTheJailOnlyIfItIsToBe) {
    auto jail = vmm_jail(plan_with_volumes(), {});
    std::string writable, shown;
    for (const auto& mount : jail.mounts) {
        if (mount.kind == jail::Mount::Kind::kReadWrite) writable += mount.source + ";";
        if (mount.target.starts_with(kVolumeInJail)) shown += mount.source + "=" + mount.target + ";";
    }
    EXPECT_EQ(writable, "/home/boxes/b/disk.qcow2;/home/volumes/disks/a;");
    EXPECT_EQ(shown, "/home/volumes/disks/a=/box/volume0;/home/volumes/disks/b=/box/volume1;");
}

TEST(Machine, ItMayWriteAsMuchAsItsLargestVolume) {
    auto limit = [](const MachinePlan& plan) {
        for (const auto& entry : vmm_jail(plan, {}).resource_limits)
            if (entry.resource == RLIMIT_FSIZE) return entry.value;
        return decltype(jail::Description().resource_limits[0].value){};
    };
    auto plan = plan_with_volumes();
    EXPECT_EQ(limit(plan), limit(restore_plan()));
    plan.volumes[0].size_bytes = 1ull << 40;
    EXPECT_EQ(limit(plan), 1ull << 40);
}

TEST(Machine, KvmComesAsADescriptor) {
    auto plan = restore_plan();
    plan.accelerator = Accelerator::kKvm;
    auto line = base::join(qemu_arguments(plan), " ");
    EXPECT_NE(line.find("-add-fd fd=6,set=1 -accel kvm,device=/dev/fdset/1 -cpu host"), std::string::npos) << line;
    for (const auto& mount : vmm_jail(plan, {}).mounts) EXPECT_NE(mount.target, "/dev");
}

TEST(Machine, TheGuestKeepsItsDefences) {
    MachinePlan plan;
    plan.start = MachinePlan::Start::kTemplate;
    plan.tsc_khz = 2600000;
    auto line = kernel_command_line(plan);
    for (auto forbidden : {"mitigations=", "nokaslr", "init_on_alloc=0", "apparmor=", "lsm=", "selinux="})
        EXPECT_EQ(line.find(forbidden), std::string::npos) << line;
    EXPECT_NE(line.find("tsc_early_khz=2600000 tsc=reliable"), std::string::npos);
    plan.accelerator = Accelerator::kKvm;
    EXPECT_EQ(kernel_command_line(plan).find("tsc_early_khz"), std::string::npos);
}

TEST(Machine, JailShowsTheTemplateReadOnlyAndOnlyTheBoxesOwnDiskWritable) {
    Assets assets;
    assets.vmm_root = "/assets/vmm";
    auto jail = vmm_jail(restore_plan(), assets);
    std::string writable;
    for (const auto& mount : jail.mounts)
        if (mount.kind == jail::Mount::Kind::kReadWrite) writable += mount.source + ";";
    EXPECT_EQ(writable, "/home/boxes/b/disk.qcow2;");
    EXPECT_TRUE(jail.die_with_parent);
    EXPECT_FALSE(jail.proc);
    EXPECT_FALSE(jail.minimal_dev);
    EXPECT_TRUE(jail.environment.empty());
}

TEST(Machine, ItsJailsAreThoseThatWereReviewed) {
    Assets assets;
    assets.vmm_root = "/assets/vmm";
    assets.kernel = "/assets/kernel/vmlinux";
    assets.agent = "/libexec/caisson-agent";
    auto plan = restore_plan();
    for (auto [start, name] : {std::pair{MachinePlan::Start::kRestore, "vmm-restore.jail"}, std::pair{MachinePlan::Start::kCold, "vmm-cold.jail"},
                               std::pair{MachinePlan::Start::kTemplate, "vmm-template.jail"}}) {
        plan.start = start;
        plan.tsc_khz = 2600000;
        auto description = vmm_jail(plan, assets);
        description.descriptors = {{0, 1}, {0, 2}, {0, plan.qmp_fd}, {0, plan.agent_fd}, {0, plan.console_fd}};
        if (plan.start != MachinePlan::Start::kTemplate) description.descriptors.push_back({0, plan.share_fd});
        jail::expect_golden(name, jail::rendered(description));
    }
    auto description = vmm_jail(plan_with_volumes(), assets);
    description.descriptors = {{0, 1}, {0, 2}, {0, plan.qmp_fd}, {0, plan.agent_fd}, {0, plan.console_fd}, {0, plan.share_fd}, {0, plan.first_lock_fd}};
    jail::expect_golden("vmm-volumes.jail", jail::rendered(description));
}

TEST(Machine, WithoutAJailItIsTheSameMachineByItsPathsOnTheHost) {
    Assets assets;
    assets.vmm_root = "/assets/vmm";
    assets.kernel = "/assets/kernel/vmlinux";
    assets.agent = "/libexec/caisson-agent";
    auto jailed = restore_plan();
    auto plan = without_jail(jailed, assets).value();
    auto description = vmm_description(plan, assets);
    EXPECT_TRUE(description.mounts.empty() && description.root.empty() && description.enter.empty() && !description.filter);
    EXPECT_TRUE(description.die_with_parent && description.environment.empty());
    EXPECT_EQ(description.resource_limits.size(), vmm_description(jailed, assets).resource_limits.size());
    auto line = base::join(description.arguments, " ");
    EXPECT_EQ(line.find("/assets/vmm/usr/lib64/ld-linux-x86-64.so.2 --inhibit-cache --library-path "), 0u) << line;
    for (const char* part : {"mem-path=/home/templates/k/mem,share=off,readonly=on", "\"filename\":\"/home/boxes/b/disk.qcow2\"",
                             "\"filename\":\"/home/disks/d\"", "-sandbox on,", "spawn=deny"})
        EXPECT_NE(line.find(part), std::string::npos) << part;
    EXPECT_NE(initial_qmp(plan).find("file:/home/templates/k/state\""), std::string::npos);
    // Devices and their order are those of the template that was made in the jail.
    for (auto [from, to] : {std::pair{"/home/templates/k", "/template"}, std::pair{"/home/boxes/b/disk.qcow2", "/box/disk.qcow2"},
                            std::pair{"/home/disks/d", "/disk/base.ext4"}})
        line.replace(line.find(from), std::string(from).size(), to);
    auto in_jail = base::join(qemu_arguments(jailed), " ");
    EXPECT_EQ(line.substr(line.find(" -M ")), in_jail.substr(in_jail.find(" -M ")));
    plan = jailed;
    plan.start = MachinePlan::Start::kCold;
    line = base::join(qemu_arguments(without_jail(plan, assets).value()), " ");
    EXPECT_NE(line.find("-kernel /assets/kernel/vmlinux -initrd /home/templates/k/initramfs"), std::string::npos) << line;
}

TEST(Machine, WithoutAJailNoPathIsReadAsSomethingElse) {
    Assets assets;
    assets.vmm_root = "/assets/vmm";
    assets.kernel = "/assets/kernel/vmlinux";
    for (const char* bad : {"/h,share=on", "/h\"x", "/h\\x", "/h:/evil", "/h\nx", "/$ORIGIN"}) {
        auto plan = restore_plan();
        plan.disk->overlay_path = bad;
        auto refused = without_jail(plan, assets);
        ASSERT_FALSE(refused) << bad;
        EXPECT_EQ(refused.error().code, Errc::kUnsupported);
        auto elsewhere = assets;
        elsewhere.vmm_root = bad;
        EXPECT_FALSE(without_jail(restore_plan(), elsewhere)) << bad;
    }
}

TEST(Machine, TheTemplatesKeyDependsOnShapeEngineAndClock) {
    auto line = template_command_line({1, 512}, Accelerator::kTcg, 1);
    EXPECT_NE(line, template_command_line({2, 512}, Accelerator::kTcg, 1));
    EXPECT_NE(line, template_command_line({1, 1024}, Accelerator::kTcg, 1));
    EXPECT_NE(line, template_command_line({1, 512}, Accelerator::kKvm, 1));
    EXPECT_NE(line, template_command_line({1, 512}, Accelerator::kTcg, 2));
}

TEST(Qmp, ReadsGreetingReturnErrorAndEvents) {
    QmpParser parser;
    ASSERT_TRUE(parser.feed(base::as_bytes(
        "{\"QMP\":{}}\r\n{\"return\":{\"status\":\"completed\"}}\n{\"error\":{\"class\":\"X\",\"desc\":\"no\\u001b\"}}\n"
        "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}\n"
        "{\"event\":\"BLOCK_IO_ERROR\",\"data\":{\"nospace\":true}}\n{\"ret")).has_value());
    EXPECT_EQ(parser.next().value()->kind, QmpMessage::Kind::kGreeting);
    EXPECT_EQ(parser.next().value()->status, "completed");
    EXPECT_EQ(parser.next().value()->reason, "no\\x1b");
    auto shutdown = parser.next().value();
    EXPECT_EQ(shutdown->event, "SHUTDOWN");
    EXPECT_TRUE(shutdown->guest);
    EXPECT_EQ(shutdown->reason, "guest-reset");
    EXPECT_TRUE(parser.next().value()->no_space);
    EXPECT_FALSE(parser.next().value().has_value());
    ASSERT_TRUE(parser.feed(base::as_bytes("urn\":{}}\n")).has_value());
    EXPECT_EQ(parser.next().value()->kind, QmpMessage::Kind::kReturn);
}

TEST(Qmp, RefusesWhatAHostileVmmMaySend) {
    auto refused = [](const std::string& text) {
        QmpParser parser;
        if (!parser.feed(base::as_bytes(text))) return true;
        return !parser.next().has_value();
    };
    EXPECT_TRUE(refused("nonsense\n"));
    EXPECT_TRUE(refused("[]\n"));
    EXPECT_TRUE(refused("{\"event\":7}\n"));
    std::string deep(kMaxQmpDepth, '[');
    EXPECT_TRUE(refused("{\"return\":" + deep + std::string(kMaxQmpDepth, ']') + "}\n"));
    EXPECT_FALSE(refused("{\"return\":" + deep.substr(1) + std::string(kMaxQmpDepth - 1, ']') + "}\n"));
    EXPECT_TRUE(refused(std::string(kMaxQmpLine + 1, 'x')));
}

TEST(Assets, ThatOthersCouldHavePlantedAreNotUsed) {
    auto place = os::TemporaryDirectory::create("/tmp", "caisson-assets-").value();
    const auto directory = place.path() + "/assets";
    const auto libexec = place.path() + "/libexec";
    for (const auto& name : {directory + "/kernel", directory + "/vmm/usr/bin", libexec})
        ASSERT_TRUE(os::make_directories(name, 0755).has_value());
    for (const auto& name : {directory + "/vmm.version", directory + "/kernel/version", directory + "/kernel/vmlinux",
                             directory + "/kernel/modules.list", directory + "/vmm" + kQemuPath, libexec + "/caisson-agent",
                             libexec + "/caisson-enter"})
        ASSERT_TRUE(os::write_file_atomic(name, "1", 0755).has_value());
    EXPECT_TRUE(find_assets({.candidates = {directory}, .libexec = libexec}).has_value());
    ASSERT_EQ(::chmod(directory.c_str(), 0757), 0);
    auto refused = find_assets({.candidates = {directory}, .libexec = libexec});
    ASSERT_FALSE(refused.has_value());
    EXPECT_NE(refused.error().to_string().find("not used"), std::string::npos) << refused.error().to_string();
    // What the user names is used as it is.
    EXPECT_TRUE(find_assets({.override_directory = directory, .libexec = libexec}).has_value());
    ASSERT_EQ(::chmod(directory.c_str(), 0755), 0);
    if (::geteuid() == 0) {
        ASSERT_EQ(::chown(directory.c_str(), 12345, 12345), 0);
        EXPECT_FALSE(find_assets({.candidates = {directory}, .libexec = libexec}).has_value());
        // A neighbour of the same owner as the programs.
        ASSERT_EQ(::chown(libexec.c_str(), 12345, 12345), 0);
        EXPECT_TRUE(find_assets({.candidates = {directory}, .libexec = libexec}).has_value());
    }
}

TEST(Assets, WhatMakesThemIsNamed) {
    auto installed = find_assets({.candidates = {"/nowhere/assets"}, .setup_program = "/usr/bin/caisson-setup"});
    ASSERT_FALSE(installed.has_value());
    EXPECT_EQ(installed.error().code, Errc::kHostMissing);
    EXPECT_EQ(installed.error().hint, "sudo /usr/bin/caisson-setup");
    auto named = find_assets({.override_directory = "/nowhere", .setup_program = "/usr/bin/caisson-setup"});
    EXPECT_EQ(named.error().hint, "sudo /usr/bin/caisson-setup /nowhere");
    EXPECT_NE(find_assets({.candidates = {"/nowhere"}}).error().hint.find("make run"), std::string::npos);
}

TEST(Initramfs, IsACpioThatGnuCpioWouldRead) {
    auto archive = make_cpio({{"init", S_IFREG | 0755, "hello"}});
    EXPECT_EQ(archive.substr(0, 6), "070701");
    EXPECT_EQ(archive.size() % 4, 0u);
    EXPECT_EQ(archive.substr(110, 5), std::string("init\0", 5));
    EXPECT_EQ(archive.substr(116, 5), "hello");
    EXPECT_NE(archive.find("TRAILER!!!"), std::string::npos);
}

TEST(Initramfs, LeavesTheLastPageToTheAcpiTables) {
    for (std::size_t size : {1u, 4u, 4095u, 4096u, 4097u, 8000u}) {
        auto padded = fit_below_acpi_tables(std::string(size, 'x'));
        EXPECT_GE(padded.size(), size);
        EXPECT_EQ(padded.size() % 4096, 4u) << size;
    }
}

TEST(Qcow2, EmptyOverlayIsValidAtSeveralSizes) {
    for (std::uint64_t size : {std::uint64_t{512}, std::uint64_t{1} << 30, kDefaultDiskBytes, kMaxDiskBytes}) {
        auto image = make_empty_qcow2(size);
        EXPECT_EQ(image[0], 'Q');
        EXPECT_EQ(image[1], 'F');
        EXPECT_EQ(image[3], 0xfb);
        // No backing file offset and size in the header: the guest's bytes must not name files of the host.
        for (int i = 8; i < 20; ++i) EXPECT_EQ(image[static_cast<std::size_t>(i)], 0);
    }
}

TEST(Qcow2, ARewrittenHeaderIsNoticed) {
    auto directory = os::TemporaryDirectory::create("/tmp", "caisson-qcow2-").value();
    const auto path = directory.path() + "/disk.qcow2";
    ASSERT_TRUE(create_overlay(path, kDefaultDiskBytes).has_value());
    EXPECT_TRUE(check_overlay(path, kDefaultDiskBytes).has_value());
    EXPECT_TRUE(check_overlay(path, kDefaultDiskBytes * 2).has_value()) << "it is still to grow";
    EXPECT_EQ(check_overlay(path, kDefaultDiskBytes / 2).error().code, Errc::kCorrupt);
    struct Change {
        std::size_t offset;
        std::uint8_t value;
    };
    // Magic, version, backing file's offset and length, size, encryption, external data file, an unknown feature.
    for (auto [offset, value] : {Change{0, 'q'}, Change{7, 2}, Change{15, 104}, Change{19, 11}, Change{24, 1}, Change{35, 1},
                                 Change{79, 4}, Change{72, 0x80}}) {
        auto fd = os::open_file(path, O_RDWR).value();
        std::uint8_t before = 0;
        ASSERT_EQ(::pread(fd.get(), &before, 1, static_cast<off_t>(offset)), 1);
        ASSERT_EQ(::pwrite(fd.get(), &value, 1, static_cast<off_t>(offset)), 1);
        auto checked = check_overlay(path, kDefaultDiskBytes);
        ASSERT_FALSE(checked.has_value()) << offset;
        EXPECT_EQ(checked.error().code, Errc::kCorrupt);
        ASSERT_EQ(::pwrite(fd.get(), &before, 1, static_cast<off_t>(offset)), 1);
        EXPECT_TRUE(check_overlay(path, kDefaultDiskBytes).has_value());
    }
    ASSERT_EQ(::truncate(path.c_str(), 50), 0);
    EXPECT_EQ(check_overlay(path, kDefaultDiskBytes).error().code, Errc::kCorrupt);
    ASSERT_EQ(::unlink(path.c_str()), 0);
    ASSERT_EQ(::symlink("/etc/passwd", path.c_str()), 0);
    EXPECT_FALSE(check_overlay(path, kDefaultDiskBytes).has_value());
}

TEST(Qcow2, WhatIsNoPlainFileIsNotOpened) {
    auto directory = os::TemporaryDirectory::create("/tmp", "caisson-qcow2-").value();
    const auto path = directory.path() + "/disk.qcow2";
    const auto real = directory.path() + "/real";
    ASSERT_TRUE(create_overlay(real, kDefaultDiskBytes).has_value());
    auto expect_refused = [&](const char* what) {
        for (const auto& checked : {check_overlay(path, kDefaultDiskBytes), check_base_disk(path)}) {
            ASSERT_FALSE(checked.has_value()) << what;
            EXPECT_EQ(checked.error().code, Errc::kCorrupt) << what;
            EXPECT_NE(checked.error().to_string().find(what), std::string::npos) << checked.error().to_string();
        }
    };
    ASSERT_EQ(::symlink(real.c_str(), path.c_str()), 0);
    expect_refused("is a symbolic link");
    ASSERT_EQ(::unlink(path.c_str()), 0);
    ASSERT_EQ(::symlink((directory.path() + "/nowhere").c_str(), path.c_str()), 0);
    expect_refused("is a symbolic link");
    ASSERT_EQ(::unlink(path.c_str()), 0);
    ASSERT_EQ(::mkdir(path.c_str(), 0700), 0);
    expect_refused("is a directory");
    ASSERT_EQ(::rmdir(path.c_str()), 0);
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    expect_refused("is a pipe");
    ASSERT_EQ(::unlink(path.c_str()), 0);
    if (::geteuid() == 0) {
        ASSERT_EQ(::link(real.c_str(), path.c_str()), 0);
        ASSERT_EQ(::chown(real.c_str(), 1, 1), 0);
        expect_refused("belongs to another user");
    }
}

TEST(Qcow2, AnExistingOverlayIsNeverOverwritten) {
    auto directory = os::TemporaryDirectory::create("/tmp", "caisson-qcow2-").value();
    ASSERT_TRUE(create_overlay(directory.path() + "/d", 1 << 30).has_value());
    EXPECT_FALSE(create_overlay(directory.path() + "/d", 1 << 30).has_value());
}

TEST(Qcow2, ACopyHasTheSameBytesAndKeepsHoles) {
    auto directory = os::TemporaryDirectory::create("/tmp", "caisson-qcow2-").value();
    const auto from = directory.path() + "/a";
    const auto to = directory.path() + "/b";
    ASSERT_TRUE(create_overlay(from, kDefaultDiskBytes).has_value());
    ASSERT_TRUE(copy_overlay(from, to, kDefaultDiskBytes).has_value());
    EXPECT_EQ(os::read_file(from).value(), os::read_file(to).value());
    EXPECT_LE(os::disk_usage(to).value(), os::disk_usage(from).value());
    EXPECT_FALSE(copy_overlay(from, to, kDefaultDiskBytes).has_value());
}

TEST(Qcow2, OnlyWhatCanBeAnOverlayIsCopied) {
    auto directory = os::TemporaryDirectory::create("/tmp", "caisson-qcow2-").value();
    const auto from = directory.path() + "/a";
    const auto to = directory.path() + "/b";
    ASSERT_EQ(::mkfifo(from.c_str(), 0600), 0);
    EXPECT_EQ(copy_overlay(from, to, kDefaultDiskBytes).error().code, Errc::kCorrupt);
    ::unlink(from.c_str());
    ASSERT_TRUE(create_overlay(from, 1 << 30).has_value());
    ASSERT_EQ(::truncate(from.c_str(), static_cast<off_t>(max_overlay_bytes(1 << 30))), 0);
    EXPECT_TRUE(copy_overlay(from, to, 1 << 30).has_value());
    ::unlink(to.c_str());
    ASSERT_EQ(::truncate(from.c_str(), static_cast<off_t>(max_overlay_bytes(1 << 30) + 1)), 0);
    EXPECT_EQ(copy_overlay(from, to, 1 << 30).error().code, Errc::kCorrupt);
    EXPECT_FALSE(os::exists(to));
}

TEST(ConsoleTail, KeepsTheEndAndNamesTheCause) {
    ConsoleTail tail;
    tail.append(base::as_bytes(std::string(100000, 'x')));
    tail.append(base::as_bytes("\nKernel panic - not syncing\x1b[0m\n"));
    EXPECT_LE(tail.text().size(), 2 * ConsoleTail::kMaxBytes);
    EXPECT_NE(tail.likely_cause(true).find("panicked"), std::string::npos);
    EXPECT_EQ(tail.excerpt().find('\x1b'), std::string::npos);
    EXPECT_FALSE(ConsoleTail().likely_cause(false).empty());
    ConsoleTail crashed;
    crashed.append(base::as_bytes("qemu-system-x86_64: something that cannot be\n"));
    EXPECT_EQ(crashed.likely_cause(true), "the VMM refused to start");
    EXPECT_EQ(crashed.likely_cause(true, true).find("refused"), std::string::npos);
}

TEST(ConsoleTail, OneThatNeverStopsIsReadInPieces) {
    auto console = os::make_socketpair(SOCK_STREAM).value();
    ASSERT_TRUE(os::set_nonblocking(console.first.get(), true).has_value());
    ASSERT_TRUE(os::set_nonblocking(console.second.get(), true).has_value());
    const std::string piece(1024, 'x');
    ConsoleTail tail;
    std::size_t put = 0;
    for (ssize_t wrote = 0; (wrote = ::write(console.second.get(), piece.data(), piece.size())) > 0;)
        put += static_cast<std::size_t>(wrote);
    EXPECT_TRUE(tail.read_from(console.first.get()));
    // The last words of a machine that has ended are not cut, though: a socket's content goes in at once.
    EXPECT_GT(put, ConsoleTail::kMaxBytes);
    char byte = 0;
    EXPECT_EQ(::read(console.first.get(), &byte, 1), -1);
    EXPECT_LE(tail.text().size(), 2 * ConsoleTail::kMaxBytes);
    for (int i = 0; i < 1000; ++i) tail.append(base::as_bytes(piece));
    EXPECT_GE(tail.text().size(), ConsoleTail::kMaxBytes);
    EXPECT_LE(tail.text().size(), 2 * ConsoleTail::kMaxBytes);
}

// Sanitized code is slower, not worse.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kSlowness = 10;
#else
constexpr int kSlowness = 1;
#endif

TEST(Qmp, AFloodOfEmptyLinesCostsWhatItsBytesCost) {
    QmpParser parser;
    const std::string lines(16384, '\n');
    auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < 256; ++i) {
        ASSERT_TRUE(parser.feed(base::as_bytes(lines)).has_value());
        ASSERT_FALSE(parser.next().value().has_value());
    }
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(1 * kSlowness));
    EXPECT_EQ(parser.lines(), 256u * 16384u);
    // All at once as well, and a message behind it is found.
    QmpParser other;
    ASSERT_TRUE(other.feed(base::as_bytes(std::string(2 * kMaxQmpLine - 100, '\n') + "{\"return\":{}}\n")).has_value());
    EXPECT_EQ(other.next().value()->kind, QmpMessage::Kind::kReturn);
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(2 * kSlowness));
}

TEST(Qmp, OneThatNeverStopsTalkingIsNoticed) {
    QmpRate rate;
    std::chrono::steady_clock::time_point now{std::chrono::hours(1)};
    EXPECT_TRUE(rate.check(5, now).has_value());
    EXPECT_TRUE(rate.check(5 + kMaxQmpLinesPerSecond, now).has_value());
    EXPECT_EQ(rate.check(6 + kMaxQmpLinesPerSecond, now).error().code, Errc::kProtocol);
    EXPECT_TRUE(rate.check(7 + kMaxQmpLinesPerSecond, now + std::chrono::seconds(1)).has_value());
}

TEST(Template, ProfileIsMeasuredOncePerBootAndAStrangersKeyIsRefused) {
    auto directory = os::TemporaryDirectory::create("/tmp", "caisson-template-").value();
    auto first = host_profile(directory.path()).value();
    EXPECT_EQ(host_profile(directory.path())->tsc_khz, first.tsc_khz);
    ASSERT_TRUE(remember_kvm_failure(directory.path(), first).has_value());
    EXPECT_TRUE(host_profile(directory.path())->kvm_failed);
    // What is remembered belongs to one boot of the host.
    ASSERT_TRUE(os::write_file_atomic(directory.path() + "/host.json",
                                      R"({"boot_id":"other","tsc_khz":1,"kvm_failed":true})").has_value());
    EXPECT_FALSE(host_profile(directory.path())->kvm_failed);
    for (auto key : {"", "..", "../x", ".new-x", "nothing"})
        EXPECT_EQ(remove_template(directory.path(), key).error().code, Errc::kNotFound) << key;
}

}  // namespace
}  // namespace caisson::vmm
