"""Power failures: a scenario is recorded, homes are made as they may look after the power failed at any of its moments, and
each is opened and checked. What was acknowledged before must be there."""
import collections
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess

import boxes
import registries
from boxes import BASE, BIN, WORK, caisson
from matrix import TRACER
from replay import KINDS, Image, Log

METADATA = "user.caisson.metadata"


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Scenario:
    """Commands under the recorder. Each that succeeds is acknowledged by a mark, such as `+box web` or `-volume data`;
    `+file VOLUME/NAME DIGEST` is a file's content, `=` nothing that stays."""

    def __init__(self, place, name, source=None):
        """`source`: a home to begin with; nothing if not given."""
        self.place = place / name
        self.place.mkdir()
        os.chmod(self.place, 0o711)
        self.home, self.before = self.place / "home", self.place / "before"
        self.log, self.marks = self.place / "log", self.place / "marks"
        self.lines = []
        if source:
            subprocess.run(["cp", "-a", "--sparse=always", source, self.home], check=True)
        else:
            self.home.mkdir(mode=0o711)
        self.env = boxes.environment(CAISSON_HOME=str(self.home))

    def __call__(self, *words, mark=None, input=None):
        line = " ".join("'" + str(word) + "'" for word in (BIN, *words))
        if input:
            line += f" < '{input}'"
        self.lines.append(f"{line} > /dev/null || exit 1")
        # Each command has one, so that what the power failed in is known.
        for one in [mark] if isinstance(mark, str) else mark or ("=",):
            self.lines.append(f"echo '{one}' >> '{self.marks}'")

    def record(self):
        self.marks.write_text("")
        script = self.place / "script"
        script.write_text("\n".join(self.lines) + "\n")
        subprocess.run(["cp", "-a", "--sparse=always", self.home, self.before], check=True)
        words = [TRACER, "--below", self.home, "--record", self.log, "--marks", self.marks, "sh", script]
        done = subprocess.run(words, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", timeout=200)
        assert done.returncode == 0, done.stdout.decode()
        boxes.until(lambda: not boxes.processes(str(self.home)), 15, "processes end")
        return Log(self.log)


class State:
    """What was acknowledged."""

    def __init__(self, done, coming):
        self.there, self.gone = {}, set()
        for mark in done:
            what, _, rest = mark[1:].partition(" ")
            key, _, value = rest.partition(" ")
            if mark == "=":
                continue
            if mark[0] == "+":
                self.there[what, key] = value
                self.gone.discard((what, key))
            else:
                self.forget(what, key)
                self.gone.add((what, key))
        # What the next command is about may be there or not.
        if coming and coming != "=":
            what, _, rest = coming[1:].partition(" ")
            key = rest.partition(" ")[0]
            self.forget(what, key)
            self.gone.discard((what, key))

    def forget(self, what, key):
        """With a volume go its files."""
        for one in list(self.there):
            if one == (what, key) or (what == "volume" and one[0] == "file" and one[1].startswith(key + "/")):
                del self.there[one]


def checked(home):
    """How the home is found: 'clean' or 'repaired'; and what is wrong with it then."""
    env = boxes.environment(CAISSON_HOME=str(home))
    tries = [caisson("check", env=env)]
    if tries[0].code == 0:
        return "clean", []
    # What a box that was starting has left can be looked at only when it is known to have failed: that takes two steps.
    for _ in range(2):
        tries.append(caisson("check", "--repair", env=env))
        if tries[-1].code == 0:
            break
    tries.append(caisson("check", env=env))
    return "repaired", [] if tries[-1].code == 0 else [repr(one) for one in tries]


def look(home, state):
    """What is wrong with a home."""
    env = boxes.environment(CAISSON_HOME=str(home))
    found = []
    opened = caisson("ls", "--all", "--format", "json", env=env)
    volumes = caisson("volume", "ls", "--format", "json", env=env)
    images = caisson("image", "ls", "--format", "json", env=env)
    for ended in (opened, volumes, images):
        if ended.code != 0:
            return [repr(ended)]
    records = {box["name"]: box for box in opened.json()}
    here = {("box", name) for name in records} | {("volume", volume["name"]) for volume in volumes.json()}
    here |= {("image", image["name"].removesuffix(":latest")) for image in images.json()}
    for (what, key), value in state.there.items():
        if what == "file":
            path = home / "volumes/named" / key
            if not path.exists():
                found.append(f"lost: file {key}")
            elif digest(path.read_bytes()) != value:
                found.append(f"not as it was written: file {key}")
        elif (what, key) not in here:
            found.append(f"lost: {what} {key}")
        elif what == "volume" and not value and METADATA not in os.listxattr(home / "volumes/named" / key):
            found.append(f"volume {key} has lost its attributes")
    found += [f"came back: {what} {key}" for what, key in state.gone & here]
    found += [f"directory {box} without a record" for box in set(os.listdir(home / "boxes")) - {box["id"] for box in records.values()}]
    found += [f"record {name} without a directory" for name, box in records.items() if not (home / "boxes" / box["id"]).is_dir()]
    found += [f"{name} is {box['state']}" for name, box in records.items() if box["state"] not in ("created", "stopped", "failed")]
    found += blobs(home)
    return found


def blobs(home):
    """Blobs that are not what they are called."""
    place = home / "images/blobs/sha256"
    return [f"blob {path.name} is damaged" for path in (place.iterdir() if place.is_dir() else ())
            if path.stat().st_size < 4 << 20 and digest(path.read_bytes()) != path.name]


def usable(home, state):
    """Whether what is there can be used: boxes can be made of each image, volumes written, everything removed."""
    env = boxes.environment(CAISSON_HOME=str(home))
    found = []
    for what, key in state.there:
        words = {"image": ("create", "--pull", "never", key, "true"), "volume": ("volume", "inspect", key), "box": ("inspect", key)}.get(what)
        ended = caisson(*words, env=env) if words else None
        if ended and ended.code != 0:
            found.append(repr(ended))
    ended = caisson("volume", "create", "brandnew", env=env)
    if ended.code != 0:
        found.append(repr(ended))
    for what, key in state.there:
        if what == "box":
            ended = caisson("rm", "--force", key, env=env)
            if ended.code != 0:
                found.append(repr(ended))
    return found


class Replays:
    def __init__(self, place, seed):
        self.place, self.random = place, random.Random(seed)
        self.counts, self.bad = collections.Counter(), []

    def run(self, scenario, log, count):
        """`count` homes: what is sure after each command, then moments spread evenly over the scenario, of every kind in turn."""
        owner = scenario.home.stat()
        target = self.place / "image"
        moments = log.moments()
        sure = log.acknowledgements()
        for end in sure:
            self.one(scenario, log, end, "least", 0, target, owner)
        count = max(count - len(sure), 1)
        for number in range(count):
            kind = KINDS[number % len(KINDS)] if number % 5 else "hostile"
            end = moments[number * len(moments) // count]
            seed = self.random.randrange(1 << 30)
            self.one(scenario, log, end, kind, seed, target, owner)

    def one(self, scenario, log, end, kind, seed, target, owner):
        Image(log, scenario.before, end, kind, random.Random(seed)).write(target, owner.st_uid, owner.st_gid)
        state = State(*log.marks(end))
        how = "not looked at"
        try:
            how, found = checked(target)
            found = found or look(target, state) or usable(target, state)
        except (OSError, AssertionError, json.JSONDecodeError) as broken:
            found = [f"{type(broken).__name__}: {broken}"]
        self.counts[f"{kind}, {how}"] += 1
        if found:
            near = [f"{act.word} {' '.join(act.rest)}" for act in log.acts[max(0, end - 3):end]]
            self.bad.append(f"{scenario.place.name}, {kind}, after {end} of {len(log.acts)} acts ({near}), seed {seed}: {'; '.join(found)}")
            print("BAD", self.bad[-1][:1500], flush=True)
            if os.environ.get("CAISSON_KEEP_BAD"):
                target.rename(self.place / f"bad-{len(self.bad)}")
        shutil.rmtree(target, ignore_errors=True)


def in_an_empty_home(place):
    """Everything from the first command on, but for what starts a machine."""
    scenario = Scenario(place, "first")
    image = registries.Image([registries.tar_of([("bin", "dir", None), ("bin/true", "file", os.urandom(70000))])], Cmd=["/bin/true"])
    registries.write_layout(image, scenario.place / "layout")
    files = scenario.place / "files"
    (files / "below").mkdir(parents=True)
    digests = {}
    for name in ("one", "below/two"):
        data = os.urandom(20000)
        (files / name).write_bytes(data)
        digests[name] = digest(data)
    subprocess.run(["chmod", "-R", "a+rX", scenario.place], check=True)
    scenario("volume", "create", "--size", "10M", "data", mark="+volume data")
    scenario("image", "load", "--name", "small", scenario.place / "layout", mark="+image small")
    scenario("create", "--name", "web", "-v", "data:/data", "-v", "/anonymous", "small", "true", mark="+box web")
    scenario("volume", "import", "src", files, mark=["+volume src", *(f"+file src/{name} {value}" for name, value in digests.items())])
    scenario("volume", "cp", files / "one", "data:/copy", mark=f"+file data/copy {digests['one']}")
    scenario("volume", "clone", "src", "twin", mark=["+volume twin", *(f"+file twin/{name} {value}" for name, value in digests.items())])
    scenario("volume", "create", "--type", "disk", "--size", "64M", "disk", mark="+volume disk disk")
    scenario("rename", "web", "site", mark=["-box web", "+box site"])
    scenario("image", "import", "--name", "flat", scenario.place / "root.tar", mark="+image flat")
    scenario("create", "--name", "job", "flat", "true", mark="+box job")
    scenario("volume", "attach", "job", "src:/src")
    scenario("rm", "site", mark="-box site")
    scenario("volume", "rm", "data", mark="-volume data")
    scenario("rm", "job", mark="-box job")
    scenario("image", "rm", "flat", mark="-image flat")
    (scenario.place / "root.tar").write_bytes(registries.tar_of([("file", "file", os.urandom(5000))]))
    return scenario


def with_machines(place, source):
    """Boxes that run, in a home that has an image and a template."""
    scenario = Scenario(place, "machines", source)
    scenario("run", "--rm", "--pull", "never", BASE, "true")
    scenario("run", "-d", "--pull", "never", "--name", "web", "-v", "data:/data", BASE, "sh", "-c", "echo here > /data/file; sync /data/file; sleep 100",
             mark=["+volume data", "+box web"])
    scenario("exec", "web", "true")
    scenario("stop", "-t", "0", "web")
    scenario("rm", "--force", "web", mark="-box web")
    scenario("create", "--pull", "never", "--name", "job", BASE, "true", mark="+box job")
    scenario("start", "-a", "job")
    scenario("rm", "job", mark="-box job")
    return scenario
