"""caisson update: what changes at once, what waits for the next start, and what is refused without a trace."""
import concurrent.futures
import json
import pathlib
import re
import shutil
import time

import pytest
from boxes import BASE, HOME, IS_ROOT, Started, caisson, inspect, listed, start, until, until_state

pytestmark = pytest.mark.usefixtures("ends_boxes")
MIB = 1 << 20


def update(*arguments):
    return caisson("update", "--format", "json", *arguments).ok().json()[0]


def effects(plan):
    return {change["what"]: (change["from"], change["to"], change["takes_effect"]) for change in plan["changes"]}


def in_guest(box, file):
    return caisson("exec", box, "cat", f"/sys/fs/cgroup/{file}").ok().text.strip()


def host_cpus(box):
    """The limit that the kernel enforces on the host, of either version of control groups; None: none."""
    for group in map(pathlib.Path, inspect(box)["limits"]["groups"]):
        if (group / "cpu.cfs_quota_us").exists():
            return int((group / "cpu.cfs_quota_us").read_text()) / int((group / "cpu.cfs_period_us").read_text())
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
            return int(quota) / int(period)
    return None


def test_limits_that_fit_the_machine_hold_at_once_and_stay():
    start("--name", "a", BASE, "sleep", "600")
    plan = update("--memory", "300M", "--cpus", "0.5", "--pids-limit", "20", "a")
    assert effects(plan) == {"memory": ("512M", "300M", "now"), "cpus": ("1", "0.5", "now"), "pids_limit": ("none", "20", "now")}
    for again in (False, True):
        if again:
            caisson("restart", "-t", "1s", "a").ok()
        assert in_guest("a", "memory.max") == str(300 * MIB)
        assert in_guest("a", "cpu.max") == "50000 100000" and in_guest("a", "pids.max") == "21"
        box = inspect("a")
        assert (box["memory_bytes"], box["cpu_millis"], box["pids_limit"]) == (300 * MIB, 500, 20)
        if box["limits"]["cpus"] is not None:
            assert host_cpus("a") == box["limits"]["cpus"] == 1.0
    journal = [event["details"] for event in map(json.loads, caisson("audit", "a", "--kind", "box_updated", "--format", "json").ok().lines)]
    assert {event["what"]: (event["before"], event["now"], "now" if event["in_force"] else "") for event in journal} == effects(plan) and len(journal) == 3
    forks = "import os, time\nfor i in range(40):\n  if os.fork() == 0: time.sleep(5); os._exit(0)"
    assert "Resource temporarily unavailable" in caisson("exec", "a", "python3", "-c", forks).said
    # And back: the machine itself is the limit.
    assert effects(update("--memory", "512M", "--cpus", "1", "--pids-limit", "0", "a"))["memory"] == ("300M", "512M", "now")
    assert [in_guest("a", f"{file}.max").split()[0] for file in ("memory", "cpu", "pids")] == ["max"] * 3


@pytest.mark.skipif(not IS_ROOT, reason="root makes control groups on every host; others only where they are delegated")
def test_the_host_s_limit_of_cpu_time_changes_too():
    start("--name", "a", "--cpus", "0.5", BASE, "sleep", "600")
    assert host_cpus("a") == 1.0
    update("--cpus", "0.8", "a")
    assert host_cpus("a") == inspect("a")["limits"]["cpus"] == 1.3


@pytest.mark.skipif(not IS_ROOT, reason="root makes control groups on every host; others only where they are delegated")
def test_the_host_s_limit_is_not_written_where_the_box_s_directory_says():
    # A supervisor that was taken over can write there.
    box = start("--name", "a", "--cpus", "0.5", BASE, "sleep", "600")
    limits = HOME / "boxes" / inspect(box)["id"] / "limits"
    group = next(group for group in inspect(box)["limits"]["groups"] if list(pathlib.Path(group).glob("cpu.*")))
    decoy = pathlib.Path("/var/tmp/" + "d" * (len(group) - len("/var/tmp/")))  # a name as long as the group's
    decoy.mkdir(mode=0o777)
    try:
        for file in ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"):
            (decoy / file).write_text("mine")
            (decoy / file).chmod(0o666)
        decoy.chmod(0o777)
        limits.write_bytes(limits.read_bytes().replace(group.encode(), str(decoy).encode()))
        assert inspect(box)["limits"]["groups"].count(str(decoy)) == 1
        update("--cpus", "0.8", "a")
        assert {file.read_text() for file in decoy.iterdir()} == {"mine"}, "written to what the box's directory names"
        limits.write_bytes(limits.read_bytes().replace(str(decoy).encode(), group.encode()))
        assert host_cpus("a") == 1.3
    finally:
        shutil.rmtree(decoy)


