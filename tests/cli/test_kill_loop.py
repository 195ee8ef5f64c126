"""kill -9 at any moment, of the command line, the supervisor, its launcher, machine and jail, while clients work and others check
the home and collect its garbage: whenever the clients rest, database, disk and processes agree, nothing is left of what was
killed, and nothing has gone that somebody was told he has."""
import collections
import json
import os
import random
import re
import threading
import time

import pytest
from boxes import BASE, HOME, IS_ROOT, box_ids, caisson, listed, of_role, processes
from crowd import REFUSALS, Client, remove_all, until_at_rest

pytestmark = pytest.mark.usefixtures("ends_boxes")
CLIENTS = 4
KILLS = int(os.environ.get("CAISSON_KILLS", "20"))
KILLS_TO_A_REST = 5
VOLUMES = [f"kill-{number}" for number in range(3)]
# What a process that was killed leaves until the home is opened next, or the box's machine until it has died. None of it is
# damage: an error would be something that is gone.
LEFT_BY_THE_DEAD = {"box_abandoned", "box_unfinished", "box_stray", "process_stray", "control_group_stray", "volume_unfinished",
                    "volume_stray", "volume_mounts_stray", "volume_record_stray", "unfinished_file", "unfinished_template", "unfinished_import", "network_unsettled"}
# Of that, what opening the home leaves to a repair.
LEFT_AT_REST = {"unfinished_file", "unfinished_import"}
SEED = int(os.environ.get("CAISSON_SEED", "0")) or time.time_ns() % 1000000


# Their guests reach for nothing: what a network consists of on the host is there all the same.
CAN_CONNECT = IS_ROOT or os.access("/dev/net/tun", os.R_OK | os.W_OK)


class WorkingClient(Client):
    """Makes and removes volumes, too, boxes that have some that stay, and boxes with a network, which it changes."""

    def on_networks(self):
        name = f"net-{self.random.randrange(3)}"
        return self.random.choice((
            ("run", "-d", "--name", name, "--net", "public", "-p", "0:80", BASE, "sleep", "600"),
            ("run", "-d", "--rm", "--name", name, "--allow-net", "a.test", BASE, "sleep", "600"),
            ("run", "--rm", "--net", "public", BASE, "true"),
            ("update", name, "--deny-net", "b.test"), ("update", name, "--allow-net", "a.test"), ("update", name, "--net-restart"),
            ("update", name, "--publish", "0:81"), ("restart", "-t", "0", name), ("stop", "-t", "0", name), ("rm", "--force", name)))

    def operation(self):
        if CAN_CONNECT and self.random.random() < 0.2:
            return self.on_networks()
        if self.random.random() < 0.7:
            return super().operation()
        name, volume, own = self.random.choice(self.names), self.random.choice(VOLUMES), f"own-{self.random.randrange(3)}"
        return self.random.choice((
            ("run", "-d", "--name", name, "-v", f"{volume}:/kept", "-v", "/anonymous", BASE, "sleep", "600"),
            ("run", "--rm", "-v", f"{volume}:/kept", BASE, "sh", "-c", "cat /kept/word && date > /kept/new && mv /kept/new /kept/now"),
            ("create", "--name", name, "-v", f"{own}:/own", "-v", "/anonymous", BASE, "sleep", "600"),
            ("volume", "create", "--size", "1M", own), ("volume", "rm", own), ("volume", "rm", own), ("volume", "ls"),
            ("volume", "clone", volume, own), ("volume", "attach", name, f"{own}:/more"), ("volume", "detach", name, "/more"),
            ("image", "tag", BASE, f"test/{own}"), ("image", "rm", f"test/{own}")))


class Watch(threading.Thread):
    """Asks the same of the home over and over, beside everything else."""

    def __init__(self, *arguments):
        super().__init__()
        self.arguments, self.told, self.leave = arguments, [], threading.Event()

    def run(self):
        while not self.leave.is_set():
            self.told.append(caisson(*self.arguments, timeout=120))
            self.leave.wait(0.1)

    def end(self):
        self.leave.set()
        self.join()
        return self.told


def watches():
    """The garbage collection comes with the command line that has it."""
    started = [Watch("check", "--format", "json")]
    if re.search(r"^  gc ", caisson("--help").text, re.M):
        started.append(Watch("gc", "--grace", "0s"))
    for watch in started:
        watch.start()
    return started


