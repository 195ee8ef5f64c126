"""A full disk: every command says what is the matter or works, there is a way out, and nothing is lost on it."""
import contextlib
import functools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest
from boxes import BIN, TINY, TINY_ARCHIVE, WORK, caisson, until
from small_homes import MIB, fill, free_bytes, leave_free, small_home

RESERVE = 64 * MIB
KEPT = os.urandom(3 * MIB)


@pytest.fixture
def full_home():
    """A file system of 200 MiB without a free block, with an image, a volume with a file in it and two boxes."""
    with small_home(200) as (home, env):
        caisson("image", "load", "--name", TINY, TINY_ARCHIVE, env=env).ok()
        source = WORK / "kept.bin"
        source.write_bytes(KEPT)
        (WORK / "plenty").mkdir(exist_ok=True)
        (WORK / "plenty" / "file").write_bytes(KEPT)
        caisson("volume", "create", "kept", env=env).ok()
        caisson("volume", "cp", source, "kept:/file", env=env).ok()
        for name in ("first", "second"):
            caisson("create", "--pull", "never", "--name", name, "--memory", "256M", "-v", "kept:/kept", TINY, "true", env=env).ok()
        fill(home)
        yield home, env, source
        source.unlink()
        shutil.rmtree(WORK / "plenty")


def reserve(home):
    path = home / ".reserve"
    return path.stat().st_blocks * 512 if path.exists() else 0


@functools.cache
def commands():
    """All that there are, from the help texts."""
    def below(words):
        text = caisson(*words, "--help").ok().text
        names = re.findall(r"^  ([a-z-]+)(?:, [a-z]+)?  ", text.partition("\nSubcommands:\n")[2], flags=re.M)
        return [found for name in names for found in below([*words, name])] or [tuple(words)]
    return set(below([]))


def calls(source):
    """A call of each command that makes sense in the home above."""
    out = str(WORK / "out")
    return {
        ("run",): ["--rm", "--pull", "never", TINY, "true"], ("create",): ["--pull", "never", "--name", "third", TINY, "true"],
        ("exec",): ["first", "true"], ("attach",): ["first"], ("cp",): ["first:/etc/passwd", out], ("ls",): ["--all"],
        ("inspect",): ["first"], ("start",): ["first"], ("stop",): ["first"], ("restart",): ["first"], ("kill",): ["first"],
        ("pause",): ["first"], ("resume",): ["first"], ("wait",): ["first"], ("rename",): ["first", "renamed"],
        ("rm",): ["no-such-box"], ("prune",): ["--label", "no=box"], ("info",): [], ("logs",): ["second"],
        ("image", "ls"): [], ("image", "load"): ["--name", "again", str(TINY_ARCHIVE)],
        ("image", "import"): ["--name", "imported", str(TINY_ARCHIVE)], ("image", "rm"): ["no-such-image"],
        ("image", "pull"): ["127.0.0.1:1/no/such"], ("image", "save"): ["-o", str(WORK / "saved.tar"), TINY],
        ("image", "tag"): [TINY, "test/other"], ("image", "inspect"): [TINY], ("image", "prune"): [],
        ("volume", "create"): ["more"], ("volume", "ls"): [], ("volume", "inspect"): ["kept"], ("volume", "rm"): ["no-such-volume"],
        ("volume", "prune"): ["--label", "no=volume"], ("volume", "df"): [], ("volume", "attach"): ["second", "kept:/again"],
        ("volume", "detach"): ["second", "/nowhere"], ("volume", "cp"): [str(source), "kept:/second"],
        ("volume", "clone"): ["kept", "copy"], ("volume", "export"): ["-o", str(WORK / "kept.tar"), "kept"],
        ("volume", "import"): ["imported", str(TINY_ARCHIVE)], ("volume", "sync"): ["synced", str(source.parent / "plenty")],
        ("registry", "login"): ["--user", "x", "--password-stdin", "127.0.0.1:1"], ("registry", "logout"): ["127.0.0.1:1"],
        ("template", "ls"): [], ("template", "build"): ["--memory", "256M", TINY],
        ("audit", "verify"): [], ("audit", "head"): [], ("events",): [], ("stats",): [], ("update",): ["--label", "tried=yes", "first"], ("port",): ["first"],
        ("check",): [], ("net", "log"): ["first"], ("net", "suggest"): ["first"], ("net", "explain"): ["--allow-net", "a.example", "a.example:443"],
        ("template", "rm"): ["0" * 32], ("df",): [], ("gc",): ["--dry-run"], ("doctor",): [], ("version",): [],
    }


