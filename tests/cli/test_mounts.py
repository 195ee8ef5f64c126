"""Volumes in boxes: whose files they are, what a guest can do to them, and what it cannot."""
import pathlib
import signal
import stat
import subprocess
import time

import pytest
from boxes import BASE, Started, caisson, inspect, of_role, run, script, sections, start, until, until_state

pytestmark = pytest.mark.usefixtures("no_volumes_stay")


def host_of(volume):
    return pathlib.Path(caisson("volume", "inspect", "--format", "json", volume).json()[0]["path"])


def tree_of(directory):
    """Everything that the host knows of a tree, to see whether anything of it changed."""
    found = {}
    for path in sorted([directory, *directory.rglob("*")]):
        info = path.lstat()
        found[str(path)] = (info.st_mode, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns, info.st_nlink,
                            path.read_bytes() if stat.S_ISREG(info.st_mode) else b"")
    return found


# ---- kinds of mounts ----

def test_named_ones_are_kept_and_shared_and_anonymous_ones_go_with_their_box():
    script("echo one > /data/f", "-v", "shared:/data", "-v", "/scratch")
    assert script("cat /other/f; ls -A /scratch", "-v", "shared:/other", "-v", "/scratch").text == "one\n"
    assert caisson("volume", "ls", "-q").lines == ["shared"]
    start("--name", "keeper", "-v", "/scratch", BASE, "sh", "-c", "[ -e /scratch/k ] || echo kept > /scratch/k; sleep 600")
    until(lambda: caisson("exec", "keeper", "cat", "/scratch/k").text == "kept\n")
    anonymous = [volume for volume in caisson("volume", "ls", "--format", "json").json() if volume["anonymous"]]
    assert len(anonymous) == 1 and anonymous[0]["boxes"] == ["keeper"]
    caisson("stop", "-t", "0", "keeper").ok()
    caisson("start", "keeper").ok()
    assert caisson("exec", "keeper", "cat", "/scratch/k").ok().text == "kept\n"
    caisson("rm", "--force", "keeper").ok()
    assert caisson("volume", "ls", "-q").lines == ["shared"]


def test_inspect_says_what_is_mounted(ends_boxes):
    start("--name", "seen", "-v", "shared:/data:ro", "-v", "/scratch", BASE, "sleep", "600")
    mounts = {mount["target"]: mount for mount in inspect("seen")["mounts"] if mount["type"] == "volume"}
    assert set(mounts) == {"/data", "/scratch"}
    assert mounts["/data"]["volume"] == "shared" and mounts["/data"]["read_only"] and not mounts["/data"]["anonymous"]
    assert mounts["/scratch"]["anonymous"] and not mounts["/scratch"]["read_only"]
    server = [process for process in inspect("seen")["jail"] if process["kind"] == "share"]
    assert len(server) == 1 and server[0]["filter"] == "share" and int(server[0]["capabilities"], 16) == 0, server
    assert {"user", "mnt", "pid", "net"} <= set(server[0]["namespaces"])


def test_forty_mounts_and_forty_single_files():
    caisson("volume", "create", "many").ok()
    script("for i in $(seq 40); do echo $i > /m/f$i; done", "-v", "many:/m")
    options = []
    for i in range(1, 41):
        options += ["-v", f"v{i}:/mnt/v{i}", "-v", f"many/f{i}:/etc/files/f{i}"]
    said = sections(script("""
        echo '## files'; cat $(for i in $(seq 40); do echo /etc/files/f$i; done) | tr '\\n' ' '; echo
        echo '## count'; grep -c fuse.caisson /proc/mounts
        echo '## mounts'; mount
        for i in $(seq 40); do echo $i > /mnt/v$i/own || exit 1; done
        echo '## listing'; ls /etc/files | wc -l
    """, *options).text)
    assert said["files"].split() == [str(i) for i in range(1, 41)]
    assert said["count"] == "80" and said["listing"] == "40"
    for line in said["mounts"].splitlines():
        if "fuse.caisson" in line:
            assert line.startswith(("caisson on /mnt/v", "caisson on /etc/files/f")), line
        assert "guest" not in line.split(" on ")[1].split(" ")[0], line
    for i in (1, 40):
        assert (host_of(f"v{i}") / "own").read_text() == f"{i}\n"


