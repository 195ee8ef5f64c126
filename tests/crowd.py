"""Many clients of one home at once: what they do, and what must hold when they rest."""
import os
import random
import re
import sqlite3
import subprocess
import threading
import time

from boxes import BASE, BIN, HOME, box_ids, caisson, environment, leftovers, lineage, processes

AT_REST = {"created", "running", "paused", "stopped", "failed"}
LIVE = {"running", "paused"}

# What a client may be told that comes too late or too early for a box that others use, too.
REFUSALS = re.compile("|".join((
    r"there is no box", r"the name '.*' is taken", r"box \S+ is (not started|creating|starting|running|paused|stopping|stopped|failed)",
    r"the box is (starting|paused|stopping|not paused|paused already)", r"only a box that runs can be paused",
    r"the box ended$", r"box \S+ ended before the command ran", r"the box ended meanwhile",
    r"the box ended before its command ran: (it was stopped|the box's supervisor was told to stop|it was killed)",
    r"its network is gone|network process died|network namespace is gone|it gets a network when it is started", r"was (started|removed) meanwhile", r"there is no execution", r"in use by another process", r"was never started")), re.M)


def rows(query):
    database = sqlite3.connect(f"file:{HOME / 'caisson.db'}?mode=ro", uri=True, timeout=10)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def of_box(process, box):
    """Whether a VMM, its jail or its launcher belongs to the box."""
    return f"/boxes/{box}/disk.qcow2".encode() in process.mounts or any(f"/boxes/{box}".encode() in word for word in process.arguments)


def troubles():
    """Where database, disk and processes disagree. The home is opened first, which mends what the dead have left."""
    found = []
    opened = caisson("ls", "--all", "--format", "json")
    if opened.code != 0:
        return [repr(opened)]
    if rows("PRAGMA integrity_check") != [("ok",)]:
        found.append("the database is damaged")
    boxes = {row[0]: row for row in rows("SELECT id,state,owner_pid,reason,outcome,name FROM boxes")}
    # Of a box that lives the word may stay that a change of its network was cut short.
    directories = {name for name in box_ids() if name.removesuffix(".network") == name or boxes.get(name.removesuffix(".network"), (0, ""))[1] not in LIVE}
    found += [f"record {boxes[box]} without a directory" for box in boxes.keys() - directories]
    found += [f"directory {box} without a record" for box in directories - boxes.keys()]
    here = processes()
    supervisors = {process.pid: process for process in here if process.role == "shim"}
    machines = [process for process in here if process.role in ("launcher", "vmm", "bwrap", "")]
    launchers = {process.pid for process in here if process.role == "launcher"}
    found += [f"belongs to no launcher: {process}" for process in here if process.role in ("netns", "netd") and not launchers.intersection(lineage(process.pid))]
    found += [f"still busy: {process}" for process in here if process.role in ("cli", "fetch", "unpack")]
    for box, (_, state, owner, reason, outcome, _) in boxes.items():
        own = [process for process in machines if of_box(process, box)]
        machines = [process for process in machines if process not in own]
        if state not in AT_REST:
            found.append(f"{boxes[box]} does not come to rest")
        elif state in LIVE:
            if supervisors.pop(owner, None) is None:
                found.append(f"{boxes[box]} has no supervisor")
            if sum(process.role == "vmm" for process in own) != 1:
                found.append(f"{boxes[box]} has not one machine: {own}")
        else:
            found += [f"{boxes[box]} has {process}" for process in own]
            if (state == "failed" and not reason) or (state != "created" and not outcome):
                found.append(f"{boxes[box]} does not tell how it ended")
    found += [f"belongs to no box that runs: {process}" for process in [*supervisors.values(), *machines]]
    running = rows("SELECT e.id,b.state FROM executions e LEFT JOIN boxes b ON b.id=e.box_id "
                   "WHERE e.running=1 AND (b.state IS NULL OR b.state NOT IN ('running','paused'))")
    found += [f"execution {execution} runs in a box that is {state}" for execution, state in running]
    found += [left for left in leftovers(kept=directories) if left.startswith("temporary") or left.startswith("mount")]
    return found


def until_at_rest(seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        found = troubles()
        if not found:
            return
        assert time.monotonic() < deadline, "database, disk and processes disagree:\n" + "\n".join(found)
        time.sleep(0.1)


class Client:
    """Does one thing after the other to boxes that others use, too."""

    def __init__(self, seed, names):
        self.random, self.names = random.Random(seed), names
        self.process = None
        self.lock = threading.Lock()
        self.done = []  # (arguments, code, what it said, seconds)

    def operation(self):
        name = self.random.choice(self.names)
        return self.random.choice((
            ("run", "-d", "--name", name, BASE, "sleep", "600"),
            ("run", "-d", "--rm", "--name", name, BASE, "sleep", "600"),
            ("run", "-d", "--name", name, "--replace", "--restart", "on-failure", BASE, "sleep", "600"),
            ("run", "--rm", BASE, "true"),
            ("run", "-d", "--name", name, BASE, "sh", "-c", "exit 3"),
            ("create", "--name", name, "-l", "kind=created", BASE, "sleep", "600"),
            ("start", name), ("start", name), ("stop", "-t", "0", name), ("restart", "-t", "0", name), ("kill", name),
            ("exec", name, "echo", "text"), ("exec", name, "echo", "text"), ("exec", "-d", name, "sleep", "600"),
            ("pause", name), ("resume", name), ("resume", name), ("rename", name, self.random.choice(self.names)),
            ("inspect", "--format", "json", name), ("logs", name), ("ls", "-a"), ("info",),
            ("rm", name), ("rm", "--force", name), ("prune", "--label", "kind=created")))

    def step(self, limit=60):
        arguments = self.operation()
        started = time.monotonic()
        with self.lock:
            self.process = subprocess.Popen([BIN, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.PIPE, env=environment(), cwd="/")
        try:
            said = self.process.communicate(timeout=limit)[1].decode()
        except subprocess.TimeoutExpired:
            said = f"nothing within {limit} s"
            self.process.kill()
            self.process.communicate()
        with self.lock:
            process, self.process = self.process, None
        self.done.append((arguments, process.returncode, said, time.monotonic() - started))

    def kill(self):
        """kill -9 of what it is doing right now, if anything."""
        with self.lock:
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
                return True
        return False


def remove_all():
    for box in box_ids():
        caisson("rm", "--force", box)
