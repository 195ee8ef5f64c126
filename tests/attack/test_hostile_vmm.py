"""A taken-over QEMU cannot outlive its box nor keep caisson from ending it: hostile_vmm.cc runs in QEMU's place."""
import os
import pathlib
import shutil
import subprocess
import time

import pytest
from boxes import BASE, BIN, IS_ROOT, WORK, Started, caisson, environment, shim_of, wait_until_gone

PROGRAM = pathlib.Path(BIN).parent.parent / "tests/hostile_vmm"


@pytest.fixture
def hostile():
    """Makes assets with a hostile VMM and returns the environment that takes them."""
    made = []

    def make(behaviour):
        place = WORK / f"hostile-{behaviour}"
        made.append(place)
        shutil.rmtree(place, ignore_errors=True)
        for name in ("kernel/modules", "vmm/usr/bin", "vmm/usr/lib", "vmm/usr/share/qemu", "vmm/usr/share/seabios",
                     "vmm/template", "vmm/box", "vmm/disk", "vmm/run"):
            (place / name).mkdir(parents=True)
        for name, content in (("vmm.version", "10"), ("kernel/version", "6"), ("kernel/vmlinux", "none"),
                              ("kernel/modules.list", ""), ("vmm/behaviour", behaviour)):
            (place / name).write_text(content + "\n")
        shutil.copy(PROGRAM, place / "vmm/usr/bin/qemu-system-x86_64")
        for path in (place, *place.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.name.startswith("qemu") else 0o644)
        return environment(CAISSON_ASSETS=str(place), CAISSON_ACCEL="tcg")

    yield make
    for place in made:
        shutil.rmtree(place)


def run_until_timeout(env, limit):
    """A box of the hostile VMM that is to be killed after `limit` seconds."""
    ended = caisson("run", "--rm", "--cold", "--timeout", f"{limit}s", BASE, "true", env=env)
    assert ended.code == 124, ended
    return ended


def test_a_vmm_that_cut_every_tie_ends_with_its_box(hostile):
    ended = run_until_timeout(hostile("outlive"), 1)
    assert ended.seconds < 4, ended
    wait_until_gone(0.5)
    assert caisson("ls", "--all", "--format", "json").json() == []


def test_a_vmm_that_cut_every_tie_is_found_when_its_supervisor_was_killed(hostile):
    env = hostile("outlive")
    with Started("run", "--rm", "--cold", BASE, "true", env=env) as box:
        deadline = time.monotonic() + 10
        shim = None
        while time.monotonic() < deadline and not shim:
            found = shim_of(box.pid)
            if found and pathlib.Path(f"/proc/{found}/task/{found}/children").read_text().split():
                shim = found
        time.sleep(1)  # for the VMM to do its worst; it cannot be asked
        os.kill(shim, 9)
        box.process.kill()
        box.process.wait()
        # Nobody is left who knows the machine; the next process that opens the home looks for it.
        caisson("ls").ok()
        wait_until_gone(2)


# ---- what it takes on the host ----

needs_limits = pytest.mark.skipif(not IS_ROOT, reason="only root may make control groups everywhere; the numbers are unit-tested")


@needs_limits
@pytest.mark.parametrize("behaviour,why", [("eat_memory", "the VMM was killed: it reached its memory limit on the host"),
                                           ("fill_with_threads", "reached its limit of 129 processes and threads")])
def test_a_vmm_that_takes_too_much_dies_alone_and_says_why(hostile, behaviour, why):
    with Started("run", "--rm", "-i", BASE, "sh", "-c", "echo ready; read line; echo $line", stdin=subprocess.PIPE) as neighbour:
        neighbour.line()
        ended = caisson("run", "--rm", "--cold", "--timeout", "30s", BASE, "true", env=hostile(behaviour))
        assert ended.code == 125 and why in ended.said, ended
        neighbour.process.stdin.write(b"alive\n")
        assert neighbour.line() == b"alive\n"
    wait_until_gone(2)


def test_a_console_that_never_stops_does_not_delay_the_end(hostile):
    ended = run_until_timeout(hostile("flood_console"), 1)
    assert ended.seconds < 4, ended


@pytest.mark.parametrize("what", ["lines", "events"])
def test_a_control_socket_that_never_stops_ends_the_box(hostile, what):
    ended = caisson("run", "--rm", "--cold", "--timeout", "5s", BASE, "true", env=hostile(f"flood_qmp_{what}"))
    assert ended.code == 125 and "lines in a second" in ended.said, ended
    assert ended.seconds < 4, ended


def test_a_vmm_that_makes_a_forbidden_call_is_killed_and_the_box_says_why(hostile):
    env = hostile("forbidden_call")
    ended = caisson("run", "--rm", "--cold", BASE, "true", env=env)
    assert ended.code == 125 and "the VMM was killed by its system call filter" in ended.said, ended
    # A box that stays keeps it.
    caisson("create", "--cold", "--name", "forbidden", BASE, "true", env=env).ok()
    try:
        started = caisson("start", "forbidden", env=env)
        assert started.code == 125 and "system call filter" in started.said, started
        shown = caisson("inspect", "--format", "json", "forbidden", env=env).json()
        assert "the VMM was killed by its system call filter" in str(shown), shown
        listed = caisson("ls", "--all", env=env)
        assert "failed" in listed.text, listed
    finally:
        caisson("rm", "--force", "forbidden", env=env)
