"""A guest that owns QEMU and speaks for its agent: the supervisor stays small, stops on time, and says what happened."""
import os
import pathlib
import re
import shutil
import signal
import time

import pytest
from boxes import BASE, MEMORY_FACTOR, WORK, Started, assets_but, at_best, caisson, environment

HOSTILE = pathlib.Path(os.environ["CAISSON_HOSTILE_GUEST"])
MOST_MEMORY_MIB = 48 * MEMORY_FACTOR


@pytest.fixture(scope="module")
def assets():
    """Assets in which QEMU is the hostile program."""
    place = assets_but("vmm", WORK / "hostile-assets")
    for directory in ("usr/bin", "usr/share/qemu", "usr/share/seabios", "usr/lib", "template", "box", "disk", "run", "dev", "proc", "tmp"):
        (place / "vmm" / directory).mkdir(parents=True, mode=0o755)
    shutil.copy(HOSTILE, place / "vmm/usr/bin/qemu-system-x86_64")
    yield place
    shutil.rmtree(place)


@pytest.fixture
def guest(assets):
    """guest(BEHAVIOUR) returns the environment of a caisson whose guests behave like that."""
    def behave(how):
        (assets / "vmm/behaviour").write_text(how)
        (assets / "vmm/behaviour").chmod(0o644)
        return environment(CAISSON_ASSETS=str(assets))
    return behave


COLD = ("--rm", "--cold", BASE, "true")


@pytest.mark.parametrize("how, why", [
    ("ends_a_stream_for_ever", "ended a stream twice"),
    ("wants_input_without_end", "granted credit for input that it never got"),
    ("repeats_that_it_started", "started what was not asked"),
    ("starts_what_never_was", "started what was not asked"),
    ("fails_what_never_was", "started what was not asked"),
    ("ends_what_never_was", "ended what did not run"),
    ("writes_as_another", "wrote to a stream that does not exist"),
    ("sets_a_clock_unasked", "answered what was not asked"),
    ("writes_without_credit", "sent more than it had credit for"),
    ("writes_before_it_started", "used a stream before the command ran"),
    ("exits_before_it_started", "ended what did not run"),
    ("sends_nonsense", "broke the protocol"),
])
def test_a_guest_that_breaks_the_protocol_loses_its_box(guest, how, why):
    ended = caisson("run", *COLD, env=guest(how), timeout=20)
    assert ended.code == 125, ended
    assert "the guest broke the protocol" in ended.said and why in ended.said
    assert ended.seconds < 5


def test_a_guest_that_closes_its_channel_loses_its_box(guest):
    ended = caisson("run", *COLD, env=guest("closes_its_channel"), timeout=20)
    assert ended.code == 125 and "closed its channel" in ended.said, ended
    assert ended.seconds < 5


def shim_of(pid):
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return next(int(child) for child in children if "caisson-shim" in pathlib.Path(f"/proc/{child}/cmdline").read_text())


def memory_mib(pid):
    return int(re.search(r"^VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1]) / 1024


def test_input_stays_with_the_caller_when_the_guest_takes_none(guest):
    with open("/dev/zero") as zeros, Started("run", "-i", *COLD, stdin=zeros, env=guest("takes_nothing")) as client:
        time.sleep(2)
        assert memory_mib(shim_of(client.pid)) < MOST_MEMORY_MIB
        client.send(signal.SIGTERM)
        time.sleep(0.2)
        client.send(signal.SIGTERM)
        assert client.end(timeout=5).code == 128 + signal.SIGTERM


def test_the_supervisor_stays_small_when_the_client_is_stopped(guest):
    with Started("run", *COLD, env=guest("ends_a_stream_for_ever")) as client:
        most = None
        end = time.monotonic() + 3
        while time.monotonic() < end:
            try:
                shim = shim_of(client.pid)
                client.send(signal.SIGSTOP)
                most = max(most or 0, memory_mib(shim))
            except (StopIteration, OSError, TypeError):  # not yet there, or gone
                time.sleep(0.005)
        client.send(signal.SIGCONT)
        assert client.end().code == 125
        assert most is not None and most < MOST_MEMORY_MIB


@pytest.mark.keeps
def test_a_silent_guest_does_not_hold_up_a_stop(guest, kept_boxes):
    """Without --rm the guest is asked to write its file systems back; one that does not answer is not waited for."""
    late = at_best(lambda: caisson("run", "--cold", "--timeout", "1s", BASE, "true", env=guest("says_nothing"), timeout=60), 10)
    assert late.code == 124 and late.seconds < 10, late
    with Started("run", "--cold", BASE, "true", env=guest("says_nothing")) as client:
        time.sleep(2)
        for _ in range(3):  # to the command; stops the box; does not wait for its guest
            client.send(signal.SIGTERM)
            time.sleep(0.3)
        assert client.end(timeout=20).seconds < 2


@pytest.mark.parametrize("how", ["takes_nothing", "starts_what_it_is_asked_for"])
def test_whoever_enters_a_box_that_does_not_answer_gets_out_again(guest, how):
    """Its own deadline, a second signal and the end of its box are the host's to keep, not the guest's."""
    hostile = guest(how)
    caisson("run", "-d", "--cold", "--name", "mute", BASE, "sleep", "600", env=hostile).ok()
    try:
        late = caisson("exec", "--timeout", "1s", "mute", "true", env=hostile, timeout=20)
        said = late.code == 124 if how != "takes_nothing" else late.code == 125 and "in time" in late.said
        assert said and late.seconds < 6, late
        if how != "takes_nothing":
            with Started("exec", "mute", "true", env=hostile) as client:
                time.sleep(1)
                client.send(signal.SIGTERM)
                time.sleep(0.2)
                client.send(signal.SIGTERM)
                assert client.end(timeout=5).code in (128 + signal.SIGTERM, -signal.SIGTERM)
        start = time.monotonic()
        caisson("stop", "-t", "1s", "mute", env=hostile, timeout=30).ok()
        assert time.monotonic() - start < 12
    finally:
        caisson("rm", "--force", "mute", env=hostile)


def test_a_box_whose_guest_says_nothing_of_its_executions_is_idle(guest):
    hostile = guest("starts_what_it_is_asked_for")
    caisson("run", "-d", "--cold", "--idle-timeout", "2s", "--stop-timeout", "0s", "--name", "mute", BASE, "sleep", "600", env=hostile).ok()
    try:
        assert caisson("exec", "--timeout", "500ms", "mute", "true", env=hostile, timeout=20).code == 124
        end = time.monotonic() + 20
        while caisson("inspect", "--format", "json", "mute").json()[0]["state"] in ("running", "stopping"):
            assert time.monotonic() < end
            time.sleep(0.2)
        assert "idle" in caisson("inspect", "--format", "json", "mute").json()[0]["reason"]
    finally:
        caisson("rm", "--force", "mute", env=hostile)
