"""Further commands in a box that runs: their codes, streams, users, terminals and ends; many at once; detached ones."""
import concurrent.futures
import os
import signal
import subprocess
import time

import pytest
from boxes import (BASE, Started, caisson, environment, inspect, listed, pipeline, processes, start, until)
from terminals import Session

pytestmark = pytest.mark.keeps
ROUNDS = int(os.environ.get("CAISSON_EXEC_ROUNDS", "2"))


def one_for_many(name, *arguments):
    box = start("--name", name, *arguments, "sleep", "6000")
    yield name
    caisson("rm", "--force", name).ok()
    until(lambda: not processes(box), 2, lambda: processes(box))


@pytest.fixture(scope="module")
def shared():
    """One box for most of these tests: what a test starts in it, it ends."""
    yield from one_for_many("shared", BASE)


@pytest.fixture(scope="module")
def alice(tiny):
    """A box of an image with a user, a directory and variables of its own."""
    yield from one_for_many("alice", "-e", "OF=box", tiny)


def enter(box, *arguments, **more):
    return caisson("exec", *arguments[:-1], box, "sh", "-c", arguments[-1], **more)


def executions(box):
    return [execution for execution in inspect(box)["executions"] if execution["state"] == "running"]


# Processes in the box whose command line has a word; not the one that looks.
LOOK = """
import os, sys
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        words = open(f'/proc/{pid}/cmdline').read()
    except OSError:
        continue
    if sys.argv[1] in words and int(pid) != os.getpid():
        print(pid, words)
"""


def inside(box, word):
    return caisson("exec", box, "python3", "-c", LOOK, word).ok().lines


@pytest.mark.parametrize("text, code", [("exit 0", 0), ("exit 1", 1), ("exit 42", 42), ("exit 255", 255), ("kill -KILL $$", 137),
                                        ("kill -TERM $$", 143), ("kill -SEGV $$", 139)])
def test_codes(shared, text, code):
    result = enter(shared, text)
    assert result.code == code, result


def test_streams_apart_and_to_the_last_byte(shared):
    for size in (1, 4096, 65537, 3 << 20):
        result = enter(shared, f"head -c {size} /dev/zero; head -c {size} /dev/zero | tr '\\0' x >&2; exit 6")
        assert (result.code, len(result.out), len(result.err)) == (6, size, size) and not result.out.strip(b"\0")


def test_input_byte_for_byte(shared):
    data = os.urandom(8 << 20)
    assert caisson("exec", "-i", shared, "cat", input=data).ok().out == data
    assert caisson("exec", "-i", shared, "wc", "-c", input=data).ok().text.strip() == str(len(data))
    assert caisson("exec", "-i", shared, "cat", input=b"").ok().out == b""


def test_without_i_there_is_no_input(shared):
    with Started("exec", shared, "wc", "-c", stdin=subprocess.PIPE) as reading:
        assert reading.process.wait(10) == 0 and reading.process.stdout.read().strip() == b"0"


def test_a_command_that_does_not_read_its_input(shared):
    result = pipeline(f'yes | "$0" exec -i {shared} sh -c "head -c 4; exit 5"; echo code $?')
    assert result.text.endswith("code 5\n") and result.text.startswith("y\ny\n"), result


def test_a_reader_that_leaves_ends_the_command(shared):
    result = pipeline(f'"$0" exec {shared} yes reader-left | head -1')
    assert result.text == "reader-left\n" and result.seconds < 10
    until(lambda: not inside(shared, "reader-left"), 5)


def test_a_terminal(shared):
    for options in (("-it",), ("-t", "-i", "-e", "TERM=dumb")):
        with Session("exec", *options, shared, "sh", "-c", "tty; stty size; echo $TERM; read line; echo got-$line; exit 3") as session:
            session.wait_for("33 99")
            session.wait_for("dumb" if len(options) > 1 else "xterm")
            session.type("word\r")
            session.wait_for("got-word")
            assert session.end()[0] == 3
    with Session("exec", "-it", shared, "sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done") as session:
        session.wait_for("ready")
        session.resize(11, 22)
        session.wait_for("11 22")
        session.type("\x1c")
        assert session.end()[0] == 131
    refused = caisson("exec", "-it", shared, "true", input=b"")
    assert refused.code == 2 and "-t" in refused.said


def test_leaving_an_execution_and_coming_back(shared):
    with Session("exec", "-it", shared, "sh", "-c", "stty -echo; echo ready; while read line; do echo got-$line; done; exit 8") as session:
        session.wait_for("ready")
        session.type("\x10\x11")
        assert session.end()[0] == 0
    execution, = executions(shared)
    assert execution["detached"]
    with Session("attach", "--execution", execution["id"], shared) as session:
        session.type("back\r")
        session.wait_for("got-back")
        session.type("\x04")
        assert session.end()[0] == 8
    assert caisson("wait", "--execution", execution["id"], shared).ok().text == "8\n"


