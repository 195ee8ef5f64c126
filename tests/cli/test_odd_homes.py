"""Homes that were moved, copied, closed, put on other file systems, or that another boot or another clock has left: each works, or
says plainly why it does not."""
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest
from boxes import IS_ROOT, TINY, TINY_ARCHIVE, WORK, caisson, environment, until

PLACE = WORK / "odd-home"
FAR = 400 * 86400


class OddHome:
    def __init__(self, path):
        self.path, self.env = path, environment(CAISSON_HOME=str(path))

    def caisson(self, *arguments, **more):
        return caisson(*arguments, env=self.env, **more)

    def findings(self, *options):
        return json.loads(self.caisson("check", "--format", "json", *options).out)["findings"]

    def state(self, box):
        return self.caisson("inspect", "--format", "json", box).json()[0]["state"]

    def execute(self, statement, *values):
        database = sqlite3.connect(self.path / "caisson.db")
        database.execute(statement, values)
        database.commit()
        database.close()
        if IS_ROOT:
            owner = self.path.stat().st_uid
            for part in self.path.glob("caisson.db*"):
                os.chown(part, owner, owner)

    def remove_all(self):
        for name in self.caisson("ls", "--all", "-q").ok().lines:
            self.caisson("rm", "--force", name).ok()
        self.caisson("volume", "prune").ok()


@pytest.fixture(scope="module")
def loaded():
    """A home with an image, and the template of its boxes."""
    shutil.rmtree(PLACE, ignore_errors=True)
    if not IS_ROOT:
        PLACE.mkdir(mode=0o700)
    home = OddHome(PLACE)
    home.caisson("image", "load", "--name", TINY, TINY_ARCHIVE).ok()
    home.caisson("run", "--rm", "--pull", "never", "-u", "0", TINY, "true").ok()
    yield home
    shutil.rmtree(PLACE, ignore_errors=True)


@pytest.fixture
def home(loaded):
    """The same, with a box that has written to its disk and to a volume, and has ended."""
    loaded.caisson("run", "--pull", "never", "--name", "kept", "-u", "0", "-v", "data:/data", TINY, "sh", "-c",
                   "test -e /word || { echo mine > /word; echo mine > /data/word; }; cat /word /data/word").ok()
    yield loaded
    loaded.remove_all()


@pytest.fixture
def other_place():
    place = WORK / "odd-other"
    shutil.rmtree(place, ignore_errors=True)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def copy_of(home, place):
    subprocess.run(["cp", "-a", "--sparse=always", str(home.path), str(place)], check=True)
    return OddHome(place)


def test_moved(home, other_place):
    os.rename(home.path, other_place)
    try:
        moved = OddHome(other_place)
        assert moved.findings() == []
        assert moved.caisson("start", "-a", "kept").ok().text == "mine\nmine\n"
        # Its root disk is known to be used although the record has it at its old place.
        moved.caisson("image", "prune").ok()
        assert moved.caisson("start", "-a", "kept").ok().text == "mine\nmine\n"
        assert moved.findings() == []
    finally:
        os.rename(other_place, home.path)
    assert home.caisson("start", "-a", "kept").ok().text == "mine\nmine\n"


def test_copied_and_both_used(home, other_place):
    """Boxes of the same ids in two homes: what is done in one does nothing to the other."""
    home.caisson("create", "--name", "long", "--pull", "never", "-u", "0", TINY, "sleep", "600").ok()
    copy = copy_of(home, other_place)
    for one in (home, copy):
        one.caisson("start", "long").ok()
    assert home.state("long") == copy.state("long") == "running"
    assert home.findings() == [] and copy.findings() == []
    # The supervisor in one home dies: it alone is tidied up.
    supervisor = copy.caisson("inspect", "--format", "json", "long").json()[0]["supervisor_pid"]
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: copy.state("long") == "failed")
    time.sleep(0.5)
    assert home.state("long") == "running" and home.caisson("exec", "long", "sh", "-c", "echo alive").ok().text == "alive\n"
    copy.caisson("rm", "long").ok()
    copy.remove_all()
    assert home.state("long") == "running" and home.findings() == [] and copy.findings() == []
    assert home.caisson("start", "-a", "kept").ok().text == "mine\nmine\n"


def test_copied_while_a_box_runs(home, other_place):
    """The copy has a box that is recorded to run, with the other home's supervisor: it is not that one's to end."""
    home.caisson("run", "-d", "--pull", "never", "--name", "long", "-u", "0", TINY, "sleep", "600").ok()
    copy = copy_of(home, other_place)
    copy.remove_all()
    assert home.state("long") == "running" and home.caisson("exec", "long", "sh", "-c", "echo alive").ok().text == "alive\n"
    assert copy.findings() == [] and home.findings() == []


