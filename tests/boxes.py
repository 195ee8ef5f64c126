"""What the black-box tests share: running caisson in the test home, and looking for what a box leaves behind.

The environment names what is tested:
  CAISSON_BIN        the caisson program
  CAISSON_ASSETS     the VMM, the guest kernel and the base image (tools/setup/assets)
  CAISSON_TEST_HOME  a home that holds caisson/base; its parent directory holds the tiny image (tests/vm_ring setup)
"""
import glob
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

BASE = "caisson/base"
TINY = "test/tiny"  # a shell and a few programs, with a configuration that differs from every default


def setting(name):
    value = os.environ.get(name, "")
    if not value:
        raise RuntimeError(f"{name} is not set; run these tests with ctest, or tests/vm_ring")
    return value


BIN = setting("CAISSON_BIN")
ASSETS = setting("CAISSON_ASSETS")
HOME = pathlib.Path(setting("CAISSON_TEST_HOME"))
WORK = HOME.parent
TINY_ARCHIVE = WORK / "tiny.tar"
IS_ROOT = os.geteuid() == 0
# A sanitizer keeps shadows and freed memory: what a process may hold is another question then.
SANITIZED = b"__asan_init" in pathlib.Path(BIN).read_bytes()
MEMORY_FACTOR = 4 if SANITIZED else 1


def environment(**more):
    """Nothing of the tester's but what programs need to run."""
    result = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(WORK), "LC_ALL": "C.UTF-8",
              "CAISSON_HOME": str(HOME), "CAISSON_ASSETS": ASSETS,
              # No box reaches this machine's network unless its test has made one of its own: tests/net.
              "CAISSON_NET": "none"}
    if "CAISSON_ACCEL" in os.environ:
        result["CAISSON_ACCEL"] = os.environ["CAISSON_ACCEL"]
    result.update(more)
    return result


class Ended:
    """How a command ended: code (negative: killed by a signal), out and err as bytes, seconds."""

    def __init__(self, arguments, code, out, err, seconds):
        self.arguments, self.code, self.out, self.everything, self.seconds = arguments, code, out, err, seconds

    @property
    def text(self):
        return self.out.decode()

    @property
    def err(self):
        """Standard error, but for the one line that depends on host and user: whether control groups limit the box is
        what test_limits.py looks at, in `said`."""
        return re.sub(rb"^caisson: the host does not limit [^\n]*\n", b"", self.everything, flags=re.M)

    @property
    def said(self):
        return self.everything.decode()

    @property
    def lines(self):
        return self.text.splitlines()

    def ok(self):
        """Itself, once it is known to have succeeded."""
        assert self.code == 0, self
        return self

    def json(self):
        return json.loads(self.ok().out)

    def __repr__(self):
        return (f"{' '.join(map(str, self.arguments))} -> {self.code} after {self.seconds:.2f} s\n"
                f"stdout: {self.out[:4000]!r}\nstderr: {self.everything[:4000].decode(errors='replace')}")


def assets_but(part, place):
    """The assets in a directory made anew, as links, without one part of them."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o755)
    for entry in pathlib.Path(ASSETS).iterdir():
        if entry.name != part:
            (place / entry.name).symlink_to(entry)
    return place


def caisson(*arguments, input=None, stdin=None, timeout=60, env=None, cwd="/", program=BIN):
    """Runs caisson to its end. Without input or stdin its standard input is empty."""
    started = time.monotonic()
    if input is None and stdin is None:
        stdin = subprocess.DEVNULL
    done = subprocess.run([program, *map(str, arguments)], input=input, stdin=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=timeout, env=env or environment(), cwd=cwd)
    return Ended(arguments, done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def run(*arguments, **more):
    """caisson run --rm ..., which asks no registry."""
    return caisson("run", "--rm", "--pull", "never", *arguments, **more)


def start(*arguments, **more):
    """caisson run -d ..., which asks no registry: the box's id."""
    return caisson("run", "-d", "--pull", "never", *arguments, **more).ok().text.strip()


def inspect(box):
    return caisson("inspect", "--format", "json", box).json()[0]


def listed(*options):
    """All boxes by name."""
    return {box["name"]: box for box in caisson("ls", "--all", "--format", "json", *options).json()}


