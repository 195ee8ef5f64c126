"""What the host shows of a running box's processes: identity, privileges, namespaces, mounts, descriptors."""
import os
import re
import signal

import pytest
from boxes import BASE, HOME, IS_ROOT, SANITIZED, Started, inspect, of_role, one_box, until

NAMESPACES = ("user", "mnt", "pid", "ipc", "uts", "cgroup", "net")


@pytest.fixture(scope="module")
def box():
    with Started("run", "--rm", BASE, "sh", "-c", "echo ready; sleep 1000", ) as running:
        running.line()
        running.id = one_box()
        running.vmm, = of_role("vmm", running.id)
        running.shim, = of_role("shim", running.id)
        running.launcher, = of_role("launcher", running.id)
        yield running


@pytest.fixture(autouse=True)
def nothing_stays():
    """The box of this file lives as long as the file's tests."""
    yield


def service_uid():
    return os.stat(HOME).st_uid


def test_the_vmm_has_no_privileges(box):
    status = box.vmm.status()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, (name, status[name])
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2" and status["Seccomp_filters"] == "2", "caisson's and QEMU's own"
    assert set(status["Uid"].split()) == {str(service_uid())} and service_uid() != 0
    assert "0" not in status["Gid"].split()
    assert status["Groups"].split() == [] or not IS_ROOT


def test_every_thread_of_the_vmm_is_filtered(box):
    for thread in os.listdir(f"/proc/{box.vmm.pid}/task"):
        with open(f"/proc/{box.vmm.pid}/task/{thread}/status") as file:
            text = file.read()
        assert "Seccomp:\t2" in text and "NoNewPrivs:\t1" in text and "CapEff:\t" + "0" * 16 in text


def test_all_namespaces_of_the_vmm_are_its_own(box):
    own = box.vmm.namespaces()
    for name in NAMESPACES:
        assert own[name] != os.readlink(f"/proc/self/ns/{name}"), name


def test_the_vmm_sees_nothing_of_the_host_s_files(box):
    points = {line.split()[4]: line for line in box.vmm.mounts.decode().splitlines()}
    assert set(points) <= {"/", "/template", "/box", "/box/disk.qcow2", "/disk", "/disk/base.ext4", "/run", "/run/caisson-enter"}, sorted(points)
    for point in ("/", "/template", "/disk/base.ext4"):
        assert points[point].split()[5].split(",")[0] == "ro", points[point]
    for line in points.values():
        assert "nosuid" in line and "nodev" in line, line


def test_the_vmm_has_no_environment(box):
    with open(f"/proc/{box.vmm.pid}/environ", "rb") as file:
        assert file.read().replace(b"PWD=/\0", b"") == b""


def test_what_the_vmm_holds_open(box):
    read_only_mounts = {line.split()[0] for line in box.vmm.mounts.decode().splitlines() if line.split()[5].startswith("ro")}
    for number in os.listdir(f"/proc/{box.vmm.pid}/fd"):
        link = os.readlink(f"/proc/{box.vmm.pid}/fd/{number}")
        assert re.match(r"(/template/(mem|state)$|/box/disk\.qcow2$|/disk/base\.ext4$|/dev/null$|socket:|pipe:|anon_inode:|/memfd:)", link), link
        if link.startswith(("/template/", "/disk/")):
            # For reading only, and through a mount that is for reading only: no reopening makes it writable.
            with open(f"/proc/{box.vmm.pid}/fdinfo/{number}") as file:
                info = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
            assert int(info["flags"], 8) & os.O_ACCMODE == os.O_RDONLY, link
            assert info["mnt_id"].strip() in read_only_mounts, link


def test_the_vmm_has_no_network(box):
    with open(f"/proc/{box.vmm.pid}/net/dev") as file:
        assert [line.split(":")[0].strip() for line in file.read().splitlines()[2:]] == ["lo"]
    with open(f"/proc/{box.vmm.pid}/net/unix") as file:
        assert not [line for line in file.read().splitlines()[1:] if "/" in line or "@" in line]


