"""Boxes that are stopped, started again, by hand and by policy; their time limits, and what watches over them."""
import os
import signal
import subprocess
import threading
import time

import pytest
from boxes import BASE, BIN, Started, caisson, environment, inspect, listed, processes, start, until, until_state, wait_until_gone
from terminals import Session

pytestmark = pytest.mark.usefixtures("ends_boxes")


def test_what_was_written_is_there_after_a_stop():
    start("--name", "a", BASE, "sleep", "600")
    for number in range(3):
        # Not synced by itself: stop does that.
        caisson("exec", "a", "sh", "-c", f"echo life {number} >> /file; head -c 5000000 /dev/urandom > /big; sha256sum /big > /sum").ok()
        caisson("stop", "-t", "0", "a").ok()
        record = inspect("a")
        assert record["exit_code"] in (137, 143)
        assert (record["state"], record["vmm_pid"], record["supervisor_pid"]) == ("stopped", None, None)
        assert not processes(record["id"])
        caisson("start", "a").ok()
        assert caisson("exec", "a", "cat", "/file").ok().lines == [f"life {life}" for life in range(number + 1)]
        caisson("exec", "a", "sha256sum", "-c", "/sum").ok()
    assert caisson("exec", "a", "cat", "/sys/fs/ext4/vda/errors_count").ok().text == "0\n"


def test_a_command_that_ends_by_itself_leaves_its_files():
    assert caisson("run", "--name", "a", BASE, "sh", "-c", "test -f /once && exit 7; echo here > /once").code == 0
    assert caisson("start", "a").code == 0
    assert caisson("wait", "a").ok().text == "7\n"


