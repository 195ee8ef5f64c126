"""The matrix of faults: operations of caisson, of which each n-th system call of each kind fails once, by fault_tracer.

After every fault the command has succeeded or has said clearly why not; the home is in order; nothing that was there before
is lost; and the operation can be done again.
"""
import collections
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
import zlib

import boxes
import registries
from boxes import BASE, BIN, HOME, caisson

TRACER = os.path.join(boxes.setting("CAISSON_BUILD"), "tests/fault_tracer")
# How each kind of call may fail.
ERRORS = {"write": ("ENOSPC", "EIO"), "pwrite": ("ENOSPC", "EIO"), "sync": ("EIO", "ENOSPC"), "rename": ("ENOSPC", "EIO"),
          "link": ("ENOSPC", "EIO"), "open": ("EMFILE", "ENOSPC", "EIO", "ENOMEM"), "fallocate": ("ENOSPC", "EIO"), "ftruncate": ("EIO", "ENOSPC"),
          "mkdir": ("ENOSPC", "EIO"), "unlink": ("EIO", "ENOMEM"), "fork": ("ENOMEM",), "mmap": ("ENOMEM",)}
PATIENCE = 60
CODES = {0, 1, 2, 125, 126, 127}  # 1: one of several that were named failed
CRASH = re.compile(rb"terminate called|what\(\):|a bug|\[bug\]|Segmentation|Aborted|Assertion")


