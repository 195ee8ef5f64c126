"""Looking at what a hostile guest costs its host: the most memory that its supervisor and its VMM ever held, the box that
runs beside it, and what all boxes share."""
import os
import pathlib
import re
import time

from boxes import ASSETS, BASE, HOME, MEMORY_FACTOR, Started, caisson, inspect, of_role, start

GUEST_MIB = 256
# QEMU's limit of data (vmm_jail()): the guest's memory, translated code, itself. Measured: mostly 60 to 230.
MOST_VMM_MIB = GUEST_MIB + 2048
MOST_SHIM_MIB = 48 * MEMORY_FACTOR  # measured: 15 to 16


def highest_mib(process):
    """The most that a process ever held (VmHWM)."""
    found = re.search(r"(\d+)", process.status().get("VmHWM", ""))
    return int(found[1]) / 1024 if found else 0


def fingerprint():
    """The files that boxes share, and the assets."""
    found = {}
    for top in (HOME / "templates", HOME / "disks", HOME / "images", pathlib.Path(ASSETS)):
        for path in top.rglob("*"):
            info = path.lstat()
            if not path.is_dir():
                found[str(path)] = (info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns)
    return found


class Sibling:
    """A box of somebody else's that must not notice anything."""

    def __init__(self):
        self.id = start("--name", "sibling", BASE, "sleep", "100000")
        caisson("exec", self.id, "sh", "-c", "echo mine > /kept").ok()
        self.processes = {self.record()["supervisor_pid"], self.record()["vmm_pid"]}

    def record(self):
        return inspect(self.id)

    def is_well(self):
        assert caisson("exec", self.id, "cat", "/kept").ok().text == "mine\n"
        record = self.record()
        assert record["state"] == "running" and {record["supervisor_pid"], record["vmm_pid"]} == self.processes, record


class Life:
    """One box, watched until it ends, its time is over or look(BOX) says that enough was seen; then it is asked to end, and
    asked again."""

    def __init__(self, arguments, seconds, sibling, env, look=lambda box: None, before_end=lambda: None, **streams):
        self.vmm_mib = self.shim_mib = 0.0
        self.box = None
        began = time.monotonic()
        with Started("run", *arguments, env=env, **streams) as client:
            while client.process.poll() is None and time.monotonic() - began < seconds:
                for name in os.listdir(HOME / "boxes"):
                    if name != sibling.id:
                        self.box = name
                if self.box:
                    self.sample(sibling)
                    if look(self.box):
                        break
                time.sleep(0.1)
            self.by_itself = client.process.poll() is not None
            before_end()
            asked = time.monotonic()
            for _ in range(3):
                if client.process.poll() is None:
                    client.send(15)
                    time.sleep(0.3)
            self.ended = client.end(timeout=30)
            self.seconds_to_end = time.monotonic() - asked

    def sample(self, sibling):
        for process in of_role("vmm", self.box):
            self.vmm_mib = max(self.vmm_mib, highest_mib(process))
        for process in of_role("shim"):
            if process.pid not in sibling.processes:
                self.shim_mib = max(self.shim_mib, highest_mib(process))

    def is_bounded(self):
        """0: it was over before anybody had looked."""
        assert self.vmm_mib < MOST_VMM_MIB and self.shim_mib < MOST_SHIM_MIB, self
        assert self.seconds_to_end < 10, f"a stop waits for no guest: {self}"

    def __repr__(self):
        said = self.ended.said.replace("\n", " ")
        return (f"QEMU {self.vmm_mib:.0f} MiB, shim {self.shim_mib:.0f} MiB, {'ended by itself' if self.by_itself else 'was stopped'} "
                f"with {self.ended.code}: {said[:200]}")