def test_what_needs_another_machine_waits_for_the_next_start():
    start("--name", "a", BASE, "sleep", "600")
    total = "grep MemTotal /proc/meminfo"
    before = caisson("exec", "a", "sh", "-c", total).ok().text
    plan = update("--memory", "1G", "a")
    assert effects(plan) == {"memory": ("512M", "1G", "next_start")} and "512M" in plan["changes"][0]["reason"]
    assert caisson("exec", "a", "sh", "-c", total).ok().text == before
    # It still has 512M, and less than that can be had at once.
    assert effects(update("--memory", "400M", "a")) == {"memory": ("1G", "400M", "now")}
    assert in_guest("a", "memory.max") == str(400 * MIB)
    update("--memory", "1G", "a")
    assert in_guest("a", "memory.max") == str(400 * MIB)
    caisson("restart", "-t", "1s", "a", timeout=120).ok()
    after = caisson("exec", "a", "sh", "-c", total).ok().text
    assert int(re.search(r"\d+", after).group()) > 1.5 * int(re.search(r"\d+", before).group())


def test_a_box_that_uses_more_memory_is_left_as_it_is():
    start("--name", "a", "--tmpfs", "/t:size=400M", BASE, "sleep", "600")
    caisson("exec", "a", "sh", "-c", "head -c 250000000 /dev/zero > /t/full").ok()
    refused = caisson("update", "--memory", "200M", "--label", "x=y", "a")
    assert refused.code == 125 and "more than the 200" in refused.said, refused
    assert in_guest("a", "memory.max") == "max" and inspect("a")["memory_bytes"] == 512 * MIB and inspect("a")["labels"] == {}
    caisson("exec", "a", "rm", "/t/full").ok()
    assert effects(update("--memory", "200M", "a"))["memory"] == ("512M", "200M", "now")


# Ends with 3 whenever somebody asks for it.
ENDS = "while ! test -e /stop; do sleep 0.05; done; rm /stop; sync; exit 3"


def test_a_restart_policy_holds_from_the_next_end_on():
    start("--name", "a", "--restart", "on-failure", BASE, "sh", "-c", ENDS)
    assert effects(update("--restart", "always", "a")) == {"restart": ("on-failure", "always", "now")}
    caisson("exec", "a", "touch", "/stop").ok()
    until(lambda: listed()["a"]["restarts"] == 1 and listed()["a"]["state"] == "running", 60, lambda: listed()["a"])
    assert inspect("a")["restart"] == "always"
    update("--restart", "no", "a")
    caisson("exec", "a", "touch", "/stop").ok()
    until_state("a", "stopped", seconds=60)
    assert listed()["a"]["exit_code"] == 3


def test_a_box_without_a_policy_gets_one_and_is_booted_by_it():
    start("--name", "a", BASE, "sh", "-c", ENDS)
    update("--restart", "on-failure:5", "a")
    caisson("exec", "a", "touch", "/stop").ok()

    def again():
        time.sleep(0.5)  # looking takes the processor from the boot
        return listed()["a"]["restarts"] == 1 and listed()["a"]["state"] == "running"
    until(again, 150, lambda: listed()["a"])


def test_policies_that_cannot_be():
    start("--rm", "--name", "removed", BASE, "sleep", "600")
    ended = caisson("update", "--restart", "always", "removed")
    assert ended.code == 2 and "removed at its end" in ended.said
    with Started("run", "--name", "attached", BASE, "sleep", "600"):
        until(lambda: listed().get("attached", {}).get("state") == "running", 30)
        ended = caisson("update", "--restart", "always", "attached")
        assert ended.code == 2 and "ends with its caller" in ended.said
        assert inspect("attached")["restart"] == "no"