# ---- single files ----

def test_a_single_file_is_one_file():
    script("cd /v; echo mine > conf; echo secret > neighbour; mkdir d; echo inner > d/x", "-v", "files:/v")
    said = sections(script("""
        echo '## content'; cat /etc/deep/app.conf
        echo '## around'; ls -A /etc/deep
        echo '## dotdot'; ls /etc/deep/app.conf/.. 2>&1; cat /etc/deep/app.conf/../neighbour 2>&1
        echo '## searched'; find / -xdev -name neighbour 2>/dev/null; find /proc/self/root /proc/1/root -maxdepth 3 -name neighbour 2>/dev/null
        echo '## written'; echo changed > /etc/deep/app.conf; cat /etc/deep/app.conf
        echo '## replaced'; echo x > /tmp/x; mv /tmp/x /etc/deep/app.conf 2>&1; rm /etc/deep/app.conf 2>&1
        echo '## directory'; ls /sub
    """, "-v", "files/conf:/etc/deep/app.conf", "-v", "files/d:/sub").text)
    assert said["content"] == "mine" and said["around"] == "app.conf" and said["searched"] == ""
    assert "Not a directory" in said["dotdot"] and "secret" not in said["dotdot"]
    assert said["written"] == "changed" and "busy" in said["replaced"] and said["directory"] == "x"
    assert (host_of("files") / "conf").read_text() == "changed\n"
    assert (host_of("files") / "neighbour").read_text() == "secret\n"


def test_places_that_look_alike_do_not_collide_and_a_second_run_shows_its_own():
    script("echo 1 > /v/one; echo 2 > /v/two", "-v", "files:/v")
    assert script("cat /a_b /a/b", "-v", "files/one:/a_b", "-v", "files/two:/a/b").text == "1\n2\n"
    for name, content in (("one", "1\n"), ("two", "2\n"), ("one", "1\n")):
        assert script("cat /same", "-v", f"files/{name}:/same").text == content


def test_parts_of_a_volume_must_exist_and_no_box_stays():
    caisson("volume", "create", "files").ok()
    failed = run("-v", "files/missing:/x", BASE, "true")
    assert failed.code == 125 and "missing" in failed.said and "volume cp" in failed.said, failed
    assert caisson("ls", "--all", "-q").lines == []


# ---- whose files ----

def test_the_boxs_user_owns_what_is_the_volumes_in_every_box():
    script("echo a > /data/f; chmod 644 /data/f; chmod 755 /data", "-v", "own:/data")
    assert script("id -u; stat -c %u:%g:%a /data/f; echo b >> /data/f", "-v", "own:/data", "-u", "1000:1000").text == "1000\n1000:1000:644\n"
    assert script("stat -c %u /data/f; mv /data/f /data/g; cat /data/g", "-v", "own:/data", "-u", "33:33").text == "33\na\nb\n"
    directory = host_of("own")
    owner = directory.stat().st_uid
    assert [entry.lstat().st_uid for entry in directory.iterdir()] == [owner]
    script("chown 999:998 /data/g; echo c > /data/h; chown 0:0 /data/h", "-v", "own:/data")
    assert script("stat -c %u:%g /data/g /data/h", "-v", "own:/data", "-u", "1000:1000").text == "999:998\n1000:1000\n"
    assert {entry.lstat().st_uid for entry in directory.iterdir()} == {owner}
    # Where nobody can write there is nobody to whom it has to belong.
    assert script("stat -c %u:%g /data/g /data/h", "-v", "own:/data:ro", "-u", "1000:1000").text == f"999:998\n{owner}:{directory.stat().st_gid}\n"


