"""--security none: a box whose VMM has no jail. It is asked for by this word, said and shown, and ends like any other."""
import os

import pytest
from boxes import BASE, HOME, IS_ROOT, Started, caisson, inspect, listed, of_role, one_box, run, start, until, until_state, wait_until_gone

NONE = ("--security", "none")
NAMESPACES = ("user", "mnt", "pid", "ipc", "uts", "cgroup", "net")
WARNING = "without a jail"


@pytest.fixture
def box():
    with Started("run", "--rm", *NONE, BASE, "sh", "-c", "echo ready; sleep 1000") as running:
        running.line()
        running.id = one_box()
        running.vmm, = of_role("vmm", running.id)
        yield running


@pytest.mark.parametrize("how", [(), ("--cold",)], ids=["restored", "cold"])
def test_it_runs_and_says_so_once(how):
    done = run(*NONE, *how, BASE, "sh", "-c", "echo out; exit 7")
    assert (done.code, done.text) == (7, "out\n"), done
    assert done.said.count(WARNING) == 1, done
    wait_until_gone()


def test_quiet_says_nothing():
    assert run("-q", *NONE, BASE, "true").ok().err == b""


def test_the_vmm_is_on_the_host_but_gets_nothing_that_it_needs_not(box):
    own = box.vmm.namespaces()
    assert {name: own[name] for name in NAMESPACES} == {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES}
    status = box.vmm.status()
    assert status["Seccomp"] == "2" and status["Seccomp_filters"] == "1", "QEMU's own alone"
    assert status["NoNewPrivs"] == "1" and int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert set(status["Uid"].split()) == {str(os.stat(HOME).st_uid)} and os.stat(HOME).st_uid != 0
    assert status["Groups"].split() == [] or not IS_ROOT
    with open(f"/proc/{box.vmm.pid}/environ", "rb") as file:
        assert file.read() == b""
    with open(f"/proc/{box.vmm.pid}/limits") as file:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in file}
    assert limits["Max core file size"] == ["0", "0"] and int(limits["Max open files"][1]) <= 1024
    assert limits["Max data size"][1] != "unlimited"
    assert not of_role("bwrap", box.id)


def test_it_loads_nothing_of_the_host_s_libraries(box):
    with open(f"/proc/{box.vmm.pid}/maps") as file:
        mapped = {line.split()[5] for line in file if len(line.split()) == 6 and line.split()[5].startswith("/")}
    assert not [path for path in mapped if path.startswith(("/lib", "/usr/lib/x86_64", "/usr/lib64", "/etc"))], mapped


def test_the_same_control_groups_bound_it(box):
    groups = inspect(box.id)["limits"]["groups"]
    if not groups:
        pytest.skip("this host does not let this user limit boxes")
    for group in groups:
        with open(os.path.join(group, "cgroup.procs")) as file:
            assert box.vmm.pid in map(int, file.read().split()), group


def test_lists_show_it(box):
    assert listed()[inspect(box.id)["name"]]["security"] == "none"
    assert "running (no jail)" in caisson("ls").ok().text
    details = inspect(box.id)
    assert details["security"] == "none" and details["vmm_pid"] == box.vmm.pid
    shown = next(process for process in details["jail"] if process["kind"] == "vmm")
    assert (shown["namespaces"], shown["call_filters"], shown["landlock"]) == ([], 1, None)
    assert "none: its VMM has no jail" in caisson("inspect", box.id).ok().text


def test_a_usual_box_is_jailed():
    box = start(BASE, "sleep", "1000")
    assert listed()[inspect(box)["name"]]["security"] == inspect(box)["security"] == "jailed"
    assert "no jail" not in caisson("ls").ok().text
    caisson("rm", "-f", box).ok()
    wait_until_gone()


@pytest.mark.parametrize("arguments", [("--security", "off"), ("--security", ""), ("--security", "None"), ("--security",)])
def test_only_the_word_switches_it(arguments):
    refused = run(BASE) if not arguments else caisson("run", "--rm", *arguments, *(() if len(arguments) == 1 else (BASE, "true")))
    assert refused.code in (2, 125) and refused.out == b"", refused
    wait_until_gone()


@pytest.mark.parametrize("victim", ["launcher", "shim", "vmm"])
def test_it_ends_with_whoever_is_killed(victim):
    box = start(*NONE, BASE, "sleep", "1000")
    vmm, = of_role("vmm", box)
    killed, = of_role(victim, box)
    killed.kill()
    until(lambda: not of_role("vmm", box), 5, "the VMM outlives its launcher")
    assert vmm.pid
    until_state(box, "failed")
    caisson("rm", box).ok()
    wait_until_gone()


def test_it_is_recorded_and_each_start_says_so():
    made = caisson("create", "--pull", "never", *NONE, "--name", "bare", BASE, "sleep", "1000").ok()
    assert made.said.count(WARNING) == 1
    try:
        assert inspect("bare")["security"] == "none"
        assert caisson("start", "bare").ok().said.count(WARNING) == 1
        assert of_role("vmm", inspect("bare")["id"])[0].namespaces()["mnt"] == os.readlink("/proc/self/ns/mnt")
        caisson("stop", "--timeout", "0", "bare").ok()
        assert not of_role("vmm")
        caisson("start", "bare").ok()
        assert len(of_role("vmm")) == 1
    finally:
        caisson("rm", "-f", "bare").ok()
    wait_until_gone()


def test_dry_run_shows_it():
    plan = run("--dry-run", *NONE, BASE, "true").ok()
    for part in ("security   none", "NO JAIL of vmm", "without a jail", "/usr/lib64/ld-linux-x86-64.so.2", "-sandbox", "spawn=deny"):
        assert part in plan.text, part
    assert "bwrap" not in plan.text and "/template/" not in plan.text
    assert "security   jailed" in run("--dry-run", BASE, "true").ok().text
