"""Boxes that outlive whoever started them: found again, entered, attached to, and what is left when they are killed."""
import os
import pty
import re
import signal
import subprocess
import threading
import time

import pytest
from boxes import (BASE, BIN, HOME, Started, box_ids, caisson, environment, inspect, listed, processes, start, until, until_state,
                   wait_until_gone)
from terminals import Session

pytestmark = pytest.mark.usefixtures("ends_boxes")

# Writes numbered files, each safely on the disk before its number is said.
WRITER = """
import os
os.makedirs('/work')
number = 0
while True:
    number += 1
    file = os.open(f'/work/{number}', os.O_WRONLY | os.O_CREAT)
    os.write(file, str(number).encode() * 1000)
    os.fsync(file)
    os.close(file)
    os.fsync(os.open('/work', os.O_RDONLY))
    print(number, flush=True)
"""
READER = """
import sys
for number in range(1, int(sys.argv[1]) + 1):
    assert open(f'/work/{number}').read() == str(number) * 1000, number
print(open('/sys/fs/ext4/vda/errors_count').read().strip())
"""


def numbers(text):
    return [int(line) for line in text.splitlines()]


def consecutive(text):
    """How many lines there are; each one more than the line before it, from 1."""
    found = numbers(text)
    assert found == list(range(1, len(found) + 1)), next(pair for pair in zip(found, range(1, len(found) + 1)) if pair[0] != pair[1])
    return len(found)


def nothing_runs_within(box, seconds, since):
    until(lambda: not processes(box), seconds - (time.monotonic() - since), lambda: processes(box))


def test_a_box_outlives_its_launcher_and_its_terminal():
    # A shell in a terminal of its own starts it; then the shell's whole group and the terminal are gone.
    pid, master = pty.fork()
    if pid == 0:
        os.execve("/bin/sh", ["sh", "-c", f'"$0" run -d --name a {BASE} sh -c "echo hello; exec sleep 600"; sleep 600', BIN],
                  environment())
    said = b""
    while not (printed := re.search(rb"^[0-9a-z]{26}(?=\r?\n)", said, re.M)):
        said += os.read(master, 4096)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(master)
    box = listed()["a"]
    assert printed.group().decode() == box["id"] and box["state"] == "running"
    assert caisson("exec", "a", "sh", "-c", "exit 42").code == 42
    assert caisson("logs", "a").ok().text == "hello\n"
    assert listed()["a"]["state"] == "running"


def test_setsid_in_a_group_that_is_killed():
    launcher = subprocess.Popen(["sh", "-c", f'setsid "$0" run -d --name a {BASE} sleep 600; echo started; sleep 600', BIN],
                                stdout=subprocess.PIPE, env=environment(), cwd="/", start_new_session=True)
    assert launcher.stdout.readline().strip().decode() in box_ids()
    assert launcher.stdout.readline() == b"started\n"
    os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait()
    launcher.stdout.close()
    supervisor = inspect("a")["supervisor_pid"]
    assert inspect("a")["state"] == "running"
    # Nothing of the launcher stays with it: its streams, its session, its directory.
    assert os.getsid(supervisor) == supervisor
    if os.geteuid() != 0:
        return  # nobody else may look: its memory and its descriptors are its own
    open_files = {name: os.readlink(f"/proc/{supervisor}/fd/{name}") for name in ("0", "1", "2")}
    assert open_files["0"] == open_files["1"] == "/dev/null" and open_files["2"].endswith("/shim.log"), open_files


def test_kill_9_of_the_supervisor():
    box = start("--name", "a", BASE, "sleep", "600")
    caisson("exec", "a", "sh", "-c", "echo kept > /file && sync").ok()
    os.kill(inspect("a")["supervisor_pid"], signal.SIGKILL)
    nothing_runs_within(box, 2, time.monotonic())
    record = listed()["a"]
    assert (record["state"], record["outcome"], record["exit_code"]) == ("failed", "failed", 125)
    assert record["reason"] == "supervisor died"
    assert inspect("a")["supervisor_pid"] is None
    assert caisson("wait", "a").ok().text == "125\n"
    assert caisson("start", "a").ok().text == "a\n"
    assert listed()["a"]["state"] == "running" and listed()["a"]["reason"] == ""
    assert caisson("exec", "a", "cat", "/file", "/sys/fs/ext4/vda/errors_count").ok().lines == ["kept", "0"]