def test_stop_asks_then_kills():
    start("--name", "polite", BASE, "sh", "-c", "trap 'echo bye; sleep 0.3; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    until(lambda: caisson("logs", "polite").text)
    stopped = caisson("stop", "polite").ok()
    assert stopped.seconds < 5 and stopped.text == "polite\n"
    record = listed()["polite"]
    assert (record["state"], record["exit_code"], record["outcome"]) == ("stopped", 5, "exited") and "stopped" in record["reason"]
    assert caisson("logs", "polite").ok().text == "ready\nbye\n"

    start("--name", "deaf", BASE, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    until(lambda: caisson("logs", "deaf").text)
    stopped = caisson("stop", "--timeout", "1s", "deaf").ok()
    assert 1 <= stopped.seconds < 6, stopped
    record = listed()["deaf"]
    assert (record["state"], record["exit_code"], record["outcome"]) == ("stopped", 137, "signalled")
    again = caisson("stop", "deaf")
    assert again.code == 0 and again.seconds < 1, "a box that does not run is stopped"


def test_the_grace_of_the_box_itself():
    start("--name", "a", "--stop-timeout", "700ms", BASE, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    until(lambda: caisson("logs", "a").text)
    assert inspect("a")["stop_timeout_ms"] == 700
    stopped = caisson("stop", "a").ok()
    assert 0.7 <= stopped.seconds < 6 and listed()["a"]["exit_code"] == 137


def test_its_stop_signal(tiny):
    start("--name", "a", "--stop-signal", "USR1", BASE, "sh", "-c",
          "trap 'exit 10' USR1; trap 'exit 15' TERM; echo ready; while :; do sleep 0.05; done")
    until(lambda: caisson("logs", "a").text)
    assert inspect("a")["stop_signal"] == signal.SIGUSR1
    caisson("stop", "a").ok()
    assert listed()["a"]["exit_code"] == 10
    # The image's, where no option says otherwise.
    start("--name", "b", tiny, "sh", "-c", "trap 'exit 12' USR2; trap 'exit 15' TERM; echo ready; while :; do sleep 0.05; done")
    until(lambda: caisson("logs", "b").text)
    assert inspect("b")["stop_signal"] == signal.SIGUSR2
    caisson("stop", "b").ok()
    assert listed()["b"]["exit_code"] == 12


def test_who_waits_while_it_is_stopping():
    start("--name", "a", BASE, "sh", "-c", "trap 'sleep 1.5; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    until(lambda: caisson("logs", "a").text)
    with Started("stop", "a") as first, Started("wait", "a") as waiting, Started("attach", "--no-stdin", "a") as attached:
        until_state("a", "stopping", seconds=5)
        refused = caisson("exec", "a", "true")
        assert refused.code == 125 and "stopping" in refused.said, refused
        second = caisson("stop", "a").ok()
        assert second.seconds > 0.5
        assert first.end(5).code == 0 and waiting.end(5).text == "5\n" and attached.end(5).code == 5
    assert listed()["a"]["state"] == "stopped"


def test_restart():
    box = start("--name", "a", BASE, "sh", "-c", "echo life; exec sleep 600")
    until(lambda: caisson("logs", "a").text == "life\n")
    first = inspect("a")
    done = caisson("restart", "-t", "0", "a").ok()
    assert done.text == "a\n"
    second = inspect("a")
    assert second["id"] == box and second["state"] == "running" and second["started_ms"] > first["started_ms"]
    assert second["supervisor_pid"] != first["supervisor_pid"] and second["restarts"] == 0
    until(lambda: caisson("logs", "a").text == "life\nlife\n")
    caisson("stop", "-t", "0", "a").ok()
    caisson("restart", "a").ok()
    assert listed()["a"]["state"] == "running"
    assert caisson("start", "a").code == 0, "a box that runs is started"


def test_on_failure_counts():
    start("--name", "a", "--restart", "on-failure:2", BASE, "sh", "-c", "echo life >> /lives; cat /lives; exit 3")
    record = until_state("a", "stopped", seconds=30)
    assert (record["restarts"], record["exit_code"], record["restart"]) == (2, 3, "on-failure:2")
    # Each life finds what the one before has written.
    assert caisson("logs", "a").ok().text == "life\n" * (1 + 2 + 3)
    start("--name", "b", "--restart", "on-failure", BASE, "true")
    record = until_state("b", "stopped")
    assert (record["restarts"], record["exit_code"]) == (0, 0)
    # One that could never begin is not tried again.
    assert caisson("run", "-d", "--name", "c", "--restart", "always", BASE, "/no/such").code == 127
    assert (listed()["c"]["state"], listed()["c"]["restarts"]) == ("stopped", 0)


def test_a_cold_box_is_started_again():
    """Its supervisor, locked by then, has a second machine booted."""
    start("--name", "a", "--cold", "--restart", "on-failure:1", BASE, "sh", "-c", "echo life >> /lives; cat /lives; exit 3", timeout=120)
    record = until_state("a", "stopped", seconds=90)
    assert (record["restarts"], record["exit_code"]) == (1, 3), record
    assert caisson("logs", "a").ok().text == "life\n" * (1 + 2)


def test_always_until_it_is_stopped():
    box = start("--name", "a", "--restart", "always", BASE, "sleep", "0.2")
    until(lambda: inspect("a")["restarts"] >= 2, 30)
    caisson("stop", "-t", "0", "a").ok()
    record = listed()["a"]
    assert record["state"] == "stopped"
    until(lambda: not processes(box), 2)
    # Stopped is stopped, whoever looks.
    assert caisson("start", "--by-policy").ok().text == "" and listed()["a"]["state"] == "stopped"
    caisson("start", "a").ok()
    assert inspect("a")["restarts"] == 0
    until(lambda: inspect("a")["restarts"] >= 1, 30)
    caisson("rm", "--force", "a").ok()
    wait_until_gone()


def test_a_kill_or_a_dead_machine_and_the_policy():
    start("--name", "a", "--restart", "on-failure", BASE, "sleep", "600")
    os.kill(inspect("a")["vmm_pid"], signal.SIGKILL)
    record = until(lambda: (lambda box: box["state"] == "running" and box["restarts"] == 1 and box)(inspect("a")), 15)
    assert caisson("exec", "a", "true").code == 0 and record["vmm_pid"]
    caisson("kill", "a").ok()
    assert until_state("a", "stopped")["exit_code"] == 137


def test_the_policy_after_its_supervisor_s_death():
    start("--name", "kept", "--restart", "always", BASE, "sleep", "600")
    start("--name", "once", BASE, "sleep", "600")
    start("--name", "ended", "--restart", "on-failure", BASE, "sleep", "600")
    caisson("stop", "-t", "0", "ended").ok()
    for name in ("kept", "once"):
        os.kill(inspect(name)["supervisor_pid"], signal.SIGKILL)
        until_state(name, "failed", seconds=2)
    assert {name: box["state"] for name, box in listed().items()} == {"kept": "failed", "once": "failed", "ended": "stopped"}
    assert caisson("start", "--by-policy").ok().text == "kept\n"
    assert {name: box["state"] for name, box in listed().items()} == {"kept": "running", "once": "failed", "ended": "stopped"}
    assert caisson("start", "--by-policy").ok().text == ""


def test_a_policy_needs_a_box_of_its_own():
    refused = caisson("run", "--restart", "always", BASE, "true")
    assert refused.code == 2 and "-d" in refused.said, refused
    for policy in ("sometimes", "on-failure:0", "on-failure:x", "always:3"):
        assert caisson("run", "-d", "--restart", policy, BASE, "true").code == 2, policy


def test_max_duration():
    over = caisson("run", "--rm", "--max-duration", "1s", BASE, "sleep", "600")
    assert over.code == 124 and "longest time" in over.said and 1 <= over.seconds < 8, over
    start("--name", "a", "--max-duration", "1s", "--restart", "always", BASE, "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done")
    with Started("wait", "a") as waiting:
        record = until_state("a", "stopped")
        assert (record["exit_code"], record["outcome"], record["restarts"]) == (124, "timed_out", 0)
        assert waiting.end(5).ok().text == "124\n"
    assert 1000 <= record["finished_ms"] - record["started_ms"] < 5000


def test_a_stop_that_comes_before_the_time_is_over_is_the_cause():
    start("--name", "a", "--max-duration", "1500ms", BASE, "sh", "-c",
          "trap 'sleep 2; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    until(lambda: caisson("logs", "a").text)
    caisson("stop", "a").ok()
    record = inspect("a")
    assert (record["outcome"], record["exit_code"]) == ("exited", 5) and "it was stopped" in record["reason"], record


TALKATIVE = "while :; do echo I am busy; sleep 0.05; done"


def idle_for(record):
    return record["finished_ms"] - record["started_ms"]


def test_an_idle_box_is_stopped():
    """What the guest does or says does not count, nor does a health check, nor somebody who only asks how it goes."""
    start("--name", "quiet", "--idle-timeout", "2s", BASE, "sleep", "600")
    start("--name", "loud", "--idle-timeout", "2s", "--stop-timeout", "0s", BASE, "sh", "-c", TALKATIVE)
    start("--name", "checked", "--idle-timeout", "2s", "--health-cmd", "true", "--health-interval", "300ms", BASE, "sleep", "600")

    def ended():
        return all(inspect(name)["state"] == "stopped" for name in ("quiet", "loud", "checked"))

    until(ended, 25, lambda: {name: box["state"] for name, box in listed().items()})
    for name in ("quiet", "loud", "checked"):
        record = inspect(name)
        assert "idle" in record["reason"] and 2000 <= idle_for(record) < 8000, record


def test_a_box_that_is_used_is_not_idle():
    names = ("entered", "detached", "attached", "terminal")

    def make(name):
        start("--name", name, "--idle-timeout", "2s", *(["-it"] if name == "terminal" else []), BASE, "sh", "-c",
              "trap 'exit 0' TERM; while :; do sleep 0.1; done")

    make("entered")
    with Started("exec", "entered", "sleep", "600") as entered:
        make("detached")
        execution = caisson("exec", "-d", "detached", "sleep", "600").ok().text.strip()
        make("attached")
        with Started("attach", "--no-stdin", "attached") as attached:
            make("terminal")
            with Session("attach", "terminal"):
                time.sleep(3)  # well beyond the time after which they would be idle
                assert {name: listed()[name]["state"] for name in names} == dict.fromkeys(names, "running")
                released = time.time() * 1000
            attached.process.kill()
        entered.process.kill()
    caisson("kill", "--execution", execution, "detached").ok()
    for name in names:
        record = until_state(name, "stopped", seconds=15)
        assert "idle" in record["reason"] and record["finished_ms"] - released > 1900, record


def health_of(name):
    return inspect(name)["health"]


def test_health():
    start("--name", "a", "--health-cmd", "test -f /healthy", "--health-interval", "400ms", "--health-retries", "2", BASE, "sleep", "600")
    assert health_of("a") == "starting"
    caisson("exec", "a", "touch", "/healthy").ok()
    until(lambda: health_of("a") == "healthy", 10)
    assert "(healthy)" in caisson("ls").text
    caisson("exec", "a", "rm", "/healthy").ok()
    seen = []
    until(lambda: seen.append(health_of("a")) or seen[-1] == "unhealthy", 10)
    assert set(seen) == {"healthy", "unhealthy"}
    caisson("exec", "a", "touch", "/healthy").ok()
    until(lambda: health_of("a") == "healthy", 10)
    assert inspect("a")["executions"] == [] and caisson("logs", "a").ok().text == "", "checks are nobody's executions"
    check = inspect("a")["health_check"]
    assert check == {"command": ["/bin/sh", "-c", "test -f /healthy"], "interval_ms": 400, "timeout_ms": 30000, "retries": 2,
                     "start_period_ms": 0}
    caisson("stop", "-t", "0", "a").ok()
    assert health_of("a") is None


def test_the_image_s_health_check(tiny):
    start("--name", "image", tiny, "sleep", "600")
    start("--name", "other", "--health-cmd", "true", "--health-interval", "500ms", tiny, "sleep", "600")
    start("--name", "none", "--no-healthcheck", tiny, "sleep", "600")
    assert inspect("image")["health_check"] == {"command": ["/bin/sh", "-c", "test -f /tmp/healthy"], "interval_ms": 1000,
                                                "timeout_ms": 30000, "retries": 2, "start_period_ms": 0}
    until(lambda: health_of("image") == "unhealthy", 15)
    caisson("exec", "image", "sh", "-c", "> /tmp/healthy").ok()
    until(lambda: health_of("image") == health_of("other") == "healthy", 15)
    assert inspect("none")["health_check"] is None and health_of("none") is None
    both = caisson("create", "--no-healthcheck", "--health-cmd", "true", BASE, "true")
    assert both.code == 2 and "--no-healthcheck" in both.said


def test_health_while_it_starts_and_checks_that_hang():
    start("--name", "young", "--health-cmd", "false", "--health-interval", "200ms", "--health-retries", "1", "--health-start-period", "6s",
          BASE, "sleep", "600")
    start("--name", "hangs", "--health-cmd", "sleep 100 & sleep 100", "--health-interval", "200ms", "--health-timeout", "300ms",
          "--health-retries", "2", BASE, "sleep", "600")
    until(lambda: health_of("hangs") == "unhealthy", 10)
    assert health_of("young") == "starting"
    until(lambda: health_of("young") == "unhealthy", 10)
    record = inspect("young")
    assert time.time() * 1000 - record["started_ms"] >= 6000
    assert record["state"] == "running", "a check tells, it ends nothing"
    refused = caisson("create", "--health-interval", "1s", BASE, "true")
    assert refused.code == 2 and "--health-cmd" in refused.said


def test_a_start_that_many_ask_for():
    caisson("create", "--name", "a", BASE, "sleep", "600").ok()
    results = []
    threads = [threading.Thread(target=lambda: results.append(caisson("start", "a"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.code for result in results] == [0] * 4, results
    assert all(result.seconds < 4 for result in results), results
    until_state("a", "running")
    results.clear()
    threads = [threading.Thread(target=lambda: results.append(caisson("stop", "-t", "0", "a"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.code for result in results] == [0] * 4, results
    assert listed()["a"]["state"] == "stopped"


def test_what_just_starts_can_be_ended():
    """A cold start takes seconds: stop, kill and rm --force take no longer for it, and harm nobody who starts it."""
    for how, said in ((("stop",), "it was stopped"), (("kill",), "it was killed"), (("rm", "--force"), "told to stop")):
        with Started("run", "-d", "--cold", "--name", "slow", BASE, "sleep", "600") as starting:
            until(lambda: "slow" in listed() and listed()["slow"]["state"] == "starting")
            done = caisson(*how, "slow")
            ended = starting.end(10)
            assert done.code == 0 and done.seconds < 10, done
            assert ended.code == 125 and said in ended.said, ended
        if how[0] != "rm":
            assert listed()["slow"]["state"] == "stopped" and listed()["slow"]["exit_code"] == 137
            caisson("rm", "slow").ok()
        wait_until_gone()


def test_a_box_that_starts_again_and_again_can_be_ended():
    """Also if it ends by itself at that very moment."""
    for how in (("stop", "-t", "0"), ("kill",), ("rm", "--force")):
        for _ in range(3):
            start("--name", "busy", "--restart", "always", BASE, "true")
            caisson(*how, "busy").ok()
            if how[0] == "rm":
                assert "busy" not in listed()
                continue
            assert listed()["busy"]["state"] == "stopped", listed()["busy"]
            caisson("rm", "busy").ok()


def test_who_only_looks_on_and_does_not_read_delays_no_stop(ends_boxes):
    start("--name", "watched", "--stop-timeout", "8s", BASE, "sh", "-c", "trap 'exit 5' TERM; while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done")
    reader, writer = os.pipe()
    with subprocess.Popen([BIN, "attach", "watched"], stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, env=environment()) as client:
        os.close(writer)
        time.sleep(1.5)  # its pipe and its window are full by now, and nobody reads
        begin = time.monotonic()
        caisson("stop", "watched", timeout=30).ok()
        assert time.monotonic() - begin < 6
        assert inspect("watched")["exit_code"] == 5, "it had its time"
        os.close(reader)
        client.wait(timeout=20)
