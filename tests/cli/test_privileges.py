"""--cap-add, --cap-drop, --privileged and --security-opt, of a box and of further commands in it."""
import json

import pytest
from boxes import BASE, caisson, inspect, run, start

DOCKER = 0xa80425fb
ALL = (1 << 41) - 1
NET_ADMIN, CHOWN, SYS_MODULE = 1 << 12, 1 << 0, 1 << 16
STATUS = ("grep", "-E", "^(Cap|NoNewPrivs)", "/proc/self/status")


def privileges(ended):
    values = dict(line.split(":\t") for line in ended.ok().lines)
    return {name: int(value, 16) for name, value in values.items()}


def of_root(capabilities, no_new=0):
    return {"CapInh": 0, "CapPrm": capabilities, "CapEff": capabilities, "CapBnd": capabilities, "CapAmb": 0, "NoNewPrivs": no_new}


@pytest.mark.parametrize("options, expected", [
    ((), DOCKER),
    (("--cap-drop", "ALL"), 0),
    (("--cap-drop", "all", "--cap-add", "net_admin"), NET_ADMIN),
    (("--cap-add", "CAP_NET_ADMIN"), DOCKER | NET_ADMIN),
    (("--cap-drop", "Cap_Chown"), DOCKER & ~CHOWN),
    (("--cap-add", "ALL", "--cap-drop", "SYS_MODULE"), ALL & ~SYS_MODULE),
    (("--privileged",), ALL),
    (("--privileged", "--cap-drop", "SYS_MODULE"), ALL & ~SYS_MODULE),
])
def test_root_has_what_was_asked_for(options, expected):
    assert privileges(run(*options, BASE, *STATUS)) == of_root(expected)


def test_other_users_have_none_and_gain_at_most_the_box_s():
    assert privileges(run("-u", "1000", "--cap-add", "NET_ADMIN", BASE, *STATUS)) == {
        **of_root(0), "CapBnd": DOCKER | NET_ADMIN}
    setuid = ("cp $(command -v grep) /tmp/g && chmod 4755 /tmp/g && "
              "exec setpriv --reuid 1000 --clear-groups /tmp/g -E '^(Cap|NoNewPrivs)' /proc/self/status")
    assert privileges(run("--cap-drop", "ALL", "--cap-add", "SETUID", "--cap-add", "SETGID", BASE, "sh", "-c", setuid))["CapEff"] == 0xc0
    # With no new privileges the bit means nothing.
    held = privileges(run("--security-opt", "no-new-privileges", BASE, "sh", "-c", setuid))
    assert held["CapEff"] == 0 and held["NoNewPrivs"] == 1


@pytest.mark.parametrize("option, expected", [
    ("no-new-privileges", 1), ("no-new-privileges=true", 1), ("no-new-privileges:true", 1), ("no-new-privileges=false", 0),
    ("seccomp=unconfined", 0), ("apparmor=unconfined", 0)])
def test_security_options(option, expected):
    assert privileges(run("--security-opt", option, BASE, *STATUS)) == of_root(DOCKER, expected)


@pytest.mark.parametrize("options, code, words", [
    (("--cap-add", "NET_ADMN"), 2, ("--cap-add 'NET_ADMN'", "NET_ADMIN")),
    (("--cap-drop", "root"), 2, ("--cap-drop 'root'", "nearest")),
    (("--cap-add", ""), 2, ("--cap-add",)),
    (("--security-opt", "no-new-privileges=maybe"), 2, ("neither true nor false",)),
    (("--security-opt", "seccomp=/profile.json"), 125, ("seccomp=/profile.json", "not available")),
    (("--security-opt", "nonsense"), 125, ("nonsense",)),
])
def test_what_is_not_known_is_refused(options, code, words):
    ended = run(*options, BASE, "true")
    assert ended.code == code and all(word in ended.said for word in words), ended


def test_a_terminal_and_a_cold_box_have_them_too():
    assert privileges(run("--cold", "--cap-drop", "ALL", BASE, *STATUS)) == of_root(0)
    ended = run("--cap-drop", "ALL", BASE, "python3", "-c",
                "import pty, sys; sys.exit(pty.spawn(['grep', '-E', 'CapEff', '/proc/self/status']) >> 8)").ok()
    assert ended.text.split() == ["CapEff:", "0000000000000000"]


@pytest.mark.keeps
def test_further_commands_and_records(ends_boxes):
    box = start("--cap-drop", "ALL", "--cap-add", "chown", "--security-opt", "no-new-privileges", BASE, "sleep", "1000")
    assert privileges(caisson("exec", box, *STATUS)) == of_root(CHOWN, 1)
    assert privileges(caisson("exec", "-u", "1000", box, *STATUS))["CapEff"] == 0
    assert privileges(caisson("exec", "--privileged", box, *STATUS)) == of_root(ALL, 1)
    assert privileges(caisson("exec", box, *STATUS)) == of_root(CHOWN, 1), "a privileged command is that one command"
    record = inspect(box)
    assert {name: record[name] for name in ("cap_add", "cap_drop", "privileged", "no_new_privileges")} == {
        "cap_add": ["CAP_CHOWN"], "cap_drop": ["ALL"], "privileged": False, "no_new_privileges": True}
    assert "no new privileges, +CAP_CHOWN, -ALL" in caisson("inspect", box).ok().text
    # Started again they are what they were.
    caisson("stop", "-t", "0", box).ok()
    caisson("start", box).ok()
    assert privileges(caisson("exec", box, *STATUS)) == of_root(CHOWN, 1)


def test_a_privileged_box_is_opened():
    seen = json.loads(run("--privileged", BASE, "python3", "-c", """
import json, os, subprocess
def tried(function):
    try:
        return function()
    except OSError as error:
        return error.strerror
print(json.dumps({
    "kmsg": tried(lambda: os.close(os.open("/dev/kmsg", os.O_RDONLY))),
    "left out": [name for name in os.listdir("/dev") if name.startswith(("vport", "vd"))],
    "usual": sorted(set(["null", "zero", "full", "random", "urandom", "tty"]) - set(os.listdir("/dev"))),
    "kcore": tried(lambda: open("/proc/kcore", "rb").read(4).hex()),
    "sysctl": tried(lambda: open("/proc/sys/vm/overcommit_memory", "w").write("1")),
    "cgroup": tried(lambda: os.mkdir("/sys/fs/cgroup/mine")),
    "mount": subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]).returncode,
    "sys": open("/proc/mounts").read().split(" /sys ")[1].split()[1].split(",")[0]}))
""").ok().out)
    assert seen == {"kmsg": None, "left out": [], "usual": [], "kcore": "7f454c46", "sysctl": 1, "cgroup": None, "mount": 0, "sys": "rw"}


def test_it_is_shown_before_it_runs():
    def line(*options):
        return [line for line in run("--dry-run", *options, BASE, "true").ok().lines if line.startswith("privileges")]
    assert line() == []
    assert line("--cap-drop", "ALL") == ["privileges no capability"]
    assert line("--cap-drop", "ALL", "--cap-add", "net_raw") == ["privileges CAP_NET_RAW"]
    assert line("--privileged") == ["privileges privileged (every device, nothing hidden), all capabilities"]
    assert line("--security-opt", "no-new-privileges") == ["privileges no new privileges"]
