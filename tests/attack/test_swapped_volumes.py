"""Another process of the same user exchanges a volume's directory and a link to somewhere else, as fast as it can, while
boxes start with the volume, get it while they run, and while it is looked at and removed. What is mounted is the volume or
nothing, and nothing of the other place is read or changed."""
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from boxes import BASE, HOME, WORK, caisson, start, wait_until_gone

VOLUMES = HOME / "volumes"

# Prints how often it did it when it is told to stop.
SWAPPER = """
import ctypes, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
one, other = (path.encode() for path in sys.argv[1:3])
swaps, going = 0, True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
print("going", flush=True)
while going:
    swaps += libc.renameat2(-100, one, -100, other, 2) == 0
print(swaps, flush=True)
"""


class Swapping:
    """A process that exchanges the volume's directory and a link to `goal`."""

    def __init__(self, directory, goal):
        self.directory, self.link = directory, WORK / "swapped"
        self.link.symlink_to(goal)
        self.process = subprocess.Popen([sys.executable, "-c", SWAPPER, directory, self.link], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "going\n"
        self.swaps = None

    def __enter__(self):
        return self

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.swaps = int(self.process.stdout.readline())
        self.process.wait()

    def __exit__(self, *_):
        if self.swaps is None:
            self.stop()
        self.process.stdout.close()
        places = [place for place in (self.directory, self.link) if place.is_symlink()]
        for place in places:
            place.unlink()
        if self.link.is_dir():
            if os.path.lexists(self.directory):
                self.directory.rmdir()
            self.link.rename(self.directory)


@pytest.fixture
def directory(nothing_stays):
    """A volume with one file: its directory."""
    caisson("volume", "create", "goal").ok()
    path = pathlib.Path(caisson("volume", "inspect", "--format", "json", "goal").json()[0]["path"])
    (path / "mine").write_text("content\n")
    os.chown(path / "mine", path.stat().st_uid, path.stat().st_gid)
    yield path
    for box in caisson("ls", "--all", "-q").ok().lines:
        caisson("rm", "--force", box)
    caisson("volume", "rm", "goal")
    wait_until_gone(5)
    for name in ("named", "boxes", "trash"):
        assert os.listdir(VOLUMES / name) == [], name


def test_boxes_start_with_the_volume_or_not_at_all(directory):
    seen, refused = 0, []
    with Swapping(directory, "/etc") as swapping:
        give_up = time.monotonic() + 50
        while time.monotonic() < give_up and (seen < 3 or len(refused) + seen < 24):
            ended = caisson("run", "--rm", "--pull", "never", "-v", "goal:/data:ro", BASE, "ls", "-A", "/data")
            if ended.code == 0:
                assert ended.lines == ["mine"], ended
                seen += 1
            else:
                assert ended.code == 125 and "goal" in ended.said and ended.out == b"", ended
                refused.append(ended.said)
        swapping.stop()
        print(f"{swapping.swaps} swaps, {seen} boxes with the volume, {len(refused)} refused")
        assert swapping.swaps > 100000 and seen >= 3 and refused
    assert (directory / "mine").read_text() == "content\n"


def test_a_box_that_runs_gets_the_volume_or_nothing(directory):
    start("--name", "gets", BASE, "sleep", "600")
    seen, refused = 0, 0
    with Swapping(directory, "/etc") as swapping:
        give_up = time.monotonic() + 50
        while time.monotonic() < give_up and (seen < 5 or refused + seen < 40):
            attached = caisson("volume", "attach", "gets", "goal:/data")
            if attached.code != 0:
                assert "goal" in attached.said, attached
                refused += 1
                continue
            assert caisson("exec", "gets", "ls", "-A", "/data").ok().lines == ["mine"]
            caisson("volume", "detach", "gets", "/data").ok()
            seen += 1
        swapping.stop()
        print(f"{swapping.swaps} swaps, {seen} attached, {refused} refused")
        assert swapping.swaps > 100000 and seen >= 5 and refused
    assert (directory / "mine").read_text() == "content\n"
    assert "/data" not in caisson("exec", "gets", "cat", "/proc/mounts").text


def test_nothing_behind_the_link_is_counted_or_removed(directory):
    victim = WORK / "victim"
    subprocess.run(["rm", "-rf", victim], check=True)
    (victim / "deep").mkdir(parents=True)
    for path in (victim / "precious", victim / "deep/precious"):
        path.write_bytes(b"x" * (1 << 20))
    owner = directory.stat()
    for path in (victim, *victim.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    try:
        with Swapping(directory, victim) as swapping:
            for _ in range(10):
                caisson("volume", "ls")
                inspected = caisson("volume", "inspect", "--format", "json", "goal")
                if inspected.code == 0:
                    assert (inspected.json()[0].get("used_bytes") or 0) < 1 << 20, inspected
                used = caisson("volume", "df")
                assert "MiB" not in "".join(line for line in used.lines if "goal" in line), used
                caisson("volume", "rm", "goal")
            swapping.stop()
        assert sorted(path.name for path in victim.iterdir()) == ["deep", "precious"]
        assert (victim / "deep/precious").stat().st_size == (victim / "precious").stat().st_size == 1 << 20
    finally:
        subprocess.run(["rm", "-rf", victim], check=True)