def until(condition, seconds=10, what=None):
    """The first answer of `condition` that is true, within a deadline."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what() if callable(what) else what or condition}"
        time.sleep(0.02)


def until_state(box, *states, seconds=15):
    """The box's record once it is in one of the states."""
    seen = {}

    def reached():
        seen.update(inspect(box))
        return seen if seen["state"] in states else None

    return until(reached, seconds, lambda: f"{states}, it is {seen['state']}: {seen['reason']}")


def pipeline(text, timeout=30):
    """A shell command of the host in which $0 is caisson. All of it is killed when it takes too long."""
    started = time.monotonic()
    process = subprocess.Popen(["sh", "-c", text, BIN], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=environment(), cwd="/", start_new_session=True)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Ended([text], process.returncode, out, err, time.monotonic() - started)


def script(text, *options, image=BASE, **more):
    """Runs a shell script in a box; the box must succeed."""
    return run(*options, image, "sh", "-c", text, **more).ok()


def sections(text):
    """Output of a script that prints '## NAME' before each answer, as a dictionary."""
    parts = re.split(r"^## (.*)\n", text, flags=re.M)
    return {name: body.rstrip("\n") for name, body in zip(parts[1::2], parts[2::2])}


def at_best(attempt, seconds, tries=3):
    """The first of a few attempts that took less than `seconds`, else the last: a promise about time holds on a
    machine that is not busy with something else."""
    for _ in range(tries):
        result = attempt()
        if result.seconds < seconds:
            break
    return result


class Started:
    """A caisson command that runs beside the test. Leaving the `with` block kills it."""

    def __init__(self, *arguments, env=None, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                 process_group=None, program=BIN):
        self.process = subprocess.Popen([program, *map(str, arguments)], stdin=stdin, stdout=stdout, stderr=stderr,
                                        env=env or environment(), cwd="/", bufsize=0, process_group=process_group)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()

    @property
    def pid(self):
        return self.process.pid

    def send(self, number):
        self.process.send_signal(number)

    def line(self, timeout=30):
        """The next line of output, with a deadline."""
        collected = bytearray()
        alarm = threading.Timer(timeout, self.process.kill)
        alarm.start()
        try:
            while not collected.endswith(b"\n"):
                byte = self.process.stdout.read(1)
                if not byte:
                    said = self.process.stderr.read() if self.process.stderr else b""
                    raise AssertionError(f"output ended after {bytes(collected)!r}; stderr: {said.decode(errors='replace')}")
                collected += byte
        finally:
            alarm.cancel()
        return bytes(collected)

    def end(self, timeout=30):
        """Waits for the end; what is left of the output comes with it."""
        started = time.monotonic()
        out, err = self.process.communicate(timeout=timeout)
        return Ended(self.process.args[1:], self.process.returncode, out or b"", err or b"", time.monotonic() - started)


# ---- what exists on the host ----

def _read(path):
    try:
        return pathlib.Path(path).read_bytes()
    except OSError:
        return b""


def _links(pid):
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return None
    found = []
    for name in names:
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            pass
    return found


def lineage(pid):
    """The numbers of a process, of its parent, its parent's parent and so on; not of the first of all."""
    found = []
    while pid > 1:
        found.append(pid)
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        pid = int(fields[1]) if fields else 0
    return found


