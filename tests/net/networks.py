"""Boxes with a network, for tests: started on the private internet's host, asked from inside, and what their journals say."""
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

import boxes
import internet
from boxes import BASE

GUEST = (pathlib.Path(__file__).parent / "guest.py").read_text()


@contextlib.contextmanager
def private_internet(*ports):
    place = pathlib.Path(tempfile.mkdtemp(prefix="internet-", dir=boxes.WORK))
    made = internet.Internet(place, *ports)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(place, ignore_errors=True)


class Inside:
    """Runs caisson on the private internet's host."""

    def __init__(self, world):
        self.program = ["nsenter", f"--net=/proc/{world.host}/ns/net", boxes.BIN]

    def caisson(self, *words, timeout=120, env=None):
        done = subprocess.run([*self.program, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=env or boxes.environment(), cwd="/", timeout=timeout)
        return boxes.Ended(words, done.returncode, done.stdout, done.stderr, 0)

    def start(self, *words):
        """The same, left to itself, with pipes for standard input and output."""
        return subprocess.Popen([*self.program, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                bufsize=0, env=boxes.environment(), cwd="/")


def answers(process, count, timeout):
    """The next lines that a process writes."""
    deadline, text = time.monotonic() + timeout, b""
    while text.count(b"\n") < count:
        ready = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))[0]
        more = process.stdout.read(1 << 16) if ready else b""
        assert more, f"{'it ended' if ready else 'no answer'}: {text!r}"
        text += more
    return text.decode().splitlines()


@contextlib.contextmanager
def box(world, *options, dns=("--dns", "9.9.9.9")):
    """A box that stays for a while: what it is asked to do is answered by one result for each line."""
    inside = Inside(world)
    name = f"net-{os.getpid()}"
    inside.caisson("run", "-d", "--pull", "never", "--name", name, *dns, *options, BASE, "sleep", "1000").ok()

    guest = None

    def ask(*lines, timeout=120):
        nonlocal guest
        if guest is None or guest.poll() is not None:
            guest = inside.start("exec", "-i", name, "python3", "-c", GUEST)
        for line in lines:
            guest.stdin.write(f"{line}\n".encode())
        guest.stdin.flush()
        results = [json.loads(line) for line in answers(guest, len(lines), timeout)]
        return results[0] if len(lines) == 1 else results

    ask.name = name
    ask.inside = inside
    try:
        yield ask
    finally:
        inside.caisson("rm", "--force", name)
        if guest is not None:
            guest.communicate(timeout=30)


def all_events(name):
    """What the journal has: (kind, details) each."""
    return [(event["kind"], event["details"]) for event in map(json.loads, boxes.caisson("audit", name, "--format", "json").ok().lines)]


def events(name, kind):
    return [details for found, details in all_events(name) if found == kind]


def denied(box_name, /, **wanted):
    return boxes.until(lambda: [event for event in events(box_name, "connection_denied") if all(event.get(key) == value for key, value in wanted.items())], 5, wanted)


def network_process():
    """The caisson-netd of the only box that has one."""
    found = boxes.of_role("netd")
    assert len(found) == 1, found
    return found[0]
