"""What boxes take of the host, as caisson stats tells it: real figures, and null for what nobody can know."""
import json
import os
import subprocess
import time

import pytest
from boxes import BASE, BIN, HOME, caisson, environment, inspect, listed, start, until
from terminals import Session

pytestmark = pytest.mark.usefixtures("ends_boxes")

FIELDS = {"id", "name", "state", "health", "time_ms", "started_ms", "restarts", "cpu_percent", "cpu_microseconds", "cpu_source",
          "cpu_limit_millis", "memory_used_bytes", "memory_source", "memory_limit_bytes", "disk_allocated_bytes", "disk_limit_bytes",
          "network_received_bytes", "network_sent_bytes"}


def stats(*arguments):
    return {box["name"]: box for box in caisson("stats", "--format", "json", *arguments).ok().json()}


def test_figures_are_those_of_the_host():
    busy = start("--name", "busy", "--memory", "256M", BASE, "sh", "-c", "while :; do :; done")
    start("--name", "idle", "--cpus", "0.5", BASE, "sleep", "600")
    time.sleep(1)  # what a start costs is over
    found = stats("--interval", "2s")
    assert set(found) == {"busy", "idle"} and set(found["busy"]) == FIELDS
    assert found["busy"]["cpu_percent"] > 2 * found["idle"]["cpu_percent"] and found["busy"]["cpu_percent"] > 10
    assert found["busy"]["id"] == busy and found["busy"]["state"] == "running"
    assert found["idle"]["cpu_limit_millis"] == 500 and found["busy"]["memory_limit_bytes"] == 256 << 20
    for box in found.values():
        overlay = os.stat(f"{HOME}/boxes/{box['id']}/disk.qcow2") if os.access(f"{HOME}/boxes", os.X_OK) else None
        assert overlay is None or abs(overlay.st_blocks * 512 - box["disk_allocated_bytes"]) < 4 << 20
        assert 4 << 20 < box["memory_used_bytes"] < 2 << 30 and box["cpu_microseconds"] > 10000
        assert {box["memory_source"], box["cpu_source"]} <= {"cgroup", "processes"} and box["restarts"] == 0
        assert abs(box["time_ms"] / 1000 - time.time()) < 30 and box["started_ms"] == listed()[box["name"]]["started_ms"]


def test_disk_grows_with_what_is_written():
    start("--name", "a", BASE, "sleep", "600")
    before = stats("a")["a"]["disk_allocated_bytes"]
    caisson("exec", "a", "sh", "-c", "head -c 50000000 /dev/urandom > /file; sync").ok()
    assert stats("a")["a"]["disk_allocated_bytes"] - before >= 50000000


def test_what_cannot_be_known_is_null():
    caisson("create", "--name", "new", BASE, "true").ok()
    start("--name", "runs", BASE, "sleep", "600")
    assert set(stats()) == {"runs"}
    box = stats("--all")["new"]
    unknown = {name for name in FIELDS if box[name] is None}
    assert unknown == {"health", "started_ms", "cpu_percent", "cpu_microseconds", "cpu_source", "memory_used_bytes", "memory_source",
                       "disk_allocated_bytes", "network_received_bytes", "network_sent_bytes"}
    assert caisson("stats", "new").ok().lines[1].split()[:3] == ["new", "created", "-"]


def test_restarts_are_counted():
    start("--name", "a", "--restart", "on-failure:1", BASE, "sh", "-c", "test -e /once && exec sleep 600; touch /once; exit 3")
    until(lambda: listed()["a"]["restarts"] == 1 and listed()["a"]["state"] == "running", 60)
    assert stats("a")["a"]["restarts"] == 1


def test_a_table_by_default_and_labels():
    start("--name", "a", "--label", "tier=web", BASE, "sleep", "600")
    start("--name", "b", BASE, "sleep", "600")
    lines = caisson("stats", "--label", "tier=web").ok().lines
    assert lines[0].split()[:3] == ["NAME", "STATE", "CPU"] and [line.split()[0] for line in lines[1:]] == ["a"]
    assert "%" in lines[1] and "512 MiB" in lines[1] and "10.0 GiB" in lines[1]
    assert [line.split()[0] for line in caisson("stats", "b", "a", "--no-stream").ok().lines[1:]] == ["b", "a"]


def test_without_boxes():
    assert len(caisson("stats").ok().lines) == 1
    assert caisson("stats", "--format", "json").ok().json() == []
    assert caisson("stats", "--label", "no=such").ok().lines[1:] == []


def test_follow_writes_lines_until_its_boxes_are_gone():
    start("--name", "a", BASE, "sleep", "600")
    lines = caisson("stats", "--follow", "--format", "json", "--interval", "200ms", "--count", "3").ok().lines
    looks = [json.loads(line) for line in lines]
    assert [look["name"] for look in looks] == ["a"] * 3 and set(looks[0]) == FIELDS
    assert looks[0]["time_ms"] < looks[1]["time_ms"] < looks[2]["time_ms"] and looks[2]["cpu_percent"] is not None
    follower = subprocess.Popen([BIN, "stats", "--follow", "--format", "json", "--interval", "100ms", "a"], env=environment(),
                                stdout=subprocess.PIPE, cwd="/")
    assert json.loads(follower.stdout.readline())["name"] == "a"
    caisson("rm", "--force", "a").ok()
    # Another box of this name is not the one that was asked for.
    start("--name", "a", BASE, "sleep", "600")
    assert follower.wait(timeout=20) == 0
    follower.stdout.close()


def test_follow_ends_with_its_reader():
    start("--name", "a", BASE, "sleep", "600")
    follower = subprocess.Popen([BIN, "stats", "--follow", "--format", "json", "--interval", "30s"], env=environment(),
                                stdout=subprocess.PIPE, cwd="/")
    time.sleep(1)
    follower.stdout.close()
    assert follower.wait(timeout=10) == 0


def test_watch_draws_again_on_a_terminal():
    start("--name", "a", BASE, "sleep", "600")
    with Session("stats", "--watch", "--interval", "200ms", "--count", "3") as session:
        code, said = session.end()
    assert code == 0 and said.count("\x1b[H\x1b[2J") == 3 and said.count("NAME") == 3


@pytest.mark.parametrize("arguments, message", [
    (["--watch"], "--watch needs a terminal"), (["--follow"], "--follow writes JSON lines"),
    (["--follow", "--watch", "--format", "json"], "exclude each other"), (["--count", "3"], "--count is for"),
    (["--interval", "1ms"], "too short"), (["--interval", "soon"], "--interval"), (["a", "--label", "b"], "by name and by --label"),
])
def test_wrong_options(arguments, message):
    ended = caisson("stats", *arguments)
    assert ended.code == 2 and message in ended.said, ended


def test_an_unknown_box():
    ended = caisson("stats", "no-such")
    assert ended.code == 125 and "no-such" in ended.said, ended
