"""What bench/share does inside the box: the work, its times, and the messages that it costs.

Arguments: rounds, small files, bytes of the large file, 1 or 0 for a last round that counts messages, and the places, each a
directory. Every line of its output is a list in JSON: [round, place, {what: microseconds an operation or MB/s}], and in the
counting round [round, place, {what: {message: times an operation}}].

It comes over standard input and uses nothing of caisson's.
"""
import json
import os
import re
import shutil
import sys
import time

CONTENT = b"x" * 4096
BLOCK = b"y" * (1 << 20)


class Clock:
    """Times work: microseconds an operation."""

    def __call__(self, work, count):
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1e6 / count


# FUSE's numbers are its protocol's; the tracepoint has only their names.
FUSE = {1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 4: "SETATTR", 9: "MKDIR", 10: "UNLINK", 11: "RMDIR", 14: "OPEN", 15: "READ", 16: "WRITE",
        17: "STATFS", 18: "RELEASE", 20: "FSYNC", 21: "SETXATTR", 22: "GETXATTR", 25: "FLUSH", 27: "OPENDIR", 28: "READDIR",
        29: "RELEASEDIR", 34: "ACCESS", 35: "CREATE", 36: "INTERRUPT", 40: "POLL", 42: "BATCH_FORGET", 44: "READDIRPLUS"}


class Messages:
    """Counts what the guest's kernel sends to the server of a place while it works, by a histogram of its own tracepoints."""

    EVENTS = {"fuse": ("fuse/fuse_request_send", "opcode"), "9p": ("9p/9p_client_req", "type")}
    TRACING = "/sys/kernel/tracing"

    def __init__(self, place):
        with open("/proc/self/mounts") as mounts:
            found = [line.split()[2] for line in mounts if line.split()[1] == place]
        kind = "9p" if found and found[-1] == "9p" else "fuse"
        event, self.key = self.EVENTS[kind]
        self.event = f"{self.TRACING}/events/{event}"
        # A histogram of every connection would mix the share and virtiofs; FUSE's are told apart by the mount's device.
        self.keys = f"connection,{self.key}" if kind == "fuse" else self.key
        self.connection = os.minor(os.stat(place).st_dev)
        with open(self.event + "/format") as file:
            named = re.findall(r'\{ *(\d+), *"(\w+)" *\}', file.read())
        self.names = FUSE if kind == "fuse" else {int(number): name.removeprefix("P9_") for number, name in named}

    def __call__(self, work, count):
        self._trigger("hist:keys=" + self.keys)
        try:
            work()
            return {name: times / count for name, times in self._read().items()}
        finally:
            self._trigger("!hist:keys=" + self.keys)

    def _trigger(self, text):
        with open(self.event + "/trigger", "w") as file:
            file.write(text)

    def _read(self):
        found = {}
        with open(self.event + "/hist") as file:
            for line in file:
                keys = dict((name, int(value)) for name, value in re.findall(r"(\w+): +(\d+)", line))
                if self.key in keys and keys.get("connection", self.connection) == self.connection:
                    name = self.names.get(keys[self.key], str(keys[self.key]))
                    found[name] = found.get(name, 0) + keys["hitcount"]
        return found


def small(place, files, measure):
    """Small files, one after the other in one directory."""
    top = place + "/bench"
    os.mkdir(top)
    names = ["%s/f%05d" % (top, number) for number in range(files)]

    def create():
        for name in names:
            fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            os.write(fd, CONTENT)
            os.close(fd)

    def stat():
        for name in names:
            os.stat(name)

    def read():
        for name in names:
            fd = os.open(name, os.O_RDONLY)
            os.read(fd, 4096)
            os.close(fd)

    def write():
        for name in names:
            fd = os.open(name, os.O_WRONLY)
            os.pwrite(fd, CONTENT, 0)
            os.close(fd)

    def readdir():
        for _ in os.scandir(top):
            pass

    def walk():
        for entry in os.scandir(top):
            entry.stat(follow_symlinks=False)

    return {"create 4k": measure(create, files), "stat": measure(stat, files), "open read close": measure(read, files),
            "open write close": measure(write, files), "readdir, an entry": measure(readdir, files),
            "readdir and stat, an entry": measure(walk, files), "rm -r, a file": measure(lambda: shutil.rmtree(top), files)}


def large(place, size, measure):
    """One large file by blocks of 1 MiB. What was written is not read back from the guest's memory."""
    name = place + "/large"

    def write():
        with open(name, "wb", buffering=0) as file:
            for _ in range(size // len(BLOCK)):
                file.write(BLOCK)

    def sync():
        fd = os.open(name, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def read():
        fd = os.open(name, os.O_RDONLY)
        while os.read(fd, len(BLOCK)):
            pass
        os.close(fd)

    blocks = size // len(BLOCK)
    took = [measure(work, blocks) for work in (write, sync, read)]
    os.unlink(name)
    return dict(zip(("sequential write", "fsync of it", "sequential read"), took))


def rates(row):
    """From microseconds a MiB to MB/s. The disk's own speed is told apart from the way to it, and once with it."""
    write, sync, read = row["sequential write"], row["fsync of it"], row["sequential read"]
    return {"sequential write": (1 << 20) / write, "sequential write + fsync": (1 << 20) / (write + sync), "sequential read": (1 << 20) / read}


def main():
    rounds, files, size, counts = (int(word) for word in sys.argv[1:5])
    places = sys.argv[5:]
    for number in range(rounds + 1):
        # No place is always the one after the same other.
        for place in places[number % len(places):] + places[:number % len(places)]:
            row = small(place, files, Clock())
            row.update(rates(large(place, size, Clock())))
            print(json.dumps([number, place, row]), flush=True)
    if counts:
        for place in places:
            try:
                messages = Messages(place)
                row = small(place, min(files, 1000), messages)
                row.update(large(place, min(size, 64 << 20), messages))
            except OSError as error:
                row = {"error": str(error)}
            print(json.dumps([-1, place, row]), flush=True)


main()