def settle_networks():
    """What only the next change of a network mends."""
    for finding in json.loads(caisson("check", "--format", "json").out)["findings"]:
        if finding["code"] == "network_unsettled":
            told = caisson("update", finding["object"].removeprefix("box "), "--net-restart")
            if "namespace is gone" in told.said:
                told = caisson("restart", "-t", "0", told.arguments[1])
            assert told.code == 0 or REFUSALS.search(told.said), told


def check_at_rest():
    """Nothing is damaged, and after a repair nothing is left."""
    settle_networks()
    found = json.loads(caisson("check", "--format", "json").out)["findings"]
    odd = [finding for finding in found if finding["code"] not in LEFT_AT_REST]
    assert not odd, "\n".join([json.dumps(odd, indent=1), *map(repr, processes())])
    repaired = caisson("check", "--repair", "--format", "json")
    assert repaired.code == 0 and caisson("check").code == 0, repaired
    return len(found)


@pytest.fixture
def kept_volumes(no_volumes_stay):
    """Volumes with a word in them, which nobody removes."""
    for name in VOLUMES:
        caisson("volume", "create", name).ok()
        caisson("run", "--rm", "--pull", "never", "-v", f"{name}:/kept", BASE, "sh", "-c", f"echo {name} > /kept/word").ok()
    yield
    for name in VOLUMES:
        assert (HOME / "volumes/named" / name / "word").read_text() == name + "\n"


def kill_one(choice, clients):
    """Kills one process of a role that is drawn; what it was, or None if there is none."""
    role = choice.choice(("cli", "cli", "shim", "shim", "launcher", "vmm", "bwrap", "netns", "netd"))
    if role == "cli":
        return role if choice.choice(clients).kill() else None
    victims = of_role(role)
    if not victims:
        return None
    try:
        choice.choice(victims).kill()
    except ProcessLookupError:
        return None
    return role


def let_end(threads):
    """A command in a box that somebody has paused ends when that goes on, and nobody is left who would see to it."""
    while any(thread.is_alive() for thread in threads):
        for name, box in listed().items():
            if box["state"] == "paused":
                caisson("resume", name)
        for thread in threads:
            thread.join(0.2)


def test_kill_loop(kept_volumes):
    print(f"CAISSON_SEED={SEED}")
    choice = random.Random(SEED)
    clients = [WorkingClient(SEED + number, [f"k{index}" for index in range(4)]) for number in range(CLIENTS)]
    killed = collections.Counter()
    longest_rest = left = 0
    looks = collections.Counter()
    started = time.monotonic()
    while sum(killed.values()) < KILLS:
        pause = threading.Event()

        def work(client):
            while not pause.is_set():
                client.step()

        threads = [threading.Thread(target=work, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        watching = watches()
        wanted = min(sum(killed.values()) + KILLS_TO_A_REST, KILLS)
        deadline = time.monotonic() + 60
        try:
            while sum(killed.values()) < wanted and time.monotonic() < deadline:
                time.sleep(choice.uniform(0, 0.5))
                killed[kill_one(choice, clients)] += 1
                del killed[None]
        finally:
            pause.set()
            let_end(threads)
            watched = [watch.end() for watch in watching]
        for told in watched:
            looks.update(done.arguments[0] for done in told)
            assert all(done.code in (0, 1) for done in told), [done for done in told if done.code not in (0, 1)]
        for done in watched[0]:
            odd = [finding for finding in json.loads(done.out)["findings"] if finding["code"] not in LEFT_BY_THE_DEAD]
            assert not odd, odd
        rested = time.monotonic()
        until_at_rest()
        longest_rest = max(longest_rest, time.monotonic() - rested)
        left += check_at_rest()
        for client in clients:
            for arguments, code, said, seconds in client.done:
                assert "locked" not in said and "nothing within" not in said and "bug" not in said, (arguments, code, said, seconds)
                assert seconds < 40, (arguments, code, said, seconds)
    operations = [operation for client in clients for operation in client.done]
    print(f"{dict(killed)} killed under {len(operations)} operations in {time.monotonic() - started:.1f} s; "
          f"at rest after {longest_rest:.1f} s at most; beside it {dict(looks)}; {left} unfinished files left; otherwise told: "
          f"{collections.Counter(said.splitlines()[0][:100] for _, _, said, _ in operations if said and not REFUSALS.search(said)).most_common(12)}")
    remove_all()
    until_at_rest()
    assert not box_ids() and not listed()
    for name in caisson("image", "ls", "--format", "json").json():
        if name["name"].startswith("test/own-"):
            caisson("image", "rm", name["name"]).ok()
    assert check_at_rest() == 0