class Process:
    """One process of the host that has to do with the test home."""

    def __init__(self, pid):
        self.pid = pid
        self.arguments = _read(f"/proc/{pid}/cmdline").split(b"\0")
        self.mounts = _read(f"/proc/{pid}/mountinfo")
        links = _links(pid)
        self.links = links or []
        # A process that may not be dumped shows its files to root alone; then its program tells where it belongs.
        self.closed = links is None
        program = os.path.basename(self.arguments[0])
        self.role = {b"qemu-system-x86_64": "vmm", b"bwrap": "bwrap", b"caisson-shim": "shim", b"caisson-launcher": "launcher", b"caisson-listener": "listener", b"caisson": "cli",
                     b"caisson-unpack": "unpack", b"caisson-fetch": "fetch", b"caisson-enter": "enter", b"caisson-share": "share",
                     b"caisson-netns": "netns", b"caisson-netd": "netd"}.get(program, program.decode(errors="replace"))
        # Without a jail the VMM is started by its own dynamic loader.
        if self.role.startswith("ld-linux") and any(word.endswith(b"/qemu-system-x86_64") for word in self.arguments):
            self.role = "vmm"

    def mentions(self, marker):
        marker = os.fsencode(str(marker))
        if self.closed and self.arguments[0].startswith(os.fsencode(os.path.dirname(os.path.dirname(BIN))) + b"/"):
            # Which box a supervisor is for, its launcher's words say.
            children = _read(f"/proc/{self.pid}/task/{self.pid}/children").split()
            words = [_read(f"/proc/{int(child)}/cmdline") for child in children]
            launchers = [line for line in words if line.startswith(b"caisson-launcher\0")]
            return not launchers or any(marker in line for line in launchers)
        # The server of volumes has nothing on it of the home that it works for, nor has a box's network.
        if self.role in ("share", "netns", "netd") and marker == os.fsencode(WORK.name) and self.is_program(f"caisson-{self.role}"):
            return True
        return (any(marker in word for word in self.arguments) or marker in self.mounts
                or any(marker in os.fsencode(link) for link in self.links))

    def is_program(self, name):
        try:
            return os.path.samefile(f"/proc/{self.pid}/exe", pathlib.Path(BIN).parent.parent / "libexec/caisson" / name)
        except OSError:
            return False

    def status(self):
        text = _read(f"/proc/{self.pid}/status").decode()
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    def namespaces(self):
        return {name: os.readlink(f"/proc/{self.pid}/ns/{name}")
                for name in ("user", "mnt", "pid", "ipc", "uts", "cgroup", "net")}

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    def __repr__(self):
        return f"{self.role} {self.pid}: {b' '.join(self.arguments)[:200].decode(errors='replace')}"


def processes(marker=None):
    """Processes that have the home (or `marker`, a box's id) in their command line, mounts or open files."""
    marker = marker or WORK.name
    own = lineage(os.getpid())  # the test and whoever started it
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in own:
            continue
        process = Process(int(name))
        if process.role in ("vmm", "bwrap", "shim", "share", "launcher", "listener", "cli", "unpack", "fetch", "enter", "netns", "netd", "") and process.mentions(marker):
            found.append(process)
    return found


def of_role(role, marker=None):
    return [process for process in processes(marker) if process.role == role]


def shim_of(pid):
    """The supervisor among the children of this caisson; None if it has none (yet)."""
    for child in _read(f"/proc/{pid}/task/{pid}/children").split():
        if _read(f"/proc/{int(child)}/comm") == b"caisson-shim\n":
            return int(child)
    return None


def box_ids():
    try:
        return sorted(os.listdir(HOME / "boxes"))
    except FileNotFoundError:
        return []


def one_box():
    """The id of the only box there is."""
    ids = box_ids()
    assert len(ids) == 1, ids
    return ids[0]


def control_groups(box="*"):
    """The host's control groups of the test home's boxes."""
    tag = hashlib.sha256(os.fsencode(str(HOME))).hexdigest()[:16]
    return sorted(path for path in glob.glob(f"/sys/fs/cgroup/*/caisson/{tag}/{box}/") + glob.glob(f"/sys/fs/cgroup/caisson/{tag}/{box}/")
                  if path.split("/")[-2] not in ("supervisors", "entry"))


def leftovers(kept=()):
    """Everything of boxes that should be gone: processes, directories, mounts, sockets, temporary files, control groups."""
    found = [repr(process) for process in processes()]
    found += [f"directory boxes/{name}" for name in box_ids() if name not in kept]
    marker = os.fsencode(WORK.name)
    found += [f"mount {line.decode()}" for line in _read("/proc/self/mountinfo").splitlines() if marker in line]
    found += [f"socket {line.decode()}" for line in _read("/proc/net/unix").splitlines() if marker in line]
    found += [f"control group {path}" for path in control_groups() if path.split("/")[-2] not in kept]
    for directory in ("images/tmp", "templates"):
        try:
            names = os.listdir(HOME / directory)
        except FileNotFoundError:
            continue
        found += [f"temporary {directory}/{name}" for name in names if directory == "images/tmp" or "tmp" in name]
    return found


def wait_until_gone(seconds=2.0, kept=()):
    """Nothing is left within the given time. Returns how long it took."""
    started = time.monotonic()
    while True:
        found = leftovers(kept)
        took = time.monotonic() - started
        if not found:
            return took
        assert took < seconds, f"still there after {took:.1f} s:\n" + "\n".join(found)
        time.sleep(0.05)
