"""--dry-run shows what would be done and starts nothing."""
import json

from boxes import BASE, HOME, box_ids, caisson, processes, run


def test_it_shows_machine_jail_and_command_and_starts_nothing():
    plan = run("--dry-run", "--memory", "300M", "--cpus", "2", "-e", "MODE=test", "-w", "/work", "-u", "nobody", "--tmpfs", "/x:size=1M",
               "--read-only", BASE, "sh", "-c", "echo 'a b'").ok()
    for part in ("2cpu-512m", "sh -c", "MODE=test", "HOSTNAME=", "/work", "nobody", "/x", "read-only", "network", "none", "jail of vmm",
                 "--unshare-net", "--cap-drop ALL", "--clearenv", "-sandbox", "/template", "qemu-system-x86_64",
                 "--seccomp", "list 'vmm'", "landlock", "/run/caisson-enter /box/disk.qcow2 -- /usr/bin/qemu"):
        assert part in plan.text, part
    assert plan.err == b"" and not box_ids() and not processes()
    assert "--ro-bind / /" not in plan.text, "nothing of the host's file system but what is listed"


def test_it_shows_every_kind_of_process_that_a_box_has():
    plan = run("--dry-run", BASE, "true").ok().text
    for part in ("lock of supervisor", "list 'shim'", "/boxes/ID", "launcher\n", "jail of unpacker", "list 'unpacker'",
                 "/caisson-unpack", "jail of registry client", "list 'fetch'", "the host's net", "read-write   /downloads"):
        assert part in plan, part


def test_it_refuses_what_a_run_refuses():
    assert run("--dry-run", "no/such", "true").code == 125
    assert run("--dry-run", "--net", "host", BASE, "true").code in (2, 125)
    assert run("--dry-run", "--memory", "1K", BASE, "true").code == 2


def test_it_makes_no_template_and_no_disk():
    before = sorted(str(path) for path in HOME.rglob("*") if ".db" not in path.name)
    plan = run("--dry-run", "--memory", "4G", "--cpus", "4", "--disk-size", "3G", BASE, "true").ok()
    assert "4cpu-4096m" in plan.text
    assert sorted(str(path) for path in HOME.rglob("*") if ".db" not in path.name) == before
    assert json.loads(caisson("ls", "--all", "--format", "json").out) == []


def test_nothing_that_a_terminal_obeys_is_shown():
    """What one looks at before one trusts an image shows the image's own words."""
    hostile = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\u009b31m\u202e"
    plan = run("--dry-run", "-e", "X=" + hostile, "-w", "/" + hostile, "-u", "u" + hostile, BASE, "sh", hostile).ok().text
    assert plan.count("]52;c;") == 4
    assert not [c for c in plan if (c < " " and c != "\n") or "\x7f" <= c <= "\x9f" or c == "\u202e"]


def test_cold_is_shown():
    plan = run("--dry-run", "--cold", BASE, "true").ok().text
    assert "cold" in plan and "-kernel" in plan and "-incoming" not in plan
    assert "-incoming" in run("--dry-run", BASE, "true").ok().text
