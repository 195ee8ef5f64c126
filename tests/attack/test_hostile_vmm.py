"""A taken-over QEMU cannot outlive its box nor keep caisson from ending it: hostile_vmm.cc runs in QEMU's place."""
import os
import pathlib
import shutil
import stat
import subprocess
import time

import pytest
from boxes import BASE, BIN, IS_ROOT, MEMORY_FACTOR, WORK, Started, caisson, environment, of_role, shim_of, until, wait_until_gone

PROGRAM = pathlib.Path(BIN).parent.parent / "tests/hostile_vmm"


@pytest.fixture
def hostile():
    """Makes assets with a hostile VMM and returns the environment that takes them."""
    made = []

    def make(behaviour):
        place = WORK / f"hostile-{behaviour}"
        made.append(place)
        shutil.rmtree(place, ignore_errors=True)
        for name in ("kernel/modules", "vmm/usr/bin", "vmm/usr/lib", "vmm/usr/share/qemu", "vmm/usr/share/seabios",
                     "vmm/template", "vmm/box", "vmm/disk", "vmm/run"):
            (place / name).mkdir(parents=True)
        for name, content in (("vmm.version", "10"), ("kernel/version", "6"), ("kernel/vmlinux", "none"),
                              ("kernel/modules.list", ""), ("vmm/behaviour", behaviour)):
            (place / name).write_text(content + "\n")
        shutil.copy(PROGRAM, place / "vmm/usr/bin/qemu-system-x86_64")
        for path in (place, *place.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.name.startswith("qemu") else 0o644)
        return environment(CAISSON_ASSETS=str(place), CAISSON_ACCEL="tcg")

    yield make
    for place in made:
        shutil.rmtree(place)


def run_until_timeout(env, limit):
    """A box of the hostile VMM that is to be killed after `limit` seconds."""
    ended = caisson("run", "--rm", "--cold", "--timeout", f"{limit}s", BASE, "true", env=env)
    assert ended.code == 124, ended
    return ended


def test_a_vmm_that_cut_every_tie_ends_with_its_box(hostile):
    ended = run_until_timeout(hostile("outlive"), 1)
    assert ended.seconds < 4, ended
    wait_until_gone(0.5)
    assert caisson("ls", "--all", "--format", "json").json() == []


def test_a_vmm_that_cut_every_tie_is_found_when_its_supervisor_was_killed(hostile):
    env = hostile("outlive")
    with Started("run", "--rm", "--cold", BASE, "true", env=env) as box:
        deadline = time.monotonic() + 10
        shim = None
        while time.monotonic() < deadline and not shim:
            found = shim_of(box.pid)
            if found and pathlib.Path(f"/proc/{found}/task/{found}/children").read_text().split():
                shim = found
        time.sleep(1)  # for the VMM to do its worst; it cannot be asked
        os.kill(shim, 9)
        box.process.kill()
        box.process.wait()
        # Nobody is left who knows the machine; the next process that opens the home looks for it.
        caisson("ls").ok()
        wait_until_gone(2)


# ---- what it takes on the host ----

needs_limits = pytest.mark.skipif(not IS_ROOT, reason="only root may make control groups everywhere; the numbers are unit-tested")


@needs_limits
@pytest.mark.parametrize("behaviour,why", [("eat_memory", "the VMM was killed: it reached its memory limit on the host"),
                                           ("fill_with_threads", "reached its limit of 129 processes and threads")])
def test_a_vmm_that_takes_too_much_dies_alone_and_says_why(hostile, behaviour, why):
    with Started("run", "--rm", "-i", BASE, "sh", "-c", "echo ready; read line; echo $line", stdin=subprocess.PIPE) as neighbour:
        neighbour.line()
        ended = caisson("run", "--rm", "--cold", "--timeout", "30s", BASE, "true", env=hostile(behaviour))
        assert ended.code == 125 and why in ended.said, ended
        neighbour.process.stdin.write(b"alive\n")
        assert neighbour.line() == b"alive\n"
    wait_until_gone(2)


def test_a_console_that_never_stops_does_not_delay_the_end(hostile):
    ended = run_until_timeout(hostile("flood_console"), 1)
    assert ended.seconds < 4, ended


@pytest.mark.parametrize("what", ["lines", "events"])
def test_a_control_socket_that_never_stops_ends_the_box(hostile, what):
    ended = caisson("run", "--rm", "--cold", "--timeout", "5s", BASE, "true", env=hostile(f"flood_qmp_{what}"))
    assert ended.code == 125 and "lines in a second" in ended.said, ended
    assert ended.seconds < 4, ended


