"""What all host processes of a box may take together: control groups with the right numbers, or one plain word that
there are none."""
import os
import pathlib
import re

import pytest
from boxes import (BASE, IS_ROOT, caisson, control_groups,
                   inspect, leftovers, of_role, start, until, until_state)

MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("ends_boxes")
as_root = pytest.mark.skipif(not IS_ROOT, reason="root makes control groups on every host; others only where they are delegated")
as_user = pytest.mark.skipif(IS_ROOT, reason="of what an ordinary user gets")


def limited():
    """Whether this user's boxes are limited on this host, as caisson says."""
    layer, = [layer for layer in caisson("doctor", "--format", "json").json()["layers"] if layer["name"] == "cgroup_limits"]
    return "not limited" not in layer["detail"]


def read(path):
    return pathlib.Path(path).read_text().strip()


def groups_of(pid):
    """{controller: group}, "" for version 2"""
    lines = [line.split(":", 2) for line in read(f"/proc/{pid}/cgroup").splitlines()]
    return {name: path for _, names, path in lines for name in names.split(",")}


def numbers(groups):
    """What the kernel enforces, of either version."""
    found = {}
    for group in map(pathlib.Path, groups):
        for name, file in (("memory_bytes", "memory.limit_in_bytes"), ("memory_bytes", "memory.max"), ("pids", "pids.max")):
            if (group / file).exists():
                found[name] = int(read(group / file))
        if (group / "cpu.cfs_quota_us").exists():
            found["cpus"] = int(read(group / "cpu.cfs_quota_us")) / int(read(group / "cpu.cfs_period_us"))
        if (group / "cpu.max").exists():
            quota, period = map(int, read(group / "cpu.max").split())
            found["cpus"] = quota / period
    return found


def members(group):
    return {int(pid) for pid in read(pathlib.Path(group) / "cgroup.procs").split()}


@as_root
def test_everything_of_the_machine_is_in_its_groups_with_the_right_numbers():
    box = start("--cpus", "0.5", "--memory", "512M", "--name", "limited", BASE, "sleep", "1000")
    limits = inspect(box)["limits"]
    assert limits["applied"] and limits["reason"] is None and limits["cgroup_version"] in (1, 2), limits
    # The machine's memory, and QEMU's: its own, its CPU's, tables, translated code under software emulation.
    emulated = "TCG" in inspect(box)["engine"]
    expected = {"memory_bytes": (512 + 128 + 16 + 512 // 32 + (256 if emulated else 0)) * MIB, "cpus": 1.0, "pids": 129}
    assert {name: limits[name] for name in expected} == expected
    assert numbers(limits["groups"]) == expected
    jailed = {process.pid for role in ("vmm", "bwrap") for process in of_role(role, box)}
    assert len(jailed) == 3
    for group in limits["groups"]:
        assert members(group) == jailed, group
        assert pathlib.Path(group).name == box
    shim, = of_role("shim", box)
    assert not any(box in path for path in groups_of(shim.pid).values())
    said = caisson("inspect", box).text
    assert re.search(r"^limits +memory \d+(\.\d+)? ?MiB?, cpus 1000/1000, processes 129$", said, re.M), said


@as_root
def test_a_box_that_is_gone_has_no_group():
    box = start("--rm", BASE, "sleep", "1000")
    assert len(control_groups(box)) >= 1
    caisson("rm", "--force", box).ok()
    assert control_groups(box) == []


@as_root
def test_a_stopped_box_has_none_and_the_next_start_makes_them_again():
    box = start("--name", "again", BASE, "sleep", "1000")
    before = inspect(box)["limits"]
    caisson("stop", "-t", "0", box).ok()
    assert control_groups(box) == []
    caisson("start", box).ok()
    assert inspect(box)["limits"] == before and numbers(before["groups"])["pids"] == 129
    caisson("kill", box).ok()
    assert control_groups(box) == []


@as_root
def test_a_restart_policy_makes_them_again():
    box = start("--restart", "always", BASE, "sh", "-c", "sleep 1; exit 1")
    until(lambda: inspect(box)["restarts"] >= 1 and inspect(box)["state"] == "running", 30)
    vmm = until(lambda: of_role("vmm", box))[0]
    for group in inspect(box)["limits"]["groups"]:
        assert vmm.pid in members(group)


@as_root
def test_a_box_whose_supervisor_was_killed_leaves_no_group():
    box = start(BASE, "sleep", "1000")
    shim, = of_role("shim", box)
    shim.kill()
    caisson("ls").ok()
    until(lambda: control_groups(box) == [] and not of_role("vmm", box), 5)


@as_root
def test_start_by_policy_after_the_groups_were_lost():
    """As after a reboot, which leaves no group behind."""
    box = start("--restart", "always", BASE, "sleep", "1000")
    shim, = of_role("shim", box)
    shim.kill()
    caisson("ls").ok()
    until(lambda: control_groups(box) == [])
    for directory in {str(pathlib.Path(path).parent) for path in inspect(box)["limits"]["groups"]}:
        if os.path.isdir(f"{directory}/entry"):
            os.rmdir(f"{directory}/entry")
        os.rmdir(directory)  # the home's own; nothing is in it
    caisson("start", "--by-policy").ok()
    assert numbers(inspect(box)["limits"]["groups"])["pids"] == 129


@as_root
def test_files_of_a_stopped_box_are_read_within_limits_too(tmp_path):
    box = start(BASE, "sh", "-c", "echo content > /file")
    until_state(box, "stopped")
    assert caisson("cp", f"{box}:/file", "-").ok().out
    assert control_groups(box) == []


@as_root
def test_required_limits_are_met():
    assert caisson("run", "--rm", "--require-limits", BASE, "echo", "limited").ok().out == b"limited\n"


def test_the_plan_and_the_doctor_say_it():
    layer, = [layer for layer in caisson("doctor", "--format", "json").json()["layers"] if layer["name"] == "cgroup_limits"]
    plan = caisson("run", "--dry-run", BASE, "true").ok().text
    if limited():
        assert "memory, cpu, pids of each box, below /sys/fs/cgroup" in layer["detail"] and layer["state"] == "on"
        assert re.search(r"^on the host memory .*, cpus 1500/1000, processes 129$", plan, re.M), plan
    else:
        assert layer["fix"] and "not limited" in layer["detail"] and layer["state"] != "on"
        assert re.search(r"^on the host no limits \(", plan, re.M), plan


@as_user
def test_where_there_are_none_one_line_says_so():
    if limited():
        pytest.skip("this user may make control groups on this host")
    ended = caisson("run", "--rm", BASE, "true").ok()
    assert ended.said.count("\n") == 1 and "the host does not limit this box" in ended.said, ended
    assert caisson("run", "--rm", "-q", BASE, "true").ok().said == ""
    made = caisson("create", "--name", "made", BASE, "sleep", "1000").ok()
    assert made.said.count("the host does not limit this box") == 1
    assert caisson("start", "made").ok().said.count("the host does not limit this box") == 1
    limits = inspect("made")["limits"]
    assert limits["applied"] is False and limits["reason"] and limits["memory_bytes"] is None, limits
    assert re.search(r"^limits +none \(.+\)$", caisson("inspect", "made").text, re.M)


@as_user
@pytest.mark.parametrize("command", ["run", "create"])
def test_required_limits_that_cannot_be_had_are_an_error(command):
    if limited():
        pytest.skip("this user may make control groups on this host")
    ended = caisson(command, "--require-limits", "--name", "never", BASE, "true")
    assert ended.code == 125 and "limits are required" in ended.said and ended.said.count("\n") >= 2, ended
    assert leftovers() == []