def namespaced(script, home, *arguments):
    """A caisson command in a mount namespace in which `script` has been run as its root."""
    if not IS_ROOT:
        pytest.skip("only root may mount beside caisson's own namespaces")
    text = "mount --make-rprivate / && " + script + ' && exec "$@"'
    return subprocess.run(["unshare", "-m", "sh", "-ec", text, "sh", os.environ["CAISSON_BIN"], *arguments], env=home.env,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def test_read_only(home):
    script = f"mount --bind {home.path} {home.path} && mount -o remount,bind,ro {home.path}"
    looked = namespaced(script, home, "check", "--deep")
    assert looked.returncode == 0 and looked.stdout.startswith("clean: 1 boxes"), looked
    for command in (["ls"], ["run", "--rm", TINY, "true"], ["image", "ls"], ["volume", "ls"], ["rm", "kept"], ["check", "--repair"]):
        refused = namespaced(script, home, *command)
        assert refused.returncode == 125 and "Read-only file system" in refused.stderr and str(home.path) in refused.stderr, refused


@pytest.mark.parametrize("kind", ("tmpfs", "ramfs"))
def test_in_memory(home, kind):
    """On a tmpfs boxes run; whether there can be volumes depends on what the kernel keeps there, and it is said."""
    place = WORK / "odd-memory"
    place.mkdir(mode=0o711, exist_ok=True)
    memory = OddHome(place / "home")
    script = f"mount -t {kind} -o size=2G,mode=0711 none {place}"
    text = (f"c=$1; $c image load --name {TINY} {TINY_ARCHIVE} >/dev/null && $c run --rm --pull never {TINY} sh -c \"echo ran\"; "
            "$c volume create v; echo volume $?; $c check --format json; echo check $?")
    done = subprocess.run(["unshare", "-m", "sh", "-ec", f"mount --make-rprivate / && {script} && exec sh -c '{text}' sh $1", "sh", os.environ["CAISSON_BIN"]],
                          env=memory.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240) if IS_ROOT else pytest.skip("only root may mount beside caisson's own namespaces")
    place.rmdir()
    assert "ran\n" in done.stdout, done
    if "volume 0" in done.stdout:
        assert "check 0" in done.stdout, done
    else:
        assert "keeps no attributes of users" in done.stderr and "home_attributes" in done.stdout and "check 1" in done.stdout, done


def test_of_somebody_else(home, other_place):
    if not IS_ROOT:
        pytest.skip("only root may give files away")
    copy = copy_of(home, other_place)
    subprocess.run(["chown", "-Rh", "4322:4322", str(other_place)], check=True)
    refused = copy.caisson("ls")
    assert refused.code == 125 and "belongs to user 4322" in refused.said and "caisson as that user" in refused.said, refused
    os.chmod(other_place, 0o755)
    findings = copy.findings()
    assert {finding["code"] for finding in findings} >= {"home_owner"} and "4322" in findings[0]["what"], findings
    # Only a part of it.
    shutil.rmtree(other_place)
    copy = copy_of(home, other_place)
    os.chown(other_place / "boxes", 4322, 4322)
    refused = copy.caisson("ls")
    assert refused.code == 125 and f"{other_place}/boxes belongs to user 4322" in refused.said, refused
    assert "home_owner" in [finding["code"] for finding in copy.findings()]


@pytest.mark.parametrize("state", ("creating", "starting", "running", "paused", "stopping"))
def test_the_host_was_restarted(home, state):
    """Whatever a box was doing: its record names a process of another boot, whose number somebody else has now."""
    home.execute("UPDATE boxes SET state=?,owner_pid=?,owner_start=1,owner_boot='00000000-0000-0000-0000-000000000000',finished_ms=0,exit_code=NULL WHERE name='kept'",
                 state, os.getpid())
    assert [finding["code"] for finding in home.findings()] == ["box_unfinished" if state == "creating" else "box_abandoned"]
    boxes = {box["name"]: box for box in home.caisson("ls", "--all", "--format", "json").json()}
    if state == "creating":
        assert boxes == {}
    else:
        assert boxes["kept"]["state"] == "failed" and boxes["kept"]["reason"] == "host rebooted", boxes
        assert home.caisson("start", "-a", "kept").ok().text == "mine\nmine\n"
    assert home.findings() == []
    assert (home.path / "volumes/named/data/word").read_text() == "mine\n"


@pytest.mark.parametrize("jump", (-FAR, FAR))
def test_the_clock_jumped(home, jump):
    """Everything was made long ago, or is of a time to come."""
    home.execute("UPDATE boxes SET created_ms=created_ms+?,started_ms=started_ms+?,finished_ms=finished_ms+?", jump * 1000, jump * 1000, jump * 1000)
    then = time.time() + jump
    for directory, names, files in os.walk(home.path):
        for name in names + files:
            if not name.startswith("caisson.db"):
                os.utime(os.path.join(directory, name), (then, then), follow_symlinks=False)
    assert home.findings() == []
    listed = home.caisson("ls", "--all").ok().text
    assert ("in the future" in listed) == (jump > 0), listed
    assert home.caisson("start", "-a", "kept").ok().text == "mine\nmine\n"
    assert home.caisson("run", "--rm", "--pull", "never", "-u", "0", TINY, "sh", "-c", "echo ran").ok().text == "ran\n"
    home.caisson("logs", "kept").ok()
    home.caisson("image", "prune").ok()
    assert home.findings() == []
