"""kill -9 at any moment, of the command line, the supervisor, its launcher, machine and jail, while clients work: whenever the
clients rest, database, disk and processes agree, and nothing is left of what was killed."""
import collections
import os
import random
import threading
import time

import pytest
from boxes import box_ids, listed, of_role
from crowd import REFUSALS, Client, remove_all, until_at_rest

pytestmark = pytest.mark.usefixtures("ends_boxes")
CLIENTS = 4
KILLS = int(os.environ.get("CAISSON_KILLS", "20"))
KILLS_TO_A_REST = 5
SEED = int(os.environ.get("CAISSON_SEED", "0")) or time.time_ns() % 1000000


def kill_one(choice, clients):
    """Kills one process of a role that is drawn; what it was, or None if there is none."""
    role = choice.choice(("cli", "cli", "shim", "shim", "launcher", "vmm", "bwrap"))
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


def test_kill_loop():
    print(f"CAISSON_SEED={SEED}")
    choice = random.Random(SEED)
    clients = [Client(SEED + number, [f"k{index}" for index in range(4)]) for number in range(CLIENTS)]
    killed = collections.Counter()
    longest_rest = 0
    started = time.monotonic()
    while sum(killed.values()) < KILLS:
        pause = threading.Event()

        def work(client):
            while not pause.is_set():
                client.step()

        threads = [threading.Thread(target=work, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        wanted = min(sum(killed.values()) + KILLS_TO_A_REST, KILLS)
        deadline = time.monotonic() + 60
        try:
            while sum(killed.values()) < wanted and time.monotonic() < deadline:
                time.sleep(choice.uniform(0, 0.5))
                killed[kill_one(choice, clients)] += 1
                del killed[None]
        finally:
            pause.set()
            for thread in threads:
                thread.join()
        rested = time.monotonic()
        until_at_rest()
        longest_rest = max(longest_rest, time.monotonic() - rested)
        for client in clients:
            for arguments, code, said, seconds in client.done:
                assert "locked" not in said and "nothing within" not in said and "bug" not in said, (arguments, code, said, seconds)
                assert seconds < 40, (arguments, code, said, seconds)
    operations = [operation for client in clients for operation in client.done]
    print(f"{dict(killed)} killed under {len(operations)} operations in {time.monotonic() - started:.1f} s; "
          f"at rest after {longest_rest:.1f} s at most; otherwise told: "
          f"{collections.Counter(said.splitlines()[0][:100] for _, _, said, _ in operations if said and not REFUSALS.search(said)).most_common(12)}")
    remove_all()
    until_at_rest()
    assert not box_ids() and not listed()