@pytest.mark.parametrize("victim", ["supervisor_pid", "vmm_pid"])
def test_kill_9_while_it_writes(victim):
    """What was said to be on the disk is there after the next start, and its file system has no error."""
    box = start("--name", "a", "-e", "PYTHONUNBUFFERED=1", BASE, "sh", "-c",
                f"test -d /work || exec python3 -c \"{WRITER}\"; exec sleep 600")
    until(lambda: len(caisson("logs", "a").text.splitlines()) > 20)
    os.kill(inspect("a")[victim], signal.SIGKILL)
    killed = time.monotonic()
    nothing_runs_within(box, 2, killed)
    record = until_state("a", "failed", seconds=2)
    assert record["exit_code"] == 125
    assert ("supervisor" if victim == "supervisor_pid" else "virtual machine") in record["reason"], record
    said = consecutive(caisson("logs", "a").ok().text)
    caisson("start", "a").ok()
    assert caisson("exec", "a", "python3", "-c", READER, said).ok().text == "0\n"
    console = caisson("logs", "--source", "console", "a").text
    assert "EXT4-fs error" not in console and "EXT4-fs warning" not in console, console


def children(pid):
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            found += map(int, file.read().split())
    return found


def test_kill_9_of_each_process_below_the_supervisor():
    for number in range(4):  # its launcher, the jail's outer and first process, the machine
        box = start("--name", f"a{number}", BASE, "sleep", "600")
        below = children(inspect(box)["supervisor_pid"])
        for pid in below:
            below += children(pid)
        assert len(below) == 4, below
        os.kill(below[number], signal.SIGKILL)
        killed = time.monotonic()
        assert until_state(box, "failed", seconds=2)["reason"]
        nothing_runs_within(box, 2, killed)


def test_name_id_and_unique_beginning_everywhere():
    box = start("--name", "named", BASE, "sleep", "600")
    for reference in ("named", box, box[:20]):
        assert inspect(reference)["id"] == box
        assert caisson("exec", reference, "echo", "in").ok().text == "in\n"
        for command in ("logs", "pause", "resume"):
            caisson(command, reference).ok()
        execution = caisson("exec", "-d", reference, "sh", "-c", "exit 5").ok().text.strip()
        for part in (execution, execution[:20]):
            assert caisson("wait", "--execution", part, reference).ok().text == "5\n"
    for reference in ("named", box, box[:20]):
        caisson("restart", "-t", "0", reference).ok()
        caisson("stop", "-t", "0", reference).ok()
        assert caisson("wait", reference).ok().text == "137\n" or inspect(box)["exit_code"] == 143
        caisson("start", reference).ok()
        caisson("kill", reference).ok()
        caisson("rename", reference, "named-" + reference[:3]).ok()
        caisson("rename", box, "named").ok()
    # A beginning that fits two boxes is refused, by naming the trouble; the name of one wins over the beginning of others.
    other = caisson("create", "--name", "other", BASE, "true").ok().text.strip()
    shared = os.path.commonprefix([box, other])
    refused = caisson("rm", shared)
    assert refused.code != 0 and shared in refused.said and len(box_ids()) == 2, refused
    caisson("rename", "other", shared).ok()
    assert inspect(shared)["id"] == other
    caisson("rm", box[:20], other[:24]).ok()
    assert not box_ids()


def test_a_command_that_is_missing():
    missing = caisson("run", "-d", "--rm", "--name", "a", BASE, "/no/such")
    assert missing.code == 127 and "/no/such" in missing.said and missing.out == b"", missing
    wait_until_gone()
    # Without --rm the box stays, and tells why it never ran.
    missing = caisson("run", "-d", "--name", "a", BASE, "no-such")
    assert missing.code == 127 and "no-such" in missing.said and missing.out == b"", missing
    box = listed()["a"]
    assert (box["state"], box["exit_code"]) == ("stopped", 127) and "no-such" in box["reason"]
    again = caisson("start", "a")
    assert again.code == 127 and "no-such" in again.said, again
    for options, what in ((("-w", "/etc/passwd"), "/etc/passwd"), (("-u", "nobody-here"), "nobody-here")):
        failed = caisson("run", "-d", "--rm", *options, BASE, "true")
        assert failed.code == 126 and what in failed.said, failed


def test_rm_removes_a_detached_box_at_its_end():
    box = start("--rm", "--name", "a", BASE, "sh", "-c", "read line < /pipe-that-is-not-there; exec sleep 600")
    assert listed()["a"]["state"] == "running"
    with Started("wait", "a") as waiting:
        until(lambda: caisson("exec", "a", "true").code == 0)
        caisson("kill", "-s", "TERM", "a").ok()
        assert waiting.end(10).ok().text == "143\n"
    wait_until_gone()
    assert caisson("inspect", box).code == 125 and not listed()
    start("--rm", "--name", "a", BASE, "true")
    wait_until_gone(10)