def test_limits_of_the_vmm(box):
    with open(f"/proc/{box.vmm.pid}/limits") as file:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in file}
    assert limits["Max core file size"] == ["0", "0"]
    assert int(limits["Max open files"][1]) <= 1024
    # The guest's 512 MiB, and up to two GiB for QEMU and the code that it translates: data, on top of no cgroup.
    assert limits["Max data size"][1] != "unlimited" and int(limits["Max data size"][1]) <= (512 << 20) + (2 << 30)


def test_files_of_the_template_are_read_only(box):
    names = {}
    for template in os.scandir(HOME / "templates"):
        if template.is_dir():
            names.update({entry.name: entry.stat().st_mode & 0o777 for entry in os.scandir(template)})
    assert names["mem"] == names["state"] == 0o444
    for directory in ("boxes", "templates", "images", "disks"):
        assert os.stat(HOME / directory).st_mode & 0o077 in (0, 0o011), directory


def test_the_supervisor_is_not_root(box):
    status = box.shim.status()
    assert "0" not in status["Uid"].split() and "0" not in status["Gid"].split()
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert os.getsid(box.shim.pid) == box.shim.pid, "a session of its own"
    try:
        with open(f"/proc/{box.shim.pid}/environ", "rb") as file:
            assert file.read() == b""
    except PermissionError:
        assert not IS_ROOT, "its memory is closed to everyone but root"


@pytest.mark.skipif(SANITIZED, reason="sanitizers make system calls of their own: such builds have no filter")
def test_the_supervisor_has_locked_itself(box):
    status = box.shim.status()
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1" and status["Threads"] == "1", status
    with open(f"/proc/{box.shim.pid}/limits") as file:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in file}
    assert limits["Max core file size"] == ["0", "0"] and int(limits["Max open files"][1]) <= 1024


@pytest.mark.skipif(SANITIZED, reason="sanitizers make system calls of their own: such builds have no filter")
@pytest.mark.skipif(not IS_ROOT, reason="what may not be dumped shows its files to root alone, so it is not found")
def test_what_listens_to_a_template_s_machine_has_locked_itself(box):
    # A shape that no other test has; it is not made to the end.
    with Started("run", "--rm", "--memory", "260m", "--cpus", "4", BASE, "true") as building:
        listener = until(lambda: next(iter(of_role("listener")), None), 20)
        status = until(lambda: (found := listener.status()).get("Seccomp") == "2" and found, 5, listener.status)
        assert status["NoNewPrivs"] == "1"
        building.process.send_signal(signal.SIGKILL)


def test_only_the_launcher_can_start_something(box):
    assert int(parent_of(box.launcher)) == box.shim.pid
    outer = min(of_role("bwrap", box.id), key=lambda process: process.pid)
    assert int(parent_of(outer)) == box.launcher.pid
    status = box.launcher.status()
    assert "0" not in status["Uid"].split() and int(status["CapEff"], 16) == 0 and status["Threads"] == "1"


def parent_of(process):
    return process.status()["PPid"]


def test_started_as_root_the_command_line_works_as_the_service_user(box):
    if not IS_ROOT:
        pytest.skip("only root leaves root; run this ring as root as well")
    with open(f"/proc/{box.pid}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(service_uid())}
    assert status["Groups"].strip() == "" and int(status["CapEff"], 16) == 0


def test_inspect_shows_what_the_vmm_runs_under(box):
    """As the kernel tells it, so it is compared with what this test sees."""
    shown = next(process for process in inspect(box.id)["jail"] if process["kind"] == "vmm")
    assert shown["pid"] == box.vmm.pid and shown["user"] == str(service_uid())
    assert sorted(shown["namespaces"]) == sorted(NAMESPACES)
    assert int(shown["capabilities"], 16) == 0 and shown["no_new_privileges"] and shown["call_filters"] == 2
    assert shown["filter"] == "vmm"
    supervisor = next(process for process in inspect(box.id)["jail"] if process["kind"] == "supervisor")
    assert supervisor["filter"] == ("shim" if supervisor["call_filters"] else None)
    assert shown["landlock"].startswith(("version ", "impossible"))
    writable = [mount for mount in shown["mounts"] if mount.endswith(" rw")]
    assert writable == ["/box/disk.qcow2 rw"], shown["mounts"]
    assert {entry.split()[0] for entry in shown["descriptors"]} >= {"0", "1", "2", "3", "4", "5"}