def test_labels():
    start("--name", "a", "--label", "job=nightly", "--label", "keep", BASE, "sleep", "600")
    plan = update("--label", "tier=web", "--label-rm", "job", "--label-rm", "never-there", "a")
    assert effects(plan) == {"label job": ("nightly", None, "now"), "label tier": (None, "web", "now")}
    assert inspect("a")["labels"] == {"keep": "", "tier": "web"}
    assert set(listed("--label", "tier=web")) == {"a"} and listed("--label", "job") == {}
    assert update("--label", "tier=web", "a")["changes"] == []


def test_several_who_change_one_box_at_once_all_succeed():
    start("--name", "a", BASE, "sleep", "600")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(lambda number: caisson("update", "--label", f"n{number}=1", "a"), range(3)))
    assert [one.code for one in ended] == [0] * 3, ended
    assert inspect("a")["labels"] == {f"n{number}": "1" for number in range(3)}


def test_a_dry_run_changes_nothing():
    start("--name", "a", BASE, "sleep", "600")
    before = inspect("a")
    plan = update("--dry-run", "--memory", "300M", "--cpus", "4", "--restart", "always", "--label", "x=y", "a")
    assert plan["dry_run"] and effects(plan) == {"cpus": ("1", "4", "next_start"), "memory": ("512M", "300M", "now"),
                                                 "restart": ("no", "always", "now"), "label x": (None, "y", "now")}
    after = inspect("a")
    for box in (before, after):
        box.pop("jail"), box.pop("disk_used_bytes"), box.pop("executions")
    assert before == after and in_guest("a", "memory.max") == "max"
    assert "WOULD TAKE EFFECT" in caisson("update", "--dry-run", "--label", "x=y", "a").ok().text
    # What would be refused is refused here, too.
    assert caisson("update", "--dry-run", "--memory", "1M", "a").code == 2


def test_boxes_that_do_not_run_or_are_paused():
    caisson("create", "--name", "new", BASE, "sleep", "600").ok()
    assert effects(update("--memory", "256M", "--restart", "always", "new")) == {"memory": ("512M", "256M", "next_start"),
                                                                                 "restart": ("no", "always", "now")}
    caisson("start", "new", timeout=120).ok()
    assert inspect("new")["memory_bytes"] == 256 * MIB and inspect("new")["restart"] == "always"
    caisson("pause", "new").ok()
    ended = caisson("update", "--memory", "200M", "new")
    assert ended.code == 125 and "paused" in ended.said and inspect("new")["memory_bytes"] == 256 * MIB
    assert effects(update("--label", "a=b", "--restart", "no", "new")) == {"label a": (None, "b", "now"), "restart": ("always", "no", "now")}
    caisson("resume", "new").ok()


def test_one_that_cannot_be_changed_does_not_keep_the_others():
    start("--name", "a", BASE, "sleep", "600")
    ended = caisson("update", "--label", "x=y", "no-such", "a")
    assert ended.code == 125 and "no-such" in ended.said and inspect("a")["labels"] == {"x": "y"}


@pytest.mark.parametrize("arguments, message", [
    (["a"], "nothing to change"), (["--memory", "1M", "a"], "too little"), (["--cpus", "0.001", "a"], "at least 0.01"),
    (["--cpus", "99", "a"], "at most 8 CPUs"), (["--memory", "much", "a"], "--memory"), (["--restart", "sometimes", "a"], "unknown"),
    (["--pids-limit", "-2", "a"], "--pids-limit"), (["--label", "=x", "a"], "has no name"),
    (["--label", "x=1", "--label-rm", "x", "a"], "set and removed"), (["--label", "x=1"], "BOX"),
])
def test_wrong_options(arguments, message):
    if "a" in arguments:
        caisson("create", "--name", "a", BASE, "true").ok()
    ended = caisson("update", *arguments)
    assert ended.code == 2 and message in ended.said, ended