class Traced:
    """A command under the tracer, and what that reports. Killing the process group kills all that is traced."""

    def __init__(self, report, *arguments, fault=None):
        """`report`: a file that may be written again while something that the command left behind is traced."""
        report.unlink(missing_ok=True)
        words = [TRACER, "--below", str(HOME), "--report", str(report)]
        if fault:
            words += ["--fail", fault]
        started = time.monotonic()
        process = subprocess.Popen([*words, BIN, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=boxes.environment(), cwd="/", start_new_session=True)
        self.group, self.hung = process.pid, False
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.hung = True
            self.kill()
            out, err = process.communicate()
        self.ended = boxes.Ended(arguments, process.returncode, out, err, time.monotonic() - started)
        self.counts, self.fired = {}, None
        for line in report.read_text().splitlines() if report.exists() else ():
            word, _, rest = line.partition(" ")
            if word == "count":
                kind, number = rest.split()
                self.counts[kind] = int(number)
            elif word == "fired":
                self.fired = rest

    def kill(self):
        try:
            os.killpg(self.group, signal.SIGKILL)
        except ProcessLookupError:
            pass


def files_of_home():
    """Every name below the home but the database's, boxes' and volumes' own contents."""
    found = set()
    for directory, names, files in os.walk(HOME):
        for name in [*names, *files]:
            path = os.path.relpath(os.path.join(directory, name), HOME)
            if path.startswith(("caisson.db", "audit")) or path.endswith(".lock"):
                continue
            # A box that did not come up at its first start asks for another template at the next: that may stay.
            if not path.startswith("templates/") or "tmp" in path:
                found.add(path)
    return found


def in_order(kept_files):
    """What is wrong with the home; `kept_files`: names that may be there."""
    found = []
    opened = caisson("ls", "--all", "--format", "json")  # mends what the dead have left
    if opened.code != 0:
        return [f"the home cannot be opened: {opened!r}"]
    listed = {box["id"]: box for box in opened.json()}
    database = sqlite3.connect(f"file:{HOME / 'caisson.db'}?mode=ro", uri=True, timeout=10)
    if database.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
        found.append("the database is damaged")
    database.close()
    found += [f"record {box} without a directory" for box in listed.keys() - set(boxes.box_ids())]
    found += [f"directory {box} without a record" for box in set(boxes.box_ids()) - listed.keys()]
    found += [f"{box['name']} is {box['state']}" for box in listed.values() if box["state"] in ("creating", "starting", "stopping")]
    if kept_files is not None:
        found += [f"stays: {path}" for path in sorted(files_of_home() - kept_files)]
        found += [f"lost: {path}" for path in sorted(kept_files - files_of_home())]
        found += [f"process {process}" for process in boxes.processes()]
        if not found:
            checked = caisson("check")
            found += [] if checked.code == 0 else [repr(checked)]
    return found


def until_in_order(kept_files, seconds=15):
    deadline = time.monotonic() + seconds
    while found := in_order(kept_files):
        if time.monotonic() > deadline:
            return found
        time.sleep(0.1)
    return []


class Operation:
    """`prepare` makes what the operation needs, `words` are its arguments, `done` tells from outside whether its effect is there,
    `undo` removes it and what was prepared."""

    def __init__(self, name, words, prepare=(), undo=(), done=None, machine=False, again=None):
        self.name, self.words, self.prepared, self.undone = name, words, prepare, undo
        self.is_done, self.machine, self.again = done or (lambda: True), machine, again

    def prepare(self):
        for words in self.prepared:
            caisson(*words, timeout=PATIENCE).ok()

    def undo(self):
        """The second time it does nothing."""
        for words in self.undone:
            caisson(*words, timeout=PATIENCE)


def box_names():
    return {box["name"]: box["state"] for box in caisson("ls", "--all", "--format", "json").json()}


def volume_names():
    return set(caisson("volume", "ls", "-q").ok().lines)


def image_names():
    return {image["name"].removesuffix(":latest") for image in caisson("image", "ls", "--format", "json").json()}


class Matrix:
    def __init__(self, place, registry=None):
        """`place`: a directory for what is copied in and out."""
        self.place = place
        self.table = collections.defaultdict(collections.Counter)  # (operation, kind): outcomes
        self.bad = []
        image = registries.Image([registries.tar_of([("bin", "dir", None), ("bin/true", "file", os.urandom(70000))])], Cmd=["/bin/true"])
        self.layout = place / "layout"
        registries.write_layout(image, self.layout)
        (place / "in").mkdir()
        for number in range(3):
            (place / f"in/file{number}").write_bytes(os.urandom(3000))
        os.chmod(place, 0o777)
        self.operations = {operation.name: operation for operation in self.all_operations(registry)}
        self.kept = os.urandom(5000)
        self.make_kept()

    def make_kept(self):
        """What was acknowledged before any fault: a box, a volume with a file, images."""
        (self.place / "kept").write_bytes(self.kept)
        caisson("volume", "create", "kept").ok()
        caisson("volume", "cp", self.place / "kept", "kept:/file").ok()
        caisson("create", "--pull", "never", "--name", "kept", "-l", "a=b", "-v", "kept:/kept", BASE, "true").ok()
        self.kept_record = boxes.inspect("kept")

    def remove_kept(self):
        caisson("rm", "--force", "kept")
        caisson("volume", "rm", "kept")

    def lost(self):
        """What was acknowledged before and is not there."""
        found = []
        if boxes.inspect("kept") != self.kept_record:
            found.append("the record of the box 'kept' changed")
        if BASE not in image_names():
            found.append("an image is lost")
        copy = HOME / "volumes/named/kept/file"
        if copy.read_bytes() != self.kept:
            found.append("a volume's file changed")
        return found

    def all_operations(self, registry):
        box = ("create", "--pull", "never", "--name", "cell", "-v", "/anonymous", BASE, "sleep", "100")
        no_box, no_volume, no_image = ("rm", "--force", "cell"), ("volume", "rm", "cell"), ("image", "rm", "cell")
        made = {"prepare": [box], "undo": [no_box]}
        volume = ("volume", "create", "cell")
        filled = ("volume", "import", "cell", self.place / "in")
        source = self.place / "in/file1"
        out = self.place / "out"
        running = {"prepare": [("run", "-d", "--pull", "never", "--name", "cell", "-v", "/anonymous", BASE, "sleep", "100")],
                   "undo": [no_box], "machine": True}
        has_box = lambda: "cell" in box_names()
        has_volume = lambda: "cell" in volume_names()
        has_image = lambda: "cell" in image_names()
        state_is = lambda *states: lambda: box_names().get("cell") in states
        in_volume = lambda name: (HOME / "volumes/named/cell" / name)
        copied = lambda name: in_volume(name).exists() and in_volume(name).read_bytes() == source.read_bytes()
        yield Operation("create", box, undo=[no_box], done=has_box)
        yield Operation("create --replace", (*box[:1], "--replace", *box[1:]), done=has_box, **made)
        yield Operation("create, new disk", ("create", "--pull", "never", "--name", "cell", "cell", "true"),
                        prepare=[("image", "load", "--name", "cell", self.layout)], undo=[no_box, no_image, ("image", "prune")], done=has_box)
        yield Operation("rename", ("rename", "cell", "cell2"), prepare=[box], undo=[no_box, ("rm", "--force", "cell2")],
                        done=lambda: "cell2" in box_names())
        yield Operation("rm", ("rm", "cell"), done=lambda: not has_box(), **made)
        yield Operation("volume create", volume, undo=[no_volume], done=has_volume)
        yield Operation("volume create, disk", ("volume", "create", "--type", "disk", "--size", "64M", "cell"), undo=[no_volume], done=has_volume)
        yield Operation("volume import", filled, undo=[no_volume], done=lambda: copied("file1"))
        yield Operation("volume rm", ("volume", "rm", "cell"), prepare=[filled], undo=[no_volume], done=lambda: not has_volume())
        yield Operation("volume clone", ("volume", "clone", "cell", "cell2"), prepare=[filled], undo=[no_volume, ("volume", "rm", "cell2")],
                        done=lambda: "cell2" in volume_names())
        yield Operation("volume cp", ("volume", "cp", source, "cell:/new"), prepare=[filled], undo=[no_volume], done=lambda: copied("new"))
        yield Operation("volume attach", ("volume", "attach", "cell", "cell:/data"), prepare=[box, volume], undo=[no_box, no_volume],
                        done=lambda: any(mount.get("target") == "/data" or mount.get("path") == "/data" for mount in mounts_of("cell")))
        yield Operation("image load", ("image", "load", "--name", "cell", self.layout), undo=[no_image, ("image", "prune")], done=has_image)
        yield Operation("image import", ("image", "import", "--name", "cell", self.place / "root.tar"), undo=[no_image, ("image", "prune")], done=has_image)
        yield Operation("image rm", ("image", "rm", "cell"), prepare=[("image", "load", "--name", "cell", self.layout)],
                        undo=[no_image, ("image", "prune")], done=lambda: not has_image())
        if registry:
            yield Operation("image pull", ("image", "pull", f"{registry.name}/cell:1"), undo=[("image", "rm", f"{registry.name}/cell:1"), ("image", "prune")],
                            done=lambda: f"{registry.name}/cell:1" in image_names())
        yield Operation("logs", ("logs", "kept"))
        yield Operation("run --rm", ("run", "--rm", "--pull", "never", "-v", "/anonymous", BASE, "echo", "said"), machine=True)
        yield Operation("run -d", ("run", "-d", "--pull", "never", "--name", "cell", "-v", "/anonymous", BASE, "sleep", "100"), undo=[no_box],
                        machine=True, done=state_is("running"), again=[no_box])
        yield Operation("start", ("start", "cell"), done=state_is("running"), machine=True, **made)
        yield Operation("stop", ("stop", "-t", "0", "cell"), done=state_is("stopped", "failed"), **running)
        yield Operation("rm --force", ("rm", "--force", "cell"), done=lambda: not has_box(), **running)
        yield Operation("exec", ("exec", "cell", "true"), done=state_is("running"), **running)
        yield Operation("cp in", ("cp", source, "cell:/tmp/new"), done=state_is("running"), **running)
        yield Operation("cp out", ("cp", "cell:/etc/passwd", out), **running)

    def save_root_tar(self):
        (self.place / "root.tar").write_bytes(registries.tar_of([("file", "file", os.urandom(5000))]))

    def count(self, operation):
        """How many calls of each kind one clean run makes."""
        operation.prepare()
        traced = Traced(self.place / "report", *operation.words)
        assert traced.ended.code == 0, (operation.name, traced.ended)
        assert operation.is_done(), f"{operation.name}: nothing tells that it was done"
        operation.undo()
        return traced.counts

    def judge(self, operation, traced, files):
        """What is wrong after one fault."""
        ended, found = traced.ended, []
        if traced.hung:
            return ["it hangs"]
        said = ended.everything
        if CRASH.search(said):
            found.append("it crashed")
        if ended.code == 0:
            # A machine that is started a second time, behind a template made anew (its VMM failed, or bubblewrap in front of it),
            # ends with the tracer.
            ends_with_tracer = traced.fired is not None and re.search("qemu-system|bwrap", traced.fired) and b"making it again" in said
            if not operation.is_done() and not ends_with_tracer:
                found.append("it said that it was done, and it is not")
        elif ended.code not in CODES:
            found.append(f"its exit code is {ended.code}")
        elif not re.search(rb"^(caisson|skipped): \S.{9}", said, re.M):
            found.append("it did not say why")
        found += until_in_order(None)
        found += self.lost()
        if ended.code != 0 and not found:
            # The effect may be there, for instance if only what comes after it failed: then it need not be done again.
            for words in operation.again or ():
                caisson(*words)
            again = caisson(*operation.words, timeout=PATIENCE)
            if not operation.is_done() or (again.code != 0 and not re.search(r"there is no (box|volume|image)|no such", again.said)):
                found.append(f"again: {again!r}")
        operation.undo()
        found += until_in_order(files)
        return found

    def cell(self, operation, kind, number, error, files):
        operation.prepare()
        traced = Traced(self.place / "report", *operation.words, fault=f"{kind}:{number}:{error}")
        try:
            found = self.judge(operation, traced, files)
        except Exception as broken:  # a tool that was needed to judge does not work any more
            found = [f"{type(broken).__name__}: {broken}"]
        finally:
            traced.kill()
        if traced.fired is None:
            self.table[operation.name, kind]["not reached"] += 1
        elif not found:
            self.table[operation.name, kind]["survived" if traced.ended.code == 0 else "refused"] += 1
        if found:
            self.table[operation.name, kind]["BAD"] += 1
            self.bad.append(f"{operation.name}, {kind} {number} {error} ({traced.fired}): {'; '.join(found)}\n  {traced.ended!r}")
            print("BAD", self.bad[-1], flush=True)
            self.mend(files)
        return traced

    def mend(self, files):
        """Back to the beginning after a cell that was bad, so that the next one is judged by itself."""
        for name in box_names():
            if name != "kept":
                caisson("rm", "--force", name)
        for name in volume_names() - {"kept"}:
            caisson("volume", "rm", name)
        for path in sorted(files_of_home() - files, reverse=True):
            target = HOME / path
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target, ignore_errors=True)
            elif target.exists():
                target.unlink()

    def run(self, names=None, share=None, kinds=None, last=None):
        """All cells of the named operations, or of some kinds of calls; `share`: at most so many for each kind of call, spread
        evenly; `last`: only so many, of the last calls."""
        self.save_root_tar()
        for operation in self.operations.values():
            if names is not None and operation.name not in names:
                continue
            started = time.monotonic()
            self.count(operation)  # what is made at the first use is there then
            counts = self.count(operation)
            assert not until_in_order(None)
            files = files_of_home()
            for kind, total in counts.items():
                if kinds is not None and kind not in kinds:
                    continue
                cells = [(number, error) for number in range(1, total + 1) for error in ERRORS[kind]][-(last or 0):]
                if share is not None and len(cells) > share:
                    # Not the same ones of every operation.
                    shift = zlib.crc32(f"{operation.name} {kind}".encode()) % len(cells)
                    cells = [cells[(index * len(cells) // share + shift) % len(cells)] for index in range(share)]
                for number, error in cells:
                    self.cell(operation, kind, number, error, files)
            print(f"{operation.name}: {time.monotonic() - started:.0f} s", flush=True)

    def printed(self):
        kinds = list(ERRORS)
        lines = [f"{'operation':22}" + "".join(f"{kind:>11}" for kind in kinds)]
        for name in dict.fromkeys(name for name, _ in self.table):
            words = []
            for kind in kinds:
                outcomes = self.table.get((name, kind))
                words.append("-" if not outcomes else f"{outcomes['refused']}+{outcomes['survived']}" + (f"!{outcomes['BAD']}" if outcomes["BAD"] else ""))
            lines.append(f"{name:22}" + "".join(f"{word:>11}" for word in words))
        total = sum((outcomes for outcomes in self.table.values()), collections.Counter())
        return "\n".join([*lines, f"a+b: a refused with a clear error and done again, b survived; !n: bad. In all {dict(total)}"])


def mounts_of(box):
    record = boxes.inspect(box)
    return record.get("volumes") or record.get("mounts") or []