def test_a_vmm_that_makes_a_forbidden_call_is_killed_and_the_box_says_why(hostile):
    env = hostile("forbidden_call")
    ended = caisson("run", "--rm", "--cold", BASE, "true", env=env)
    assert ended.code == 125 and "the VMM was killed by its system call filter" in ended.said, ended
    # A box that stays keeps it.
    caisson("create", "--cold", "--name", "forbidden", BASE, "true", env=env).ok()
    try:
        started = caisson("start", "forbidden", env=env)
        assert started.code == 125 and "system call filter" in started.said, started
        shown = caisson("inspect", "--format", "json", "forbidden", env=env).json()
        assert "the VMM was killed by its system call filter" in str(shown), shown
        listed = caisson("ls", "--all", env=env)
        assert "failed" in listed.text, listed
    finally:
        caisson("rm", "--force", "forbidden", env=env)


# ---- what it says to the server of its box's volumes ----

# Everything that changes something.
WRITES = ["create", "make_temporary", "make_device", "make_directory", "make_link", "link", "remove_file", "remove_directory", "rename_old",
          "rename", "open_to_write", "open_to_empty", "resize", "change_mode", "change_owner", "change_times", "set_attribute",
          "remove_attribute", "write", "allocate", "punch_hole", "copy"]


@pytest.fixture
def volume(nothing_stays):
    """A volume with a file, a directory, a link out of it and a pipe; its directory on the host."""
    caisson("volume", "create", "goal").ok()
    directory = pathlib.Path(caisson("volume", "inspect", "--format", "json", "goal").json()[0]["path"])
    (directory / "f").write_text("content\n")
    (directory / "d").mkdir(mode=0o700)
    (directory / "link").symlink_to("/etc")
    os.mkfifo(directory / "pipe", 0o600)
    owner = directory.stat()
    for path in directory.iterdir():
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    (directory / "f").chmod(0o600)
    yield directory
    for box in caisson("ls", "--all", "-q").ok().lines:
        caisson("rm", "--force", box)
    caisson("volume", "rm", "goal").ok()


def facts_of(directory):
    return {path.name: (path.lstat().st_mode, path.lstat().st_uid, path.lstat().st_nlink, path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in [directory, *directory.iterdir()]}


def said_by(hostile, behaviour, *options):
    """What the hostile VMM of a box reports, as a dictionary."""
    caisson("run", "-d", "--cold", "--name", "goes", *options, BASE, "sleep", "60", env=hostile(behaviour)).ok()
    until(lambda: "end reached" in caisson("logs", "--source", "console", "goes").text, 20, lambda: caisson("logs", "--source", "console", "goes"))
    lines = caisson("logs", "--source", "console", "goes").text.replace("\r", "").splitlines()
    return dict(line.rpartition(" ")[::2] for line in lines)


def test_a_taken_over_vmm_changes_nothing_of_a_read_only_volume(hostile, volume):
    before = facts_of(volume)
    said = said_by(hostile, "share_read_only", "-v", "goal:/g:ro")
    assert "found" in said.values(), said
    assert {name: said.get(name) for name in WRITES} == dict.fromkeys(WRITES, "EROFS")
    assert facts_of(volume) == before and (volume / "f").read_text() == "content\n"
    refused = {name: result for name, result in said.items() if name.startswith(("look_up", "open_"))}
    assert not [name for name, result in refused.items() if result == "ok"], refused
    assert said["guessed"] == "0", said


@pytest.fixture
def disks(nothing_stays):
    paths = {}
    for name in ("fixed", "free"):
        caisson("volume", "create", "--type", "disk", "--size", "64M", name).ok()
        paths[name] = pathlib.Path(caisson("volume", "inspect", "--format", "json", name).json()[0]["path"])
    yield paths
    for box in caisson("ls", "--all", "-q").ok().lines:
        caisson("rm", "--force", box)
    for name in paths:
        caisson("volume", "rm", name).ok()


def test_nor_of_a_read_only_disk_nor_does_it_let_go_of_a_lock(hostile, disks):
    before = (disks["fixed"].read_bytes(), disks["fixed"].stat())
    said = said_by(hostile, "disks", "-v", "fixed:/a:ro", "-v", "free:/b")
    assert said["read"] == said["write_the_other"] == said["keeps_lock"] == "ok", said
    assert said["unlock"] == "ENOSYS" and said["a_third"] == "ENOENT", said
    tried = ["open_to_write", "open_to_empty", "resize", "resize_descriptor", "change_mode", "change_times", "remove", "rename", "link", "write_descriptor"]
    assert not [name for name in tried if said[name] == "ok"], said
    now = disks["fixed"].stat()
    assert disks["fixed"].read_bytes() == before[0] and (now.st_mode, now.st_mtime_ns, now.st_nlink) == (before[1].st_mode, before[1].st_mtime_ns, before[1].st_nlink)
    assert disks["free"].read_bytes()[4096:4100] == b"mine"
    refused = caisson("run", "--rm", "-v", "free:/b", BASE, "true")
    assert refused.code == 125 and "in use by box goes" in refused.said, refused


def test_nor_owners_modes_and_kinds_of_a_writable_one(hostile, volume):
    owner = volume.stat().st_uid
    said = said_by(hostile, "share_writable", "-v", "goal:/g")
    assert said["create"] == said["make_device"] == said["make_directory"] == said["make_link"] == said["link"] == "ok", said
    assert said["change_mode"] == said["change_owner"] == "ok", said
    for name in ("trusted.x", "system.posix_acl_access", "user.caisson.metadata"):
        assert said["set " + name] == "EOPNOTSUPP", said
    # The capabilities of a program are the guest's, beside the file.
    assert all(name.startswith("user.") for name in os.listxattr(volume / "f")), os.listxattr(volume / "f")
    assert said["set user.x"] == "ok" and "ok" not in (said["resize_link"], said["open_link"]), said
    for path in volume.iterdir():
        info = path.lstat()
        assert info.st_uid == owner, path
        kind, mode = stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode)
        if path.name in ("link", "new-link"):
            assert kind == stat.S_IFLNK
        elif path.name == "pipe":
            assert kind == stat.S_IFIFO  # the host's own
        else:
            assert (kind, mode) in ((stat.S_IFREG, 0o600), (stat.S_IFDIR, 0o700)), (path, oct(info.st_mode))
    assert stat.S_ISREG((volume / "device").lstat().st_mode) and os.readlink(volume / "new-link") == "/etc/shadow"