def test_what_a_guest_makes_of_a_file_the_host_does_not():
    said = sections(script("""
        cd /data; for f in a b c d; do echo $f > $f; done
        chmod 777 a; chown 12:34 b; chmod 6755 c; mknod null c 1 3; mkfifo pipe; ln -s /etc/shadow link; mkdir m; chmod 1777 m
        echo '## guest'; stat -c '%n %F %a %u:%g' a b c null pipe link m
    """, "-v", "made:/data").text)["guest"]
    assert said.splitlines() == ["a regular file 777 0:0", "b regular file 644 12:34", "c regular file 6755 0:0",
                                 "null character special file 644 0:0", "pipe fifo 644 0:0", "link symbolic link 777 0:0", "m directory 1777 0:0"]
    directory = host_of("made")
    owner = directory.stat().st_uid
    for name in ("a", "b", "c", "d", "null", "pipe"):
        info = (directory / name).lstat()
        assert stat.S_ISREG(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o600 and info.st_uid == owner and info.st_nlink == 1, name
    info = (directory / "m").lstat()
    assert stat.S_ISDIR(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o700 and info.st_uid == owner


# ---- read-only ----

WRITES = """
        try() { "$@" 2>&1 | tail -1; }
        echo '## create'; try touch /data/new
        echo '## write'; try sh -c 'echo x >> /data/f'
        echo '## truncate'; try truncate -s 0 /data/f
        echo '## unlink'; try rm -f /data/f
        echo '## mkdir'; try mkdir /data/n
        echo '## rmdir'; try rmdir /data/d
        echo '## rename'; try mv /data/f /data/g
        echo '## link'; try ln /data/f /data/g
        echo '## symlink'; try ln -s x /data/g
        echo '## chmod'; try chmod 777 /data/f
        echo '## chown'; try chown 1:1 /data/f
        echo '## times'; try touch -d 2001-01-01 /data/f
        echo '## mknod'; try mknod /data/n c 1 3
        echo '## xattr'; try python3 -c 'import os; os.setxattr("/data/f", "user.x", b"1")'
        echo '## allocate'; try python3 -c 'import os; os.posix_fallocate(os.open("/data/f", os.O_RDWR), 0, 10)'
"""


@pytest.mark.parametrize("privileged", [False, True])
def test_a_guests_root_writes_nothing_to_a_read_only_mount(privileged):
    script("echo content > /data/f; mkdir /data/d", "-v", "fixed:/data")
    directory = host_of("fixed")
    before = tree_of(directory)
    more = ["--privileged"] if privileged else []
    said = sections(script("""
        mount -o remount,rw /data; mount -o remount,bind,rw /data; mkdir -p /other; mount --bind /data /other && mount -o remount,bind,rw /other
        mount -o remount,rw caisson /data
        mount -t fuse.caisson caisson /other; umount /data
        true
    """ + WRITES, "-v", "fixed:/data:ro", *more).text)
    if not privileged:
        for what, answer in said.items():
            assert "Read-only file system" in answer, (what, answer)
    assert len(said) >= 12
    assert tree_of(directory) == before


def test_privileged_root_remounts_the_share_itself_and_still_writes_nothing():
    script("echo content > /data/f; mkdir /data/d", "-v", "fixed:/data")
    before = tree_of(host_of("fixed"))
    said = sections(script("mount -o remount,bind,rw /data || exit 7; grep ' /data ' /proc/mounts | grep -q ' rw,' || exit 8\n" + WRITES,
                           "-v", "fixed:/data:ro", "--privileged").text)
    for what, answer in said.items():
        assert "Read-only file system" in answer, (what, answer)
    assert tree_of(host_of("fixed")) == before


# ---- limits ----

def test_a_volume_with_a_limit_is_full_at_its_limit():
    caisson("volume", "create", "--size", "10M", "small").ok()
    said = sections(script("""
        echo '## df'; df -B1 --output=size /data | tail -1
        echo '## write'; dd if=/dev/zero of=/data/big bs=64k count=320 2>&1 | grep -c 'No space left'
        echo '## size'; stat -c %s /data/big
        echo '## small'; echo x > /data/little || echo full
        rm /data/big; echo '## again'; dd if=/dev/zero of=/data/big bs=1M count=8 2>&1 | tail -1
        echo '## jump'; truncate -s 1G /data/sparse && echo sparse; fallocate -l 100M /data/much 2>&1; true
    """, "-v", "small:/data").text)
    assert abs(int(said["df"]) - (10 << 20)) < 65536 and said["write"] == "1"
    assert 8 << 20 < int(said["size"]) <= 10 << 20 and said["again"].startswith("8388608 bytes")
    assert "sparse" in said["jump"] and "No space left" in said["jump"]
    used = int(subprocess.run(["du", "-s", "-B1", host_of("small")], check=True, stdout=subprocess.PIPE).stdout.split()[0])
    assert used <= 10 << 20, used
    # The next box goes on counting where this one stopped.
    assert "No space left" in run("-v", "small:/data", BASE, "sh", "-c", "dd if=/dev/zero of=/data/more bs=1M count=8").said


def test_room_that_is_given_back_is_there_at_once():
    program = """
import os
new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
for _ in range(20):
    kept, gone = os.open('/data/kept', new), os.open('/data/gone', new)
    try:
        while True: os.write(gone, b'x' * 65536)
    except OSError as error:
        assert error.errno == 28, error
    os.unlink('/data/gone')
    os.close(gone)
    assert os.write(kept, b'x' * 1000000) == 1000000
    os.close(kept)
"""
    caisson("volume", "create", "--size", "2M", "tight").ok()
    run("-v", "tight:/data", BASE, "python3", "-c", program).ok()


# ---- as on a disk ----

def test_sqlite_survives_the_death_of_its_box(ends_boxes):
    program = """
import sqlite3, sys
db = sqlite3.connect('/data/db', isolation_level=None)
assert db.execute('pragma journal_mode=wal').fetchone() == ('wal',)
db.execute('pragma synchronous=full')
db.execute('create table if not exists t (n integer primary key)')
first = db.execute('select coalesce(max(n), 0) from t').fetchone()[0]
for n in range(first + 1, first + 100000):
    db.execute('insert into t values (?)', (n,))
    print(n, flush=True)
"""
    check = """
import sqlite3
db = sqlite3.connect('/data/db')
print(db.execute('pragma integrity_check').fetchone()[0], db.execute('select count(*), max(n) from t').fetchone())
"""
    told = 0
    for patience in (0.5, 1.3, 0.9):
        with Started("run", "--rm", "--pull", "never", "--name", "db", "-v", "db:/data", BASE, "python3", "-u", "-c", program) as box:
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                told = int(box.line())
            vmm = [process for process in of_role("vmm")]
            assert vmm
            vmm[0].kill(signal.SIGKILL)
            for line in box.end().out.decode().split():
                told = max(told, int(line))
        said = run("-v", "db:/data", BASE, "python3", "-c", check).ok().text
        assert said.startswith("ok "), said
        count, highest = eval(said[3:])
        assert count == highest >= told, (count, highest, told)


def test_two_boxes_exclude_each_other_by_locks(ends_boxes):
    hold = """
import fcntl, sys, time
f = open('/data/lock', 'a+')
fcntl.%s
print('held', flush=True)
time.sleep(600)
"""
    attempt = """
import fcntl
f = open('/data/lock', 'a+')
try:
    fcntl.%s
    print('free')
except OSError as error:
    print(error.strerror)
"""
    for kind in ("flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)", "lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)"):
        with Started("run", "--rm", "--pull", "never", "-v", "locks:/data", BASE, "python3", "-c", hold % kind) as holder:
            assert holder.line().strip() in ("held", b"held")
            assert run("-v", "locks:/data", BASE, "python3", "-c", attempt % kind).ok().text == "Resource temporarily unavailable\n"
            caisson("rm", "--force", caisson("ls", "-q").lines[0]).ok()
        assert run("-v", "locks:/data", BASE, "python3", "-c", attempt % kind).ok().text == "free\n"


def test_what_others_change_is_seen_by_a_box_that_was_alone(ends_boxes, tmp_path):
    """While it is alone its agent answers for the server. As soon as somebody else has the volume that ends."""
    start("--name", "first", "-v", "seen:/data", BASE, "sleep", "600")
    known = "cd /data/made; for name in told missing gone; do cat $name 2>/dev/null || echo none; done"
    assert caisson("exec", "first", "sh", "-c", "mkdir /data/made; cd /data/made; echo one > told; echo old > gone; "
                   "for i in 1 2; do stat -c %s told gone missing; sleep 1.1; done; " + known).text.endswith("one\nnone\nold\n")
    run("-v", "seen:/data", BASE, "sh", "-c", "cd /data/made; echo more >> told; echo new > missing; rm gone").ok()
    # What its kernel was told last it believes for a second; an agent that did not hear of it, for a minute.
    until(lambda: caisson("exec", "first", "sh", "-c", known).text == "one\nmore\nnew\nnone\n", 3)
    time.sleep(1.5)  # it is alone again
    caisson("exec", "first", "sh", "-c", "cd /data/made; stat told missing; sleep 1.1; stat told missing; " + known).ok()
    (tmp_path / "told").write_text("from the host, and longer\n")
    caisson("volume", "cp", str(tmp_path / "told"), "seen:/made/told").ok()
    until(lambda: "from the host" in caisson("exec", "first", "sh", "-c", known).text, 3)


# ---- while it runs ----

def test_attach_write_detach_again_and_again(ends_boxes):
    start("--name", "live", BASE, "sleep", "600")
    for i in range(12):
        assert caisson("volume", "attach", "live", f"hot{i % 3}:/hot").ok().text == f"hot{i % 3}\n"
        caisson("exec", "live", "sh", "-c", f"echo {i} > /hot/f{i}; mount | grep -c fuse.caisson").ok()
        caisson("volume", "detach", "live", "/hot").ok()
    assert caisson("exec", "live", "sh", "-c", "mount | grep caisson; ls -A /hot").text == ""
    assert sorted(path.name for path in host_of("hot0").iterdir()) == ["f0", "f3", "f6", "f9"]
    assert inspect("live")["mounts"] == [] and caisson("volume", "inspect", "--format", "json", "hot1").json()[0]["boxes"] == []


def test_a_volume_that_is_used_is_not_detached_and_says_so(ends_boxes):
    start("--name", "live", "-v", "busy:/data", BASE, "sh", "-c", "cd /data; exec sleep 600")
    until(lambda: caisson("exec", "live", "readlink", "/proc/1/cwd", "/proc/2/cwd").text.find("/data") >= 0)
    refused = caisson("volume", "detach", "live", "/data")
    assert refused.code != 0 and "uses the volume at /data" in refused.said and "--force" in refused.said, refused
    assert caisson("exec", "live", "ls", "-d", "/data").ok()
    caisson("volume", "detach", "--force", "live", "/data").ok()
    assert caisson("exec", "live", "sh", "-c", "ls -A /data; ls /proc/1/cwd/").code in (0, 1, 2)
    assert [mount for mount in inspect("live")["mounts"]] == []


def test_what_is_attached_stays_over_a_restart_and_what_failed_does_not(ends_boxes):
    start("--name", "live", BASE, "sleep", "600")
    caisson("volume", "attach", "live", "late:/late").ok()
    caisson("exec", "live", "sh", "-c", "echo kept > /late/f").ok()
    again = caisson("volume", "attach", "live", "other:/late")
    assert again.code != 0 and "/late" in again.said, again
    # A file of the image cannot become a directory.
    failed = caisson("volume", "attach", "live", "other:/etc/hostname")
    assert failed.code != 0 and "/etc/hostname" in failed.said, failed
    caisson("restart", "-t", "0", "live").ok()
    assert caisson("exec", "live", "cat", "/late/f").ok().text == "kept\n"
    assert [mount["target"] for mount in inspect("live")["mounts"]] == ["/late"]
    assert inspect("live")["mounts"][0]["attached"]


def test_a_box_without_volumes_has_no_server_and_one_with_ends_with_it(ends_boxes):
    start("--name", "plain", BASE, "sleep", "600")
    assert not of_role("share")
    start("--name", "served", "-v", "x:/x", BASE, "sleep", "600")
    servers = of_role("share")
    assert servers
    servers[0].kill(signal.SIGKILL)
    ended = until_state("served", "failed")
    assert "server of the box's volumes was killed by signal 9" in ended["reason"], ended
    assert inspect("plain")["state"] == "running"
