"""kill -9 on each process of a box in turn: within 2 s nothing of the box is left."""
import os
import signal
import time

import pytest
from boxes import (BASE, Started, box_ids, caisson, leftovers, of_role, one_box, processes, run, shim_of, start, until, until_state,
                   wait_until_gone)


def started(*options):
    return Started("run", *options, BASE, "sh", "-c", "echo ready; sleep 100; sleep 100")


def test_a_box_consists_of_what_the_others_below_kill():
    with started("--rm") as box:
        box.line()
        roles = sorted(process.role for process in processes(one_box()))
        assert roles == ["bwrap", "bwrap", "cli", "launcher", "shim", "vmm"]


@pytest.mark.parametrize("role, code, says", [
    ("shim", 125, "supervisor died"),
    ("launcher", 125, "the process that runs the box's virtual machine died (killed by signal 9)"),
    ("vmm", 125, "virtual machine"),
    ("bwrap", 125, "virtual machine"),
])
def test_kill_9(role, code, says):
    with started("--rm") as box:
        box.line()
        # Of the two bwrap processes the outer one, whose parent is the launcher.
        victim = min(of_role(role, one_box()), key=lambda process: process.pid)
        victim.kill()
        killed = time.monotonic()
        ended = box.end(5)
        assert time.monotonic() - killed < 2
        assert ended.code == code and says in ended.said, ended
        wait_until_gone(2 - (time.monotonic() - killed))
    assert caisson("ls", "--all", "--format", "json").json() == []


def test_a_supervisor_that_its_filter_kills():
    """As a forbidden system call does it: the next one to open the home knows it, and nothing is left."""
    box = start("--name", "filtered", BASE, "sleep", "600")
    of_role("shim", box)[0].kill(signal.SIGSYS)
    record = until_state("filtered", "failed", seconds=5)
    assert "supervisor died" in record["reason"] and record["exit_code"] == 125, record
    until(lambda: not processes(box), 2)
    caisson("rm", "filtered").ok()


def test_kill_9_of_cli_and_shim_at_once():
    """Nobody is left to end the machine, and nobody opens the home: it ends by itself."""
    with started("--rm") as box:
        box.line()
        name = one_box()
        shim, = of_role("shim", name)
        box.send(signal.SIGSTOP)  # or it would see the shim's end, or the shim its
        shim.kill()
        box.process.kill()
        box.process.wait()
        deadline = time.monotonic() + 2
        while of_role("vmm", name) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = of_role("vmm", name)
        for process in left:
            process.kill()
        assert not left, "the machine outlives its supervisor"
    assert caisson("ls", "--all", "--format", "json").json() == []


def test_kill_9_of_the_inner_bwrap():
    with started("--rm") as box:
        box.line()
        max(of_role("bwrap", one_box()), key=lambda process: process.pid).kill()
        assert box.end(5).code == 125
        wait_until_gone(2)


def test_kill_9_of_the_cli():
    with started("--rm") as box:
        box.line()
        box.process.kill()
        box.process.wait()
        wait_until_gone(2)
    assert caisson("ls", "--all", "--format", "json").json() == []


def test_kill_9_of_the_cli_while_the_box_starts():
    for delay in (0.02, 0.1, 0.25, 0.4):
        with started("--rm") as box:
            time.sleep(delay)
            box.process.kill()
            box.process.wait()
            # The launcher may have died between making the record and starting the supervisor: then the next process
            # that opens the home tidies up.
            time.sleep(0.3)
            caisson("ls").ok()
            wait_until_gone(2)
    assert caisson("ls", "--all", "--format", "json").json() == []


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


@pytest.mark.parametrize("role", ["cli", "shim", "launcher"])
def test_kill_9_while_the_jail_is_made(role):
    # Between the start of bwrap and the start of the VMM there are moments in which not everything is tied to its owner.
    for step in range(8):
        with started("--rm") as box:
            deadline = time.monotonic() + 10
            shim = launcher = bwrap = None
            while not bwrap and time.monotonic() < deadline:
                shim = shim or shim_of(box.pid)
                launcher = launcher or (shim and next(iter(children(shim)), None))
                bwrap = launcher and next(iter(children(launcher)), None)
            assert bwrap, "the box did not start"
            time.sleep(step * 0.002)
            os.kill({"cli": box.pid, "shim": shim, "launcher": launcher}[role], signal.SIGKILL)
            if role != "launcher":
                box.process.kill()
            box.process.wait()
            # With both gone the next process that opens the home tidies up.
            deadline = time.monotonic() + 2.5
            while caisson("ls").ok() and leftovers() and time.monotonic() < deadline:
                time.sleep(0.1)
            try:
                assert not leftovers()
            finally:
                for process in processes():
                    process.kill()
    caisson("ls").ok()


def test_kill_9_of_everything_at_once():
    with started("--rm") as box:
        box.line()
        for process in processes(one_box()):
            try:
                process.kill()
            except ProcessLookupError:
                pass
        box.process.wait()
        for _ in range(40):
            if not processes():
                break
            time.sleep(0.05)
        assert not processes()
    # Nobody was left to remove the directory; whoever opens the home next does it.
    assert caisson("ls", "--all", "--format", "json").json() == []
    assert not leftovers()


@pytest.mark.keeps
def test_a_kept_box_keeps_a_readable_cause(kept_boxes):
    with started("--name", "murdered") as box:
        box.line()
        of_role("vmm", one_box())[0].kill()
        assert box.end(5).code == 125
    record, = caisson("ls", "--all", "--format", "json").json()
    assert record["name"] == "murdered" and record["exit_code"] == 125 and record["state"] == "failed"
    assert "virtual machine" in record["reason"], record
    with started("--name", "orphaned") as box:
        box.line()
        of_role("shim", next(name for name in box_ids() if name != record["id"]))[0].kill()
        box.end(5)
    record = next(row for row in caisson("ls", "--all", "--format", "json").json() if row["name"] == "orphaned")
    assert record["state"] == "failed" and "supervisor" in record["reason"], record
    caisson("rm", "murdered", "orphaned").ok()
    assert not box_ids() and not leftovers()


def test_the_launcher_s_death_ends_an_attached_box_whatever_holds_its_pipes():
    # The command's output goes to a pipe that somebody else still has open.
    reader, writer = os.pipe()
    with Started("run", "--rm", BASE, "sh", "-c", "echo ready; sleep 100", stdout=writer) as box:
        assert os.read(reader, 6) == b"ready\n"
        box.process.send_signal(signal.SIGKILL)
        box.process.wait()
        wait_until_gone(2)
    os.close(reader)
    os.close(writer)


def test_a_supervisor_that_was_stopped_notices_its_launcher_s_death_later():
    with started("--rm") as box:
        box.line()
        shim = of_role("shim", one_box())[0]
        shim.kill(signal.SIGSTOP)
        box.process.kill()
        box.process.wait()
        shim.kill(signal.SIGCONT)
        wait_until_gone(2)


def test_failed_starts_leave_nothing():
    assert run(BASE, "/no/such").code == 127
    wait_until_gone(1)
    assert run("-u", "nobody-here", BASE, "true").code == 126
    wait_until_gone(1)
    assert run("--timeout", "300ms", BASE, "sleep", "9").code == 124
    wait_until_gone(1)
    assert not box_ids()