def test_environment_directory_and_user(shared, alice, tmp_path):
    variables = tmp_path / "variables"
    variables.write_text("# not this\nONE=file\nTWO=file\nMINE\n")
    with_mine = environment(MINE="mine")
    result = caisson("exec", "--env-file", variables, "-e", "TWO=option", "-e", "EMPTY=", shared, "env", env=with_mine).ok()
    assert {"ONE=file", "TWO=option", "EMPTY=", "MINE=mine"} <= set(result.lines)
    assert caisson("exec", "-w", "/usr/bin", shared, "pwd").ok().text == "/usr/bin\n"
    # What the box has is the default; its user's, too.
    assert caisson("exec", alice, "sh", "-c", "id -un; pwd; echo $OF $COLOUR").ok().lines == ["alice", "/made/by/image", "box blue"]
    result = caisson("exec", "-u", "root", "-w", "/", "-e", "COLOUR=red", alice, "sh", "-c", "id -u; pwd; echo $COLOUR $SHAPE").ok()
    assert result.lines == ["0", "/", "red round"]
    assert caisson("exec", "-u", "bob:staff", alice, "id").ok().text == "uid=1001(bob) gid=50(staff) groups=50(staff)\n"
    assert caisson("exec", "-u", "1234:567", alice, "id").ok().text.startswith("uid=1234 gid=567")


def test_what_cannot_be_started_says_which(shared):
    cases = [(("/no/such/program",), 127, "/no/such/program"), (("no-such-program",), 127, "no-such-program"),
             (("/etc/passwd",), 126, "/etc/passwd"), (("/usr",), 126, "/usr")]
    for command, code, what in cases:
        failed = caisson("exec", shared, *command)
        assert failed.code == code and what in failed.said and failed.out == b"", failed
    for options, what in ((("-w", "/etc/passwd"), "/etc/passwd"), (("-w", "/no/such/directory"), "/no/such/directory"),
                          (("-u", "nobody-here"), "nobody-here"), (("-u", "root:no-such-group"), "no-such-group")):
        failed = caisson("exec", *options, shared, "true")
        assert failed.code == 126 and what in failed.said, failed
        detached = caisson("exec", "-d", *options, shared, "true")
        assert detached.code == 126 and what in detached.said and detached.out == b"", detached
    assert not executions(shared)
    for arguments in (("-w", "relative"), ("--timeout", "soon"), ("--detach-keys", "nonsense"), ("--no-such-option",)):
        assert caisson("exec", *arguments, shared, "true").code == 2, arguments
    assert caisson("exec", shared).code == 2 and caisson("exec").code == 2
    # The box has not minded any of it.
    assert caisson("exec", shared, "true").code == 0


def test_a_time_limit(shared):
    late = enter(shared, "--timeout", "500ms", "echo begun; exec sleep 100.25")
    assert (late.code, late.text) == (124, "begun\n") and "time" in late.said and late.seconds < 5, late
    assert enter(shared, "--timeout", "20s", "exit 3").code == 3
    assert enter(shared, "--timeout", "300ms", "trap '' TERM INT; while :; do :; done").code == 124
    # Its children go with it.
    assert enter(shared, "--timeout", "500ms", "sleep 100.35 & sleep 100.25; true").code == 124
    until(lambda: not inside(shared, "100.25") and not inside(shared, "100.35"), 5)


def test_signals_of_the_caller_reach_the_command(shared):
    with Started("exec", shared, "sh", "-c", "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done") as entered:
        entered.line()
        entered.send(signal.SIGINT)
        ended = entered.end(10)
        assert (ended.code, ended.out) == (9, b"interrupted\n")
    with Started("exec", shared, "sleep", "100.5") as entered:
        until(lambda: inside(shared, "100.5"))
        entered.send(signal.SIGTERM)
        assert entered.end(10).code == 143


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_the_command_ends_with_its_client(shared, number):
    # One that is killed takes its children along; a signal that it may catch is its own business.
    command = f"sleep 100.{number:d}7; true" if number == signal.SIGKILL else f"exec sleep 100.{number:d}7"
    with Started("exec", shared, "sh", "-c", command) as entered:
        until(lambda: any(line.split()[1].startswith("sleep") for line in inside(shared, f"100.{number:d}7")))
        entered.send(number)
        entered.process.wait()
    until(lambda: not inside(shared, f"100.{number:d}7"), 5)
    assert not executions(shared)


def test_its_children_keep_nothing_open(shared):
    """An execution is over with its process; what that has left behind goes on without a listener."""
    result = enter(shared, "sleep 100.75 & echo parent; exit 2")
    assert (result.code, result.text) == (2, "parent\n") and result.seconds < 5
    left, = inside(shared, "100.75")
    enter(shared, "kill " + left.split()[0]).ok()
    until(lambda: not inside(shared, "100.75"), 5)


