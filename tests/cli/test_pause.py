"""Boxes that are frozen for a while: their clocks afterwards, and what can be done to them meanwhile."""
import concurrent.futures
import os
import signal
import time

import pytest
from boxes import BASE, Started, caisson, inspect, listed, processes, start, until, until_state, wait_until_gone

pytestmark = pytest.mark.usefixtures("ends_boxes")

# Says the guest's time for each line that it gets.
CLOCK = "import sys, time\nprint('ready', flush=True)\nfor line in sys.stdin:\n  print(time.time_ns(), time.monotonic_ns(), flush=True)"


def distance(clock):
    """By how many seconds the guest's clock differs from the host's at least: its answer was made between our two looks."""
    before = time.time_ns()
    clock.process.stdin.write(b"now\n")
    guest, steady = map(int, clock.line().split())
    after = time.time_ns()
    return max(before - guest, guest - after, 0) / 1e9, steady


def test_the_guest_s_clock_after_a_pause():
    start("--name", "a", BASE, "sleep", "600")
    with Started("exec", "-i", "a", "python3", "-c", CLOCK, stdin=-1) as clock:
        assert clock.line() == b"ready\n"
        assert distance(clock)[0] < 0.05
        steady = distance(clock)[1]
        caisson("pause", "a").ok()
        time.sleep(5)
        assert caisson("resume", "a").ok().text == "a\n"
        off, steady_after = distance(clock)
        assert off < 0.05, "its clock stood still"
        assert steady_after - steady < 4e9, "it did stand still meanwhile"
    # And a command that begins now sees the same.
    before = time.time()
    guest = float(caisson("exec", "a", "date", "+%s.%N").ok().text)
    assert before - 0.05 <= guest <= time.time() + 0.05


def test_nothing_runs_while_it_is_paused():
    box = start("--name", "a", BASE, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done")
    until(lambda: len(caisson("logs", "a").text.splitlines()) > 5)
    assert caisson("pause", "a").ok().text == "a\n"
    record = listed()["a"]
    assert record["state"] == "paused" and "paused" in caisson("ls").text
    written = caisson("logs", "a").text

    def ticks():
        pid = inspect("a")["vmm_pid"]
        with open(f"/proc/{pid}/stat") as file:
            return sum(int(field) for field in file.read().rsplit(")", 1)[1].split()[11:13])

    used = ticks()
    time.sleep(1)
    assert caisson("logs", "a").text == written and ticks() - used < 20, "frozen"
    for arguments, word in ((("exec", "a", "true"), "paused"), (("exec", "-d", "a", "true"), "paused"), (("pause", "a"), "paused"),
                            (("rm", "a"), "paused")):
        refused = caisson(*arguments)
        assert refused.code == 125 and word in refused.said and refused.seconds < 2, refused
    # Looking and naming are no trouble.
    caisson("rename", "a", "b").ok()
    assert caisson("inspect", "b").ok() and caisson("ls", "-a", "-q").ok().lines == [box]
    caisson("resume", "b").ok()
    assert listed()["b"]["state"] == "running"
    until(lambda: len(caisson("logs", "b").text) > len(written))
    refused = caisson("resume", "b")
    assert refused.code == 125 and "not paused" in refused.said


def test_streams_go_on_where_they_were():
    start("--name", "a", BASE, "sleep", "600")
    with Started("exec", "a", "sh", "-c", "seq 1 300000; exit 6") as running:
        first = running.line()
        caisson("pause", "a").ok()
        caisson("resume", "a").ok()
        ended = running.end(60)
    assert ended.code == 6 and (first + ended.out) == b"".join(b"%d\n" % number for number in range(1, 300001))


@pytest.mark.parametrize("how, code", [(("stop",), {9}), (("stop", "-t", "0"), {9, 137}), (("kill",), {137}), (("kill", "-s", "TERM"), {9}),
                                       (("restart",), None)])
def test_a_paused_box_can_be_ended(how, code):
    start("--name", "a", BASE, "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    until(lambda: caisson("logs", "a").text)
    caisson("exec", "a", "sh", "-c", "echo kept > /file").ok()
    caisson("pause", "a").ok()
    done = caisson(*how, "a").ok()
    assert done.seconds < 8, done
    if how == ("kill", "-s", "TERM"):
        # A signal that it may catch waits until it goes on.
        assert listed()["a"]["state"] == "paused"
        caisson("resume", "a").ok()
        until_state("a", "stopped")
    record = listed()["a"]
    if code is None:
        assert record["state"] == "running"
    else:
        assert record["state"] == "stopped" and record["exit_code"] in code, record
        caisson("start", "a").ok()
    assert caisson("exec", "a", "cat", "/file").ok().text == "kept\n"


def test_a_paused_box_can_be_removed():
    start("--name", "a", BASE, "sleep", "600")
    caisson("pause", "a").ok()
    assert caisson("rm", "--force", "a").ok().seconds < 8
    wait_until_gone()
    start("--rm", "--name", "a", BASE, "sleep", "600")
    caisson("pause", "a").ok()
    caisson("stop", "-t", "0", "a").ok()
    wait_until_gone()


def test_kill_9_while_it_is_paused():
    for victim, reason in (("supervisor_pid", "supervisor died"), ("vmm_pid", "virtual machine")):
        box = start("--name", "a", "--replace", BASE, "sleep", "600")
        caisson("exec", "a", "sh", "-c", "echo kept > /file; sync").ok()
        caisson("pause", "a").ok()
        os.kill(inspect("a")[victim], signal.SIGKILL)
        until(lambda: not processes(box), 2)
        assert reason in until_state("a", "failed", seconds=2)["reason"]
        caisson("start", "a").ok()
        assert caisson("exec", "a", "cat", "/file").ok().text == "kept\n"


def test_what_does_not_run_cannot_be_paused():
    caisson("create", "--name", "a", BASE, "true").ok()
    for command in ("pause", "resume"):
        refused = caisson(command, "a")
        assert refused.code == 125 and "a is not started" in refused.said, refused
    assert caisson("run", "--name", "b", BASE, "true").code == 0
    refused = caisson("pause", "b")
    assert refused.code == 125 and "stopped" in refused.said


def test_time_limits_of_a_paused_box():
    """Its longest time is the host's; who waits for it hears how it ended."""
    start("--name", "a", "--max-duration", "1500ms", "--stop-timeout", "0s", BASE, "sleep", "600")
    caisson("pause", "a").ok()
    with Started("wait", "a") as waiting:
        assert waiting.end(15).ok().text == "124\n"
    assert listed()["a"]["state"] == "stopped"


def test_many_who_pause_and_resume_at_once_do_no_harm(ends_boxes):
    start("--name", "tossed", BASE, "sleep", "600")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for number in range(40):
            pool.submit(caisson, "pause" if number % 2 else "resume", "tossed")
    caisson("resume", "tossed")
    assert inspect("tossed")["state"] == "running", inspect("tossed")["reason"]
    assert caisson("exec", "tossed", "true").code == 0
