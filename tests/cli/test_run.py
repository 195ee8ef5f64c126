"""What a command finds in its box: image configuration and options, with Docker's meaning."""
import re

import pytest
from boxes import BASE, TINY, caisson, environment, run, script, sections


def test_the_two_commands_of_the_readme():
    kernel = next(check["found"] for check in caisson("doctor", "--format", "json").json()["checks"] if check["name"] == "guest_kernel")
    assert run(BASE, "uname", "-r").ok().text == kernel + "\n"
    assert run(BASE, "python3", "-c", "print(6*7)").ok().text == "42\n"


def test_defaults():
    found = sections(script("""
        echo '## id'; id
        echo '## pwd'; pwd
        echo '## env'; tr '\\0' '\\n' < /proc/self/environ
        echo '## hostname'; hostname
        echo '## etc'; cat /etc/hostname /etc/hosts
        echo '## net'; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '
        echo '## loopback'; python3 - <<'P'
import socket
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname(), 5)
client.send(b"x")
print(server.accept()[0].recv(1).decode(), socket.gethostbyname("localhost"), socket.gethostbyname(socket.gethostname()))
P
        echo '## df'; df -B1 --output=size / | tail -1
        echo '## write'; echo hello > /root/file && cat /root/file
        echo '## nproc'; nproc
        echo '## memory'; grep MemTotal /proc/meminfo
        echo '## machine-id'; cat /etc/machine-id
        echo '## umask'; umask
        echo '## fds'; ls /proc/self/fd | tr '\\n' ' '; echo
        echo '## signals'; grep -E 'SigBlk|SigIgn' /proc/self/status
        echo '## dev'; ls /dev | tr '\\n' ' '; echo; echo x > /dev/null; head -c 4 /dev/zero | od -An -tx1; ls -ld /dev/shm /dev/pts /tmp
    """).text)
    assert found["id"] == "uid=0(root) gid=0(root) groups=0(root)"
    assert found["pwd"] == "/"
    variables = dict(line.split("=", 1) for line in found["env"].splitlines())
    assert variables["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert variables["HOME"] == "/root"
    assert set(variables) <= {"PATH", "HOME", "HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_"}, "nothing of the host's"
    assert re.fullmatch(r"[0-9A-Za-z]{12}", found["hostname"])
    assert variables["HOSTNAME"] == found["hostname"]
    assert found["etc"].splitlines()[0] == found["hostname"] and "127.0.0.1\tlocalhost" in found["etc"]
    assert found["hostname"] in found["etc"].splitlines()[-1]
    assert found["net"] == "lo"
    assert found["loopback"].split()[:2] == ["x", "127.0.0.1"]
    assert 9 << 30 < int(found["df"]) <= 10 << 30
    assert found["write"] == "hello"
    assert found["nproc"] == "1"
    assert 350 << 10 < int(found["memory"].split()[1]) <= 512 << 10
    assert re.fullmatch(r"[0-9a-f]{32}", found["machine-id"])
    assert found["umask"] == "0022"
    assert found["fds"].split() == ["0", "1", "2", "3"]  # 3 is ls's own
    assert set(re.findall(r"\t(\w+)", found["signals"])) == {"0" * 16}
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin", "stdout", "stderr"} \
        <= set(found["dev"].splitlines()[0].split())
    assert "vda" not in found["dev"] and "vport" not in found["dev"]
    assert found["dev"].splitlines()[1].split() == ["00"] * 4


def test_options_reach_the_box(tmp_path):
    # Under root the file is readable by root alone: it is opened before caisson leaves root.
    variables = tmp_path / "variables"
    variables.write_text("# a comment\n\n  SPACED=in front\nFROM_FILE=file \nBOTH=file\nTAKEN_BY_FILE\nUNSET_IN_FILE\nEMPTY=\nEQUALS=a=b\r\n")
    variables.chmod(0o600)
    result = script("""
        echo '## env'; tr '\\0' '\\n' < /proc/self/environ
        echo '## pwd'; pwd; stat -c %u:%g:%a .
        echo '## hostname'; hostname; cat /etc/hostname
        echo '## mounts'; cat /proc/mounts
        echo '## root'; touch /file 2>&1; touch /etc/x 2>&1; touch /scratch/x && echo ok; touch /made/deep/x && echo ok
        echo '## exec'; printf '#!/bin/sh\\necho ran\\n' | tee /scratch/run > /made/deep/run
        chmod 755 /scratch/run /made/deep/run; /scratch/run; /made/deep/run 2>&1
        echo '## modes'; stat -c '%n %a' /scratch /made/deep
        echo '## sizes'; df -B1 --output=size /scratch | tail -1
        head -c 20000000 /dev/zero > /scratch/big 2>/dev/null; stat -c %s /scratch/big
    """, "-e", "GIVEN=1", "-e", "TAKEN", "-e", "UNSET", "--env", "BOTH=option", "-e", "SPACES=a b  c", "-e", "NEWLINE=a\nb",
        "--env-file", variables, "-w", "/made/for/me", "--hostname", "box-7.example",
        "--tmpfs", "/scratch:size=16M,mode=0750,exec", "--tmpfs", "/made/deep", "--tmpfs", "/made/for", "--read-only",
        env=environment(TAKEN="caller", TAKEN_BY_FILE="caller too"))
    found = sections(result.text)
    variables = found["env"].splitlines()
    for line in ("GIVEN=1", "TAKEN=caller", "BOTH=option", "SPACED=in front", "FROM_FILE=file ", "TAKEN_BY_FILE=caller too",
                 "EMPTY=", "EQUALS=a=b", "SPACES=a b  c"):
        assert line in variables, line
    assert "NEWLINE=a\nb" in found["env"] and "HOSTNAME=box-7.example" in variables
    assert not any(line.startswith(("UNSET", "BOTH=file")) for line in variables)
    assert found["pwd"].splitlines() == ["/made/for/me", "0:0:755"]
    assert found["hostname"].splitlines() == ["box-7.example"] * 2
    mounts = {line.split()[1]: line for line in found["mounts"].splitlines()}
    assert "ro," in mounts["/"] or " ro" in mounts["/"]
    for option in ("nosuid", "nodev"):
        assert option in mounts["/scratch"] and option in mounts["/made/deep"]
    assert "noexec" not in mounts["/scratch"] and "noexec" in mounts["/made/deep"]
    assert found["root"].count("Read-only file system") == 2 and found["root"].splitlines()[-2:] == ["ok", "ok"]
    assert found["exec"].splitlines()[0] == "ran" and "ermission denied" in found["exec"]
    assert found["modes"].splitlines() == ["/scratch 750", "/made/deep 1777"]
    assert [int(line) for line in found["sizes"].splitlines()][0] == 16 << 20
    assert int(found["sizes"].splitlines()[1]) < 16 << 20


@pytest.mark.parametrize("how", [[], ["--cold"]])
def test_processes_are_limited(how):
    # As in Docker the command itself counts, and nothing of caisson's does.
    assert run(*how, "--pids-limit", "1", BASE, "echo", "alone").ok().text == "alone\n"
    script_text = "import os\ntry:\n while True:\n  n = os.fork()\n  if n == 0: os.execlp('sleep', 'sleep', '60')\n  print('one more', flush=True)\nexcept OSError as e: print(e.strerror)"
    limited = run(*how, "--pids-limit", "10", BASE, "python3", "-c", script_text).ok()
    assert limited.lines == ["one more"] * 9 + ["Resource temporarily unavailable"]


def test_processes_are_not_limited_by_default():
    for option in ([], ["--pids-limit", "0"], ["--pids-limit", "-1"]):
        assert run(*option, BASE, "cat", "/sys/fs/cgroup/pids.max").ok().text == "max\n"


def test_the_image_s_configuration(tiny):
    default = run(TINY).ok()
    assert default.text == "entrypoint blue cmd\n", "entrypoint and cmd of the image, with its environment"
    # A command replaces cmd and keeps the entrypoint.
    found = sections(run("-e", "COLOUR=red", TINY, "sh", "-c",
                         "echo '## env'; env; echo '## pwd'; pwd; echo '## id'; id; tool").ok().text)
    variables = found["env"].splitlines()
    for line in ("FROM=entrypoint", "COLOUR=red", "SHAPE=round", "PATH=/usr/bin:/opt/tools", "HOME=/home/alice"):
        assert line in variables, line
    assert found["pwd"] == "/made/by/image"
    assert found["id"].splitlines() == ["uid=1000(alice) gid=1000(alice) groups=1000(alice),29(audio),44(video)", "tool in opt"]


def test_entrypoint_replaces_the_image_s_entrypoint_and_cmd(tiny):
    assert run("--entrypoint", "/usr/bin/id", TINY, "-un").ok().text == "alice\n"
    assert run("--entrypoint", "", TINY, "sh", "-c", "echo ${FROM:-none}").ok().text == "none\n"
    # The image's cmd went with its entrypoint.
    nothing = run("--entrypoint", "", TINY)
    assert nothing.code == 2 and "no command" in nothing.said


@pytest.mark.parametrize("user, expected", [
    ("bob", "uid=1001(bob) gid=100(users) groups=100(users),44(video)"),
    ("1001", "uid=1001(bob) gid=100(users) groups=100(users),44(video)"),
    ("alice:staff", "uid=1000(alice) gid=50(staff) groups=50(staff)"),
    ("4242", "uid=4242 gid=0(root) groups=0(root)"),
    ("4242:4343", "uid=4242 gid=4343 groups=4343"),
    ("root", "uid=0(root) gid=0(root) groups=0(root)"),
])
def test_user(tiny, user, expected):
    found = run("-u", user, "-w", "/", TINY, "sh", "-c", "id; echo $HOME; echo x > /dev/stdout; cat /proc/self/status").ok().lines
    assert found[0] == expected
    assert found[1] == {"bob": "/home/bob", "1001": "/home/bob", "root": "/root"}.get(user, "/home/alice" if "alice" in user else "/")
    assert found[2] == "x"
    assert ("CapEff:\t" + "0" * 16 in found) == (user != "root")


@pytest.mark.parametrize("user, message", [("nobody-here", "unknown user 'nobody-here'"), ("alice:nogroup", "unknown group 'nogroup'")])
def test_an_unknown_user_is_a_clear_error(tiny, user, message):
    result = run("-u", user, TINY, "true")
    assert result.code == 126 and message in result.said


def test_the_first_process_reaps_orphans():
    found = script("""
        i=0; while [ $i -lt 30 ]; do sh -c 'sleep 0.05 & exit'; i=$((i+1)); done
        sleep 0.5
        cat /proc/[0-9]*/stat | grep -c ' Z '
        cat /proc/1/comm
        sh -c 'sleep 5 & echo $!' > /tmp/orphan
        cut -d' ' -f4 /proc/$(cat /tmp/orphan)/stat
    """).lines
    assert found == ["0", "init", "1"]


def test_cpu_and_memory_limits_hold_in_the_guest():
    shape = ("--cpus", "1.5", "--memory", "200M")
    found = script("nproc; cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max; grep MemTotal /proc/meminfo", *shape).lines
    assert found[:3] == ["2", "150000 100000", str(200 << 20)]
    assert int(found[3].split()[1]) <= 256 << 10
    greedy = run(*shape, BASE, "python3", "-c", "print('before', flush=True); x = []\nwhile True: x.append(b'x' * (1 << 20))")
    assert (greedy.code, greedy.text) == (137, "before\n")
    assert "out of memory" in greedy.said and "--memory" in greedy.said
    # Under -q only the code tells.
    quiet = run("-q", *shape, BASE, "python3", "-c", "x = []\nwhile True: x.append(b'x' * (1 << 20))")
    assert (quiet.code, quiet.err) == (137, b"")


def test_disk_sizes():
    measure = "df -B1 --output=size / | tail -1; head -c 1000000 /dev/zero > /x && sync && stat -c %s /x"
    small = script(measure, "--disk-size", "1G").lines
    assert 700 << 20 < int(small[0]) <= 1 << 30 and small[1] == "1000000"
    large = script(measure, "--disk-size", "20G").lines
    assert 19 << 30 < int(large[0]) <= 20 << 30 and large[1] == "1000000"


def test_a_full_disk_is_the_command_s_error(tiny):
    found = run("--disk-size", "64M", "-u", "0", "-w", "/", tiny, "sh", "-c",
                "head -c 90000000 /dev/zero > /big; echo $?; : > /big; sleep 0.2; echo small > /file; cat /file").ok()
    assert found.lines == ["1", "small"] and "No space left" in found.said
    too_small = run("--disk-size", "64M", BASE, "true")
    assert too_small.code == 125 and "64.0 MiB" in too_small.said and "larger" in too_small.said, too_small


def test_timings_add_up():
    result = run("--timings", BASE, "true").ok()
    rows = dict(re.findall(r"^  (\S.*?) {2,}([0-9.]+) ms$", result.said, flags=re.M))
    total = float(rows.pop("sum"))
    assert {"restore, agent answers", "configure the guest", "start the command", "run the command"} <= set(rows)
    assert abs(sum(map(float, rows.values())) - total) <= 0.1 * len(rows), rows
    assert total <= result.seconds * 1000 and total >= result.seconds * 1000 - 150, (total, result.seconds)
    assert "KVM" in result.said or "TCG" in result.said, "says which engine runs the guest"


def test_cold_boots_a_machine_of_its_own():
    templates = caisson("template", "ls", "--format", "json").json()
    # More than one: where a tick of an old timer could end a boot, on quick hosts it ended two of three.
    for _ in range(4):
        found = run("--cold", BASE, "sh", "-c", "uname -r; cat /proc/sys/kernel/random/boot_id; pwd").ok().lines
        assert found[2] == "/"
    assert caisson("template", "ls", "--format", "json").json() == templates


def test_a_command_sees_its_arguments_as_they_are():
    words = ["--rm", "-x", "", "a b", "*", "$HOME", "'", '"', "\\", "\n", "é", "--", "-"]
    code = "import sys; print(sys.argv[1:])"
    assert run(BASE, "python3", "-c", code, *words).ok().text == repr(words) + "\n"
    # One `--` behind the image is dropped, a second one is the command's.
    assert run(BASE, "--", "python3", "-c", code, "--", "-v").ok().text == "['--', '-v']\n"


RESIDENT = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
for path in sys.argv[1:]:
    size = os.path.getsize(path)
    file = os.open(path, os.O_RDONLY)
    where = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, file, ctypes.c_long(0))
    pages = (ctypes.c_ubyte * ((size + 4095) // 4096))()
    assert libc.mincore(ctypes.c_void_p(where), ctypes.c_size_t(size), pages) == 0
    print(sum(page & 1 for page in pages) / len(pages))
"""


def test_usual_commands_are_in_memory_when_a_box_starts():
    """Templates have read them before they were saved, so that a first command waits for no disk."""
    done = run(BASE, "python3", "-c", RESIDENT, "/usr/bin/true", "/usr/bin/cat", "/usr/bin/tac").ok()
    warm, also, other = (float(line) for line in done.lines)
    assert (warm, also) == (1, 1)
    assert other < 1, "a command that nobody named is in memory as well: this test shows nothing"


def test_a_user_of_a_mounted_passwd_is_found(tiny):
    """The first command's process has read the image's users before the box was configured; a mount over /etc counts."""
    assert run("--tmpfs", "/etc", "-u", "alice", "--entrypoint", "", tiny, "id").code == 126
    assert run("-u", "alice", "--entrypoint", "", tiny, "id", "-u").ok().text == "1000\n"