def test_leaving_and_coming_back():
    with Session("run", "-it", "--name", "a", BASE, "sh", "-c", "stty -echo; echo ready; while read line; do echo got-$line; done") as session:
        session.wait_for("ready")
        session.type("one\r")
        session.wait_for("got-one")
        session.type("\x10\x11")
        assert session.end()[0] == 0
    assert listed()["a"]["state"] == "running"
    for word in ("two", "three"):
        with Session("attach", "--logs", "a") as session:
            session.wait_for("got-one")
            session.type(word + "\r")
            session.wait_for("got-" + word)
            if word == "two":
                session.type("\x10\x11")
            else:
                session.type("\x04")
            assert session.end()[0] == 0
    assert until_state("a", "stopped")["exit_code"] == 0


def test_attaching_with_logs_has_no_gap_and_no_repeat():
    start("--name", "a", BASE, "python3", "-c",
          "import itertools, time\nfor n in range(1, 20001):\n  print(n, flush=True)\n  if n % 200 == 0: time.sleep(0.02)")
    got = []

    def join(delay):
        time.sleep(delay)  # nothing is waited for: they come at different times
        got.append(caisson("attach", "--logs", "--no-stdin", "a", timeout=90))

    clients = [threading.Thread(target=join, args=(number * 0.4,)) for number in range(5)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert len(got) == 5
    for client in got:
        assert client.code == 0 and consecutive(client.text) == 20000, client
    assert consecutive(caisson("logs", "a").ok().text) == 20000


TALKER = """
import select, sys
while not select.select([0], [], [], 0.05)[0]:
    print('tick', flush=True)
print('\\n'.join(map(str, range(1, 50001))), flush=True)
print('\\n'.join(map(str, range(1, 50001))), file=sys.stderr, flush=True)
sys.exit(7)
"""


def test_two_clients_both_get_everything():
    start("--name", "a", "-i", BASE, "python3", "-c", TALKER)
    results = {}

    def collect(name, client):
        results[name] = client.end(60)

    with Started("attach", "--no-stdin", "a") as reader, Started("attach", "a", stdin=subprocess.PIPE) as writer:
        for client in (reader, writer):
            assert client.line() == b"tick\n"
        writer.process.stdin.write(b"go\n")
        threads = [threading.Thread(target=collect, args=pair) for pair in (("reader", reader), ("writer", writer))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = b"".join(b"%d\n" % number for number in range(1, 50001))
    for result in results.values():
        assert (result.code, result.out.replace(b"tick\n", b""), result.err) == (7, expected, expected)


def test_an_execution_that_never_was():
    start("--name", "a", BASE, "sleep", "600")
    for command in (("attach", "--execution", "01jzzzzzzzzzzzzzzzzzzzzzzz", "a"), ("attach", "--execution", "nothing", "a"),
                    ("wait", "--execution", "01jzzz", "a"), ("logs", "--execution", "01jzzz", "a"),
                    ("kill", "--execution", "01jzzz", "a")):
        refused = caisson(*command)
        assert refused.code == 125 and "no execution" in refused.said and command[2] in refused.said, refused
    for command in (("attach",), ("exec",), ("wait",), ("logs",), ("stop",), ("kill",), ("pause",), ("start",), ("restart",),
                    ("inspect",)):
        refused = caisson(*command, "no-such-box", *(["true"] if command == ("exec",) else []))
        assert refused.code == 125 and "no-such-box" in refused.said, refused


def test_an_execution_that_is_over_can_be_waited_for_and_read():
    start("--name", "a", BASE, "sleep", "600")
    execution = caisson("exec", "-d", "a", "sh", "-c", "echo out; echo err >&2; exit 9").ok().text.strip()
    for _ in range(2):
        assert caisson("wait", "--execution", execution, "a").ok().text == "9\n"
        logs = caisson("logs", "--execution", execution, "a").ok()
        assert (logs.out, logs.err) == (b"out\n", b"err\n")
        over = caisson("attach", "--execution", execution, "a")
        assert over.code == 125 and "over" in over.said and "logs" in over.said, over
        record, = inspect("a")["executions"]
        assert (record["id"], record["state"], record["exit_code"], record["outcome"]) == (execution, "ended", 9, "exited")
        caisson("stop", "-t", "0", "a").ok()


def test_coming_back_to_an_execution():
    start("--name", "a", BASE, "sleep", "600")
    execution = caisson("exec", "-d", "a", "sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo $i; done; "
                                                       "sleep 1; seq 2001 30000; exit 4").ok().text.strip()
    clients = []
    for _ in range(3):
        clients.append(Started("attach", "--logs", "--execution", execution, "a"))
    try:
        # One that goes away disturbs nobody.
        clients.pop().__exit__()
        for client in clients:
            ended = client.end(30)
            assert ended.code == 4 and consecutive(ended.text) == 30000
    finally:
        for client in clients:
            client.__exit__()
    assert consecutive(caisson("logs", "--execution", execution, "a").ok().text) == 30000


def test_by_label():
    for number in range(3):
        caisson("create", "--name", f"b{number}", "-l", "job=night", "-l", f"n={number}", BASE, "sleep", "600").ok()
    caisson("create", "--name", "alone", BASE, "sleep", "600").ok()
    assert set(listed("--label", "job=night")) == set(listed("--label", "job")) == {"b0", "b1", "b2"}
    assert set(listed("--label", "job=night", "--label", "n=1")) == {"b1"} and not listed("--label", "job=day")
    assert listed()["b1"]["labels"] == {"job": "night", "n": "1"}

    def states():
        return [box["state"] for name, box in sorted(listed().items()) if name != "alone"]

    for command, state in ((("start",), "running"), (("pause",), "paused"), (("resume",), "running"),
                           (("stop", "-t", "0"), "stopped")):
        done = caisson(*command, "--label", "job=night").ok()
        assert len(done.lines) == 3 and states() == [state] * 3, done
    caisson("rm", "--label", "n=0").ok()
    assert set(listed()) == {"b1", "b2", "alone"}
    assert caisson("prune", "--label", "n=1").ok().lines == ["b1"]
    assert listed()["alone"]["state"] == "created"
    both = caisson("rm", "--label", "job", "alone")
    assert both.code == 2 and "--label" in both.said
    assert caisson("rm").code == 2
    assert set(caisson("prune").ok().lines) == {"b2", "alone"} and not listed()


def test_prune_leaves_what_runs():
    running = start("--name", "running", BASE, "sleep", "600")
    paused = start("--name", "paused", BASE, "sleep", "600")
    caisson("pause", "paused").ok()
    assert caisson("run", "--name", "over", BASE, "true").code == 0
    assert [box["name"] for box in caisson("prune", "--format", "json").json()] == ["over"]
    assert box_ids() == sorted([running, paused])


def test_one_failure_of_many_does_not_stop_the_others():
    for name in ("a", "b"):
        caisson("create", "--name", name, BASE, "true").ok()
    done = caisson("rm", "a", "nothing", "b")
    assert done.code == 125 and done.lines == ["a", "b"] and "nothing" in done.said
    assert not listed()


def test_replacing():
    first = start("--name", "a", BASE, "sleep", "600")
    taken = caisson("run", "-d", "--name", "a", BASE, "sleep", "600")
    assert taken.code == 125 and "'a'" in taken.said
    second = start("--name", "a", "--replace", BASE, "sleep", "600")
    assert box_ids() == [second] and second != first
    third = caisson("create", "--name", "a", "--replace", BASE, "true").ok().text.strip()
    assert box_ids() == [third] and not processes(second)
    # Only a name is replaced, never a box whose id begins so.
    fourth = start("--name", third[:24], "--replace", BASE, "sleep", "600")
    assert sorted(box_ids()) == sorted([third, fourth])


def test_renaming():
    box = start("--name", "a", BASE, "sleep", "600")
    caisson("create", "--name", "b", BASE, "true").ok()
    taken = caisson("rename", "a", "b")
    assert taken.code == 125 and "'b'" in taken.said
    for name in ("", "../x", "a b", "x" * 65):
        assert caisson("rename", "a", name).code == 2, name
    caisson("rename", "a", "c").ok()
    assert listed()["c"]["id"] == box and "a" not in listed()
    assert caisson("exec", "c", "true").code == 0 and caisson("exec", "a", "true").code == 125
    caisson("stop", "-t", "0", "c").ok()
    assert listed()["c"]["state"] == "stopped"


def test_created_and_started_later():
    box = caisson("create", "--name", "a", BASE, "sh", "-c", "echo run; exit 3").ok().text.strip()
    record = listed()["a"]
    assert (record["id"], record["state"], record["started_ms"], record["exit_code"]) == (box, "created", 0, None)
    assert not (HOME / "boxes" / box / "disk.qcow2").exists() and not processes(box)
    never = caisson("wait", "a")
    assert never.code == 125 and "never started" in never.said
    attached = caisson("start", "-a", "a")
    assert (attached.code, attached.text) == (3, "run\n"), attached
    assert until_state("a", "stopped")["exit_code"] == 3
    assert caisson("start", "a").code == 0
    assert caisson("wait", "a").ok().text == "3\n"
    assert caisson("logs", "a").ok().text == "run\nrun\n"
