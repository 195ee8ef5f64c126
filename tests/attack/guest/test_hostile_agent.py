"""A hostile program in the agent's place, as the first process of a guest under the real QEMU in the real jail: it writes
garbage, floods, forges and never reads. The host's memory stays bounded, only that box dies, and it says why.

What the supervisor alone answers to such a guest is in test_hostile_guest.py."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import time

import pytest
from boxes import BASE, BIN, HOME, WORK, caisson, environment, until
from watching import GUEST_MIB, Life, Sibling, fingerprint, highest_mib, of_role, MOST_SHIM_MIB, MOST_VMM_MIB

HOSTILE = pathlib.Path(os.environ["CAISSON_HOSTILE_GUEST"])
MOST_LOG_BYTES = 31 << 20  # three files of 10 MiB, and the record that crosses the line


@pytest.fixture(scope="module")
def hostile():
    """The environment and the program of an installation whose agent is the hostile one."""
    place = WORK / "hostile-install"
    shutil.rmtree(place, ignore_errors=True)
    (place / "bin").mkdir(parents=True)
    (place / "libexec/caisson").mkdir(parents=True)
    shutil.copy(BIN, place / "bin/caisson")
    for program in (pathlib.Path(BIN).parents[1] / "libexec/caisson").iterdir():
        shutil.copy(HOSTILE if program.name == "caisson-agent" else program, place / "libexec/caisson" / program.name)
    for path in (place, *place.rglob("*")):
        path.chmod(0o755)
    yield place / "bin/caisson"
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def sibling():
    box = Sibling()
    before = fingerprint()
    yield box
    box.is_well()
    assert fingerprint() == before
    caisson("rm", "--force", box.id)


@pytest.fixture(autouse=True)
def nothing_stays():
    """The sibling of this file lives as long as the file's tests."""
    yield


def arguments(how):
    return ("--rm", "--cold", "--memory", f"{GUEST_MIB}M", "--hostname", "behave-" + how.replace("_", "-"), BASE, "true")


@pytest.mark.parametrize("how, why", [
    ("floods_with_noise", "broke the protocol"),
    ("writes_without_credit", "sent more than it had credit for"),
    ("ends_a_stream_for_ever", "ended a stream twice"),
    ("repeats_that_it_started", "started what was not asked"),
    ("ends_what_never_was", "ended what did not run"),
    # Its guest resets as soon as it is gone, and QEMU may go before it has handed its last words over.
    ("exits_before_it_started", ("ended what did not run", "the guest stopped by itself")),
])
def test_it_loses_its_box_and_says_why(hostile, sibling, how, why):
    life = Life(arguments(how), 60, sibling, environment(), program=hostile, stdout=subprocess.DEVNULL)
    print(how, life)
    reasons = (why,) if isinstance(why, str) else why
    assert life.by_itself and life.ended.code == 125 and any(reason in life.ended.said for reason in reasons), life.ended
    life.is_bounded()
    sibling.is_well()


@pytest.mark.parametrize("how", ["floods_its_output", "floods_the_console", "takes_nothing"])
def test_what_is_no_breach_is_bounded_and_can_be_stopped(hostile, sibling, how):
    """A client that does not read, with a guest that writes all it may; a console that never stops; a guest that is deaf."""
    reader, writer = os.pipe()
    try:
        with open("/dev/zero") as zeros:
            # A client that cannot get rid of its output waits for that; with its reader gone it ends.
            life = Life(("-i", *arguments(how)), 15, sibling, environment(), before_end=lambda: os.close(reader), program=hostile,
                        stdin=zeros, stdout=writer)
    finally:
        os.close(writer)
    print(how, life)
    assert not life.by_itself and life.vmm_mib > 0, life
    life.is_bounded()
    sibling.is_well()


def test_logs_of_a_flooding_box_are_bounded(hostile, sibling):
    for how in ("floods_its_output", "floods_the_console"):
        box = caisson("run", "-d", *arguments(how), program=hostile).ok().text.strip()
        try:
            directory = HOME / "boxes" / box

            def written():
                total = 0
                for path in directory.iterdir():
                    if path.name.startswith(("console", "output")):
                        with contextlib.suppress(FileNotFoundError):  # it was rotated meanwhile
                            total += path.stat().st_size
                return total

            until(lambda: written() > 8 << 20, 60, "it floods")
            end = time.monotonic() + 5
            while time.monotonic() < end:
                assert written() < 2 * MOST_LOG_BYTES
                time.sleep(0.2)
            vmm, = of_role("vmm", box)
            assert highest_mib(vmm) < MOST_VMM_MIB
            shims = [process for process in of_role("shim") if process.pid not in sibling.processes]
            assert shims and all(highest_mib(process) < MOST_SHIM_MIB for process in shims)
            print(how, written() >> 20, "MiB of logs")
        finally:
            caisson("rm", "--force", box).ok()
        sibling.is_well()