def test_the_database_can_be_read_whoever_took_the_blocks_of_its_index(full_home):
    """SQLite makes the index anew when nobody has the database open: between the two its blocks are anybody's."""
    home, env, _ = full_home
    room = home / "caisson.db-room"
    held = room.stat().st_blocks * 512
    assert held >= MIB
    for _ in range(3):
        os.truncate(home / "caisson.db-shm", 3)
        fill(home)
        for words in (("df",), ("ls", "--all"), ("inspect", "first"), ("gc",)):
            assert caisson(*words, env=env).code == 0, words
    # A piece for each time, not for each command.
    assert held - room.stat().st_blocks * 512 <= 4 * 65536
    released = caisson("reserve-release", env=env).ok()
    assert released.text == "freed 64.0 MiB\n"


LAST = {("reserve-release",)}  # the way out has its own test


def test_every_command_works_or_says_why_not_and_nothing_is_lost(full_home):
    home, env, source = full_home
    table = calls(source)
    assert set(table) == commands() - LAST, "say what each is to do on a full disk"
    worked, refused = [], []
    for words, arguments in table.items():
        said = caisson(*words, *arguments, env=env, timeout=120, input=b"secret\n")
        assert said.code in (0, 1, 2, 125, 127), said  # and no signal
        assert not re.search(r"internal error|terminate called|Traceback", said.said), said
        (worked if said.code == 0 else refused).append(words)
        assert said.code == 0 or said.said.startswith("caisson: ") or words == ("doctor",), said  # that one prints a table
        if "No space left" in said.said or "disk is full" in said.said:
            assert "caisson reserve-release" in said.said, said
            # Of what is named, everything exists.
            for named in re.findall(r"caisson ((?:image |volume )?[a-z]+(?:-[a-z]+)?)", said.said.partition("caisson reserve-release")[2]):
                assert tuple(named.split()) in commands(), (named, said)
    print("worked:", [" ".join(words) for words in worked], "refused:", [" ".join(words) for words in refused])
    for words in (("ls",), ("inspect",), ("logs",), ("df",), ("gc",), ("image", "ls"), ("volume", "ls"), ("rename",), ("version",), ("info",)):
        assert words in worked, words
    assert reserve(home) >= RESERVE
    for name in ("out", "saved.tar", "kept.tar"):
        (WORK / name).unlink(missing_ok=True)

    # The way out.
    if free_bytes(home) > 0:
        fill(home)
    assert free_bytes(home) == 0
    released = caisson("reserve-release", env=env).ok()
    assert released.text == "freed 64.0 MiB\n" and reserve(home) == 0
    assert free_bytes(home) >= RESERVE - MIB
    again = caisson("reserve-release", env=env)
    assert again.code == 125 and "there is no reserve" in again.said and "caisson gc" in again.said
    assert "it is taken again when" in caisson("ls", env=env).ok().said
    assert reserve(home) == 0
    caisson("rm", "second", env=env).ok()
    caisson("gc", "--grace", "0s", env=env).ok()
    # Nothing that was acknowledged is lost.
    boxes = {box["name"] for box in caisson("ls", "--all", "--format", "json", env=env).json()}
    assert "renamed" in boxes and "second" not in boxes
    assert [image["name"] for image in caisson("image", "ls", "--format", "json", env=env).json() if image["name"] == TINY + ":latest"]
    copied = caisson("volume", "cp", "kept:/file", WORK / "back.bin", env=env).ok()
    assert (WORK / "back.bin").read_bytes() == KEPT, copied
    (WORK / "back.bin").unlink()
    with contextlib.closing(sqlite3.connect(home / "caisson.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    # The reserve comes back by itself, but not before twice its size is free.
    for filler in home.parent.glob("filler*"):
        filler.unlink()
    filler = leave_free(home, 120 * MIB)
    if free_bytes(home) < 128 * MIB:
        assert "it is taken again when" in caisson("ls", env=env).ok().said
        assert reserve(home) == 0
    filler.unlink()
    assert free_bytes(home) >= 128 * MIB
    quiet = caisson("ls", env=env).ok()
    assert quiet.said == "" and reserve(home) >= RESERVE


def test_the_reserve_is_given_back_where_nothing_else_works(full_home):
    home, env, _ = full_home
    # No database, and a home that cannot be opened.
    (home / "caisson.db").rename(home.parent / "aside.db")
    (home / "boxes").rename(home.parent / "aside")
    (home / "boxes").write_bytes(b"")
    assert caisson("ls", env=env).code == 125
    assert caisson("reserve-release", "--format", "json", env=env).json() == {"freed_bytes": RESERVE}
    assert free_bytes(home) >= RESERVE - MIB
    (home / "boxes").unlink()
    (home.parent / "aside").rename(home / "boxes")
    (home.parent / "aside.db").rename(home / "caisson.db")
    assert {box["name"] for box in caisson("ls", "--all", "--format", "json", env=env).json()} == {"first", "second"}


def test_boxes_are_removed_and_renamed_without_a_free_block(full_home):
    home, env, _ = full_home
    for count in range(40):  # each writes to the database
        caisson("rename", "first" if count % 2 == 0 else "other", "other" if count % 2 == 0 else "first", env=env).ok()
        assert free_bytes(home) < MIB
    caisson("rm", "first", "second", env=env).ok()
    assert caisson("ls", "--all", "-q", env=env).ok().lines == []


def test_a_template_that_finds_no_room_says_so():
    with small_home(200) as (home, env):
        caisson("image", "load", "--name", TINY, TINY_ARCHIVE, env=env).ok()
        leave_free(home, 30 * MIB)
        # The machine's memory is a file of the home, whose end it meets while it boots.
        refused = caisson("run", "--rm", "--pull", "never", "--memory", "256M", TINY, "true", env=env)
        assert refused.code == 125 and "full" in refused.said and "caisson reserve-release" in refused.said, refused
        left = free_bytes(home)
        assert left > 0 and not list((home / "templates").glob(".new-*")) and list((home / "boxes").iterdir()) == []


@pytest.fixture
def home_of_600_mib():
    with small_home(600) as (home, env):
        caisson("image", "load", "--name", TINY, TINY_ARCHIVE, env=env).ok()
        yield home, env


def state_of(name, env):
    return caisson("inspect", "--format", "json", name, env=env).json()[0]


SEED = 4 * MIB
COPIES = 24


def start_writer(env, name="writer"):
    """A box that writes COPIES of one block of random bytes, and says how far it is."""
    script = (f"head -c {SEED} /dev/urandom > /seed; echo ready; cat > /dev/null < /dev/null; "
              f"while [ ! -e /go ]; do sleep 0.1; done; i=0; "
              f"while [ $i -lt {COPIES} ]; do cat /seed >> /big; i=$((i + 1)); echo $i; done; echo done; while :; do sleep 1; done")
    caisson("run", "-d", "--pull", "never", "--name", name, "--memory", "256M", "-u", "0", "--entrypoint", "", TINY, "sh", "-c", script, env=env).ok()
    until(lambda: "ready" in caisson("logs", name, env=env).ok().lines, 60)


@contextlib.contextmanager
def blind(name, env):
    """The box's supervisor does not see what goes on, so that the machine meets the end of the disk before it is paused."""
    pid = state_of(name, env)["supervisor_pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("sees", [True, False])
def test_a_box_whose_disk_is_full_waits_and_loses_no_byte(home_of_600_mib, sees):
    home, env = home_of_600_mib
    start_writer(env)
    seed = WORK / "seed.bin"
    caisson("cp", "writer:/seed", seed, env=env).ok()
    caisson("exec", "-u", "0", "writer", "sh", "-c", "echo > /go", env=env).ok()
    until(lambda: len(caisson("logs", "writer", env=env).ok().lines) > 3, 60)
    if sees:
        fill(home)
    else:
        with blind("writer", env):
            fill(home)
            time.sleep(3)  # nothing tells from outside that the machine has stopped
    expected = "host disk full" if sees else "host disk full: the box goes on"  # who sees may be late, too
    until(lambda: (now := state_of("writer", env))["state"] == "paused" and now["reason"].startswith(expected), 60, lambda: state_of("writer", env))
    for words in (["exec", "writer", "true"], ["pause", "writer"], ["resume", "writer"], ["cp", seed, "writer:/again"]):
        refused = caisson(*words, env=env)
        assert refused.code == 125 and "host disk full" in refused.said and "caisson reserve-release" in refused.said, refused
    # What it has already written can be taken out; nothing of it goes on meanwhile.
    taken = WORK / "taken.bin"
    for _ in range(2):
        caisson("cp", "writer:/seed", taken, env=env).ok()
        assert taken.read_bytes() == seed.read_bytes()
        taken.unlink()
    missing = caisson("cp", "writer:/no-such-file", taken, env=env)
    assert missing.code == 125 and "/no-such-file" in missing.said, missing
    assert state_of("writer", env)["state"] == "paused"
    for words in (["inspect", "writer"], ["logs", "writer"]):
        shown = caisson(*words, env=env).ok()
        assert "host disk full" in shown.said and "caisson reserve-release" in shown.said, shown
    written = caisson("logs", "writer", env=env).ok().lines
    # What the operator gets back is not the box's to write full.
    caisson("reserve-release", env=env).ok()
    left = free_bytes(home)
    with pytest.raises(AssertionError):
        until(lambda: state_of("writer", env)["state"] == "running", 5)
    assert free_bytes(home) > left - 8 * MIB
    for filler in home.parent.glob("filler*"):
        filler.unlink()
    until(lambda: state_of("writer", env)["state"] == "running", 30, lambda: state_of("writer", env))
    until(lambda: "done" in caisson("logs", "writer", env=env).ok().lines, 120)
    assert caisson("logs", "writer", env=env).ok().lines[:len(written)] == written
    back = WORK / "big.bin"
    caisson("exec", "-u", "0", "writer", "sh", "-c", "sync 2>/dev/null; true", env=env).ok()
    caisson("stop", "-t", "1", "writer", env=env).ok()
    # From its disk, not from what its machine remembers.
    caisson("cp", "writer:/big", back, env=env, timeout=120).ok()
    assert back.stat().st_size == SEED * COPIES
    with open(back, "rb") as file:
        block = seed.read_bytes()
        for number in range(COPIES):
            assert file.read(SEED) == block, number
    back.unlink()
    seed.unlink()


def test_boxes_that_wait_are_ended_and_removed_on_a_full_disk(home_of_600_mib):
    home, env = home_of_600_mib
    for name in ("stopped", "killed", "removed"):
        start_writer(env, name)
        caisson("exec", "-u", "0", name, "sh", "-c", "echo > /go", env=env).ok()
    fill(home)
    for name in ("stopped", "killed", "removed"):
        until(lambda: state_of(name, env)["state"] == "paused", 60, lambda: state_of(name, env))
    caisson("stop", "-t", "1", "stopped", env=env).ok()
    assert state_of("stopped", env)["state"] == "stopped"
    caisson("kill", "killed", env=env).ok()
    assert state_of("killed", env)["state"] in ("stopped", "failed")
    caisson("rm", "--force", "removed", env=env).ok()
    caisson("rm", "stopped", "killed", env=env).ok()
    assert caisson("ls", "--all", "-q", env=env).ok().lines == []


BLOB = 32 * MIB  # more than what is under way between a box and a reader that waits


@contextlib.contextmanager
def slow_copy(env):
    """A copy of the file, held up after its first bytes."""
    command = subprocess.Popen([BIN, "cp", "counter:/ram/blob", "-"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield command, command.stdout.read(65536)
    finally:
        command.kill()
        command.communicate()


def test_a_box_that_waits_for_room_stands_still_while_files_are_taken_out(home_of_600_mib):
    home, env = home_of_600_mib
    script = f"head -c {BLOB} /dev/urandom > /ram/blob; i=0; while :; do i=$((i + 1)); echo $i; sleep 0.05; done"
    # In memory: else its kernel may still write to the disk while the room is taken.
    caisson("run", "-d", "--pull", "never", "--name", "counter", "--memory", "256M", "--tmpfs", "/ram", "-u", "0", "--entrypoint", "", TINY, "sh", "-c", script, env=env).ok()
    def counted():
        return len(caisson("logs", "counter", env=env).ok().lines)
    def taken():
        caisson("cp", "counter:/ram/blob", WORK / "blob", env=env).ok()
        blob = (WORK / "blob").read_bytes()
        (WORK / "blob").unlink()
        return blob

    until(lambda: counted() > 3, 60)
    blob = taken()
    leave_free(home, 26 * MIB)  # a twentieth is 30
    until(lambda: state_of("counter", env)["state"] == "paused", 60, lambda: state_of("counter", env))
    before = counted()
    with slow_copy(env) as (command, archive):
        assert len(archive) == 65536
        time.sleep(3)
        archive += command.stdout.read()
        assert command.wait(60) == 0 and blob in archive
    # A few turns may pass before the kernel has stopped it; in these seconds it would take some forty.
    assert counted() <= before + 10, "the box went on meanwhile"
    assert state_of("counter", env)["state"] == "paused"

    # Whoever it is that writes now: it may be the box, if its kernel does not do as it is told.
    with slow_copy(env) as (command, _):
        began = free_bytes(home)
        fill(home)
        time.sleep(3)  # it looks ten times a second; what is read meanwhile could be all that is left of the copy
        said = command.communicate(timeout=60)[1].decode()
        assert command.returncode == 125 and "the copy in counter failed" in said, (command.returncode, said, began, "the copy went on")
        assert "host disk full" in said and "caisson reserve-release" in said, said
    assert state_of("counter", env)["state"] == "paused"
    assert taken() == blob  # the next one may

    for filler in home.parent.glob("filler*"):
        filler.unlink()
    until(lambda: state_of("counter", env)["state"] == "running", 30, lambda: state_of("counter", env))
    until(lambda: counted() > before + 10, 30)