def test_detached(shared):
    execution = caisson("exec", "-d", shared, "sh", "-c", "echo one; echo two >&2; sleep 0.3; echo three; exit 12").ok().text.strip()
    assert [(running["id"], running["command"][0]) for running in executions(shared)] == [(execution, "sh")]
    assert caisson("wait", "--execution", execution, shared).ok().text == "12\n"
    logs = caisson("logs", "--execution", execution, shared).ok()
    assert (logs.out, logs.err) == (b"one\nthree\n", b"two\n")
    assert "one" not in caisson("logs", shared).ok().text
    long = caisson("exec", "-d", shared, "sleep", "1000").ok().text.strip()
    caisson("kill", "-s", "TERM", "--execution", long, shared).ok()
    assert caisson("wait", "--execution", long, shared).ok().text == "143\n"
    timed = caisson("exec", "-d", "--timeout", "300ms", shared, "sleep", "1000").ok().text.strip()
    assert caisson("wait", "--execution", timed, shared).ok().text == "124\n"
    record = next(found for found in inspect(shared)["executions"] if found["id"] == timed)
    assert record["outcome"] == "timed_out" and record["exit_code"] == 124 and record["started_ms"] <= record["finished_ms"]
    followed = caisson("exec", "-d", shared, "sh", "-c", "seq 1 20000; sleep 0.5; seq 20001 20100").ok().text.strip()
    assert caisson("logs", "-f", "--execution", followed, shared, timeout=30).ok().lines == [str(n) for n in range(1, 20101)]


def test_many_at_once(shared):
    def one(number):
        text = f"seq -f '{number} out %.0f' 4000 & seq -f '{number} err %.0f' 4000 >&2; wait; exit {number}"
        return number, enter(shared, text, timeout=120)

    started = time.monotonic()
    for _ in range(ROUNDS):
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            for number, result in pool.map(one, range(1, 33)):
                assert result.code == number, result
                for stream, got in ((b"out", result.out), (b"err", result.err)):
                    assert got == b"".join(b"%d %s %d\n" % (number, stream, n) for n in range(1, 4001)), (number, stream)
    print(f"{ROUNDS} rounds took {time.monotonic() - started:.1f} s")
    assert not executions(shared)


def test_more_than_the_limit_is_refused(shared):
    """Beyond what one box takes at once: a clear message, and no harm to the others."""
    waiting = []
    try:
        refused = None
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for result in pool.map(lambda _: caisson("exec", "-d", shared, "sleep", "1000.5"), range(140)):
                if result.code == 0:
                    waiting.append(result.text.strip())
                else:
                    refused = result
        assert refused and refused.code == 125 and "128" in refused.said and "at once" in refused.said, refused
        assert 100 < len(waiting) <= 128
    finally:
        caisson("exec", "-d", shared, "true")
        for execution in waiting:
            caisson("kill", "--execution", execution, shared).ok()
    until(lambda: not executions(shared), 10)
    assert caisson("exec", shared, "true").code == 0


def test_a_box_that_does_not_run():
    try:
        caisson("create", "--name", "idle", BASE, "sleep", "100").ok()
        for prepare, words in (((), "not started"), (("start",), None), (("pause",), "paused"), (("resume",), None),
                               (("stop", "-t", "0"), "stopped")):
            if prepare:
                caisson(*prepare, "idle").ok()
            result = caisson("exec", "idle", "true")
            if words is None:
                assert result.code == 0, result
            else:
                assert result.code == 125 and "idle" in result.said and words in result.said and result.seconds < 2, result
                assert caisson("exec", "-d", "idle", "true").code == 125
    finally:
        caisson("rm", "--force", "idle").ok()


@pytest.mark.parametrize("how", [("stop", "-t", "0"), ("kill",), ("rm", "--force")])
def test_the_box_ends_under_a_command(how):
    start("--name", "ending", BASE, "sleep", "100")
    try:
        detached = caisson("exec", "-d", "ending", "sleep", "100").ok().text.strip()
        with Started("exec", "ending", "sh", "-c", "echo ready; exec sleep 100") as entered:
            entered.line()
            caisson(*how, "ending").ok()
            ended = entered.end(10)
            assert ended.code in (125, 137) and ended.out == b"", ended
            assert ended.code == 137 or "ended" in ended.said or "died" in ended.said, ended
        if how[0] != "rm":
            record, = inspect("ending")["executions"]
            assert (record["id"], record["state"]) == (detached, "ended") and record["exit_code"] in (125, 137), record
            assert caisson("wait", "--execution", detached, "ending").ok().text in ("125\n", "137\n")
    finally:
        if "ending" in listed():
            caisson("rm", "--force", "ending")


def test_long_commands_do_not_hurt_their_supervisor(ends_boxes):
    """What is shown of them has a bound: together they are larger than any message."""
    start("--name", "wordy", BASE, "sleep", "600")
    word = "x" * 100_000
    for _ in range(3):
        caisson("exec", "-d", "wordy", "sh", "-c", "sleep 600", *[word] * 15).ok()
    record = inspect("wordy")
    assert record["state"] == "running" and len(record["executions"]) == 3
    assert all(len("".join(execution["command"])) < 5000 for execution in record["executions"])