# Who hangs up has no files any more, and nobody else is the worse for it.
@pytest.mark.parametrize("behaviour,code,why", [
    ("share_garbage", 125, "the server of the box's volumes ended: the guest sent a file system message of"),
    ("share_hang_up", 124, "the command did not end in time")])
def test_a_vmm_that_speaks_nonsense_to_the_server_loses_its_box_alone(hostile, volume, behaviour, code, why):
    with Started("run", "--rm", "-i", "-v", "goal:/g", BASE, "sh", "-c", "echo ready; read line; cat /g/f", stdin=subprocess.PIPE) as neighbour:
        neighbour.line()
        ended = caisson("run", "--rm", "--cold", "--timeout", "4s", "-v", "goal:/g", BASE, "true", env=hostile(behaviour))
        assert ended.code == code and why in ended.said, ended
        neighbour.process.stdin.write(b"go on\n")
        assert neighbour.line() == b"content\n"
    wait_until_gone(2)


def test_a_volume_is_taken_from_a_guest_that_does_not_let_go_of_it(hostile, volume):
    caisson("run", "-d", "--cold", "--name", "goes", "-v", "goal:/g", BASE, "sleep", "60", env=hostile("share_keep")).ok()

    def said():
        return caisson("logs", "--source", "console", "goes").text

    until(lambda: "found" in said(), 10)
    detached = caisson("volume", "detach", "goes", "/g")  # it does not even answer
    assert detached.code != 0 and "does not say" in detached.said, detached
    assert "read" not in said()
    caisson("volume", "detach", "--force", "goes", "/g").ok()
    until(lambda: "end reached" in said(), 10, said)
    answers = dict(line.split(" ") for line in said().replace("\r", "").splitlines() if " " in line)
    assert "ok" not in (answers[name] for name in ("read", "attributes", "look_up", "look_up_in_root", "make")), answers
    assert sorted(path.name for path in volume.iterdir()) == ["d", "f", "link", "pipe"]
    assert caisson("volume", "inspect", "--format", "json", "goal").json()[0]["boxes"] == []


# Of the server's memory, in MiB: what messages under way and what a guest knows may take, with room to spare.
MOST_MEMORY = 200


@pytest.mark.parametrize("behaviour", ["share_never_read", "share_open"])
def test_a_vmm_that_floods_the_server_takes_no_memory_and_hinders_nobody(hostile, volume, behaviour):
    with Started("run", "--rm", "-i", "-v", "goal:/g", BASE, "sh", "-c", "echo ready; read line; cat /g/f", stdin=subprocess.PIPE) as neighbour:
        neighbour.line()
        others = {process.pid for process in of_role("share")}
        with Started("run", "--rm", "--cold", "--timeout", "6s", "-v", "goal:/g", BASE, "true", env=hostile(behaviour)) as flood:
            until(lambda: [process for process in of_role("share") if process.pid not in others], 5)
            server = next(process for process in of_role("share") if process.pid not in others)
            most = 0
            while flood.process.poll() is None:
                most = max(most, int(server.status().get("VmRSS", "0 kB").split()[0]) // 1024)
                time.sleep(0.05)
            assert most < MOST_MEMORY * MEMORY_FACTOR, f"the server of volumes took {most} MiB"
            assert flood.process.returncode in (124, 125)
        neighbour.process.stdin.write(b"go on\n")
        assert neighbour.line() == b"content\n"
    wait_until_gone(2)
