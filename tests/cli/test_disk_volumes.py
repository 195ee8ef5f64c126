"""Volumes that are disks: kept over boxes, one writer at a time, at most four, and never looked into by the host."""
import os
import pathlib
import signal
import subprocess

import pytest
from boxes import BASE, HOME, caisson, inspect, listed, of_role, run, script, sections, start, until, until_state

VOLUMES = HOME / "volumes"
MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("no_volumes_stay")


@pytest.fixture(scope="session", autouse=True)
def template():
    """Machines with places for disks have templates of their own: made once, and not within some test's patience."""
    caisson("volume", "create", "--type", "disk", "--size", "64M", "first").ok()
    run("-v", "first:/data", BASE, "true", timeout=300).ok()
    caisson("volume", "rm", "first").ok()


def make(name, size="64M"):
    caisson("volume", "create", "--type", "disk", "--size", size, name).ok()
    return pathlib.Path(caisson("volume", "inspect", "--format", "json", name).json()[0]["path"])


# ---- what it is ----

def test_it_is_a_sparse_file_with_an_empty_ext4():
    path = make("data", "1G")
    info = path.stat()
    assert path.parent == VOLUMES / "disks" and info.st_size == 1 << 30 and info.st_mode & 0o777 == 0o600
    assert info.st_blocks * 512 < 32 * MIB
    said = sections(script("""
        echo '## mount'; grep ' /data ' /proc/mounts
        echo '## root'; stat -c '%u:%g %a' /data
        echo '## files'; ls -A /data
        echo '## size'; df -B1 --output=size /data | tail -1
    """, "-v", "data:/data").text)
    words = said["mount"].split()
    assert words[0].startswith("/dev/vd") and words[1:3] == ["/data", "ext4"] and {"rw", "nodev"} <= set(words[3].split(",")), words
    assert said["root"] == "0:0 755" and said["files"] in ("", "lost+found")
    assert 0.9 * (1 << 30) < int(said["size"]) <= 1 << 30


def test_sizes_that_are_none_are_refused_and_nothing_is_made():
    for options, word in (([], "needs a size"), (["--size", "1M"], "cannot have"), (["--size", "67108865"], "4096"), (["--size", "2T"], "cannot have")):
        refused = caisson("volume", "create", "--type", "disk", *options, "data")
        assert refused.code == 2 and word in refused.said, refused
    assert caisson("volume", "ls", "-q").lines == [] and os.listdir(VOLUMES / "disks") == []
    assert "no type of volume" in caisson("volume", "create", "--type", "tape", "--size", "1G", "data").said


def test_ls_inspect_df_and_rm_know_it():
    path = make("data")
    listed_volume = caisson("volume", "ls", "--format", "json").json()[0]
    assert listed_volume["type"] == "disk" and listed_volume["size_bytes"] == 64 * MIB
    assert "disk" in caisson("volume", "ls").text and "disk" in caisson("volume", "inspect", "data").text
    script("dd if=/dev/urandom of=/data/f bs=1M count=10", "-v", "data:/data")
    used = caisson("volume", "df", "--format", "json").json()["used_bytes"]
    assert 10 * MIB <= used < 30 * MIB and "disk" in caisson("volume", "df").text.splitlines()[1].split()
    caisson("create", "--pull", "never", "--name", "owner", "-v", "data:/data", BASE, "true").ok()
    refused = caisson("volume", "rm", "data")
    assert refused.code == 125 and "owner" in refused.said and path.exists()


# ---- kept ----

def test_what_is_written_is_there_in_the_next_box_and_deleted_files_give_their_space_back():
    path = make("data")
    script("echo kept > /data/f; chown 12:34 /data/f; chmod 4640 /data/f; mkdir /data/d; mknod /data/null c 1 3; dd if=/dev/urandom of=/data/big bs=1M count=30", "-v", "data:/data")
    full = path.stat().st_blocks * 512
    said = sections(script("""
        echo '## f'; cat /other/f; stat -c '%u:%g %a' /other/f
        echo '## device'; cat /other/null 2>&1
        rm /other/big; sync
    """, "-v", "data:/other").text)
    assert said["f"] == "kept\n12:34 4640" and "Permission denied" in said["device"]
    assert full > 30 * MIB and path.stat().st_blocks * 512 < full - 25 * MIB
    assert script("cat /data/f; ls /data", "-v", "data:/data", "--cold", timeout=180).text.split() == ["kept", "d", "f", "null"]


def test_a_box_keeps_its_disks_over_stop_and_start_and_restarts(ends_boxes):
    make("data")
    start("--name", "db", "-v", "data:/data", BASE, "sh", "-c", "date +%s%N >> /data/log; sync; sleep 600")
    until(lambda: caisson("exec", "db", "cat", "/data/log").text, 20)
    caisson("stop", "-t", "0", "db").ok()
    caisson("start", "db").ok()
    until(lambda: len(caisson("exec", "db", "cat", "/data/log").lines) == 2, 20)
    caisson("rm", "--force", "db").ok()
    start("--name", "again", "--restart", "on-failure:2", "-v", "data:/data", BASE, "sh", "-c", "echo life >> /data/log; exit 3")
    until_state("again", "stopped", "exited", "failed", "ended", seconds=60)
    assert script("grep -c life /data/log", "-v", "data:/data").text == "3\n"


def test_a_stopped_box_leaves_a_clean_file_system(ends_boxes):
    path = make("data")
    start("--name", "db", "-v", "data:/data", BASE, "sh", "-c", "echo x > /data/f; sleep 600")
    until(lambda: caisson("exec", "db", "cat", "/data/f").text == "x\n")
    caisson("stop", "-t", "0", "db").ok()
    # Needs no journal: it can be mounted where nothing can be written.
    assert script("cat /data/f", "-v", "data:/data:ro").text == "x\n"
    if pathlib.Path("/sbin/e2fsck").exists():
        subprocess.run(["/sbin/e2fsck", "-fn", path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("of", ["machine", "box"])
def test_what_was_synced_is_there_after_a_kill(of):
    make("data")
    text = """import os
f = os.open("/data/f", os.O_CREAT | os.O_WRONLY)
for i in range(200):
    os.write(f, b"%04d" % i); os.fsync(f)
d = os.open("/data", os.O_RDONLY); os.fsync(d)
print("synced", flush=True)
os.write(f, b"more")
import time; time.sleep(600)"""
    start("--name", "victim", "-v", "data:/data", BASE, "python3", "-c", text)
    until(lambda: "synced" in caisson("logs", "victim").text, 30)
    if of == "machine":
        of_role("vmm")[0].kill(signal.SIGKILL)
    else:
        caisson("kill", "victim").ok()
    until_state("victim", "failed", "ended", "stopped", "exited", seconds=30)
    caisson("rm", "--force", "victim").ok()
    assert script("head -c 800 /data/f | tail -c 4; echo; echo on >> /data/g", "-v", "data:/data").text == "0199\n"


def test_a_disk_that_was_left_in_the_middle_is_repaired_by_a_writer_and_refused_to_a_reader():
    make("data")
    start("--name", "victim", "-v", "data:/data", BASE, "sh", "-c", "echo x > /data/f; sync; while :; do date >> /data/g; sync; done")
    until(lambda: caisson("exec", "victim", "sh", "-c", "test -s /data/g && cat /data/f").text == "x\n", 20)
    of_role("vmm")[0].kill(signal.SIGKILL)
    until_state("victim", "failed", "ended", "stopped", "exited", seconds=30)
    caisson("rm", "--force", "victim").ok()
    refused = run("-v", "data:/data:ro", BASE, "true")
    assert refused.code == 125 and "volume 'data'" in refused.said and "mount it once for writing" in refused.said, refused
    assert script("cat /data/f", "-v", "data:/data").text == "x\n"
    assert script("cat /data/f", "-v", "data:/data:ro").text == "x\n"


# ---- read-only, and other options ----

def test_read_only_is_the_hosts_word():
    path = make("data")
    script("echo content > /data/f", "-v", "data:/data")
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    said = sections(script("""
        echo '## read'; cat /data/f
        echo '## write'; echo x 2>&1 >> /data/f
        mount -o remount,rw /data; mount -o remount,bind,rw /data
        echo '## again'; (echo x >> /data/f) 2>&1
        disk=$(grep ' /data ' /proc/mounts | sed 's,.*/\\(vd.\\) .*,\\1,'); numbers=$(cat /sys/class/block/$disk/dev)
        mknod /tmp/raw b ${numbers%:*} ${numbers#*:}
        echo '## flag'; cat /sys/class/block/$disk/ro
        echo '## raw'; dd if=/dev/zero of=/tmp/raw bs=4096 count=1 2>&1 | head -1
        true
    """, "-v", "data:/data:ro", "--privileged").text)
    assert said["read"] == "content" and "Read-only" in said["again"] and said["flag"] == "1", said
    assert "not permitted" in said["raw"] or "Read-only" in said["raw"], said
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_the_machines_own_jail_has_a_read_only_disk_read_only(ends_boxes):
    make("fixed"), make("free")
    start("--name", "seen", "-v", "fixed:/a:ro", "-v", "free:/b", BASE, "sleep", "600")
    mounts = {line.split()[4]: line.split()[5].split(",")[0] for line in of_role("vmm")[0].mounts.decode().splitlines()}
    assert mounts["/box/volume0"] == "ro" and mounts["/box/volume1"] == "rw" and "/box/volume2" not in mounts
    shown = {mount["target"]: mount for mount in inspect("seen")["mounts"]}
    assert shown["/a"]["volume"] == "fixed" and shown["/a"]["read_only"] and not shown["/b"]["read_only"]


def test_noexec_and_nosuid_are_kept():
    make("data")
    script("cp /bin/true /data/true; cp /usr/bin/id /data/id; chmod 4755 /data/id", "-v", "data:/data")
    said = sections(script("""
        echo '## noexec'; /data/true 2>&1
        echo '## options'; grep ' /data ' /proc/mounts
    """, "--mount", "type=volume,src=data,dst=/data,noexec,nosuid").text)
    assert "Permission denied" in said["noexec"] and "nosuid" in said["options"] and "noexec" in said["options"]


def test_the_container_cannot_reach_the_device():
    make("data")
    said = sections(script("""
        disk=$(grep ' /data ' /proc/mounts | sed 's,.*/\\(vd.\\) .*,\\1,'); numbers=$(cat /sys/class/block/$disk/dev)
        echo '## nodes'; ls /dev | grep -c ^vd
        mknod /tmp/raw b ${numbers%:*} ${numbers#*:}
        echo '## read'; head -c 1 /tmp/raw 2>&1
        echo '## inside'; mknod /data/raw b ${numbers%:*} ${numbers#*:}; head -c 1 /data/raw 2>&1
        echo '## places'; ls / | grep -cE 'guest|stage|volumes'
        true
    """, "-v", "data:/data").text)
    assert said["nodes"] == "0" and said["places"] == "0", said
    assert "not permitted" in said["read"] and ("not permitted" in said["inside"] or "Permission denied" in said["inside"]), said


def test_a_disk_below_another_volume_and_beside_others():
    make("disk")
    said = script("echo d > /data/disk/f; echo s > /data/s; ls /data /data/disk; grep -c -e ' /data ' -e ' /data/disk ' /proc/mounts",
                  "-v", "disk:/data/disk", "-v", "share:/data").text
    assert said.split() == ["/data:", "disk", "s", "/data/disk:", "f", "2"], said
    assert script("cat /x/f", "-v", "disk:/x").text == "d\n"


# ---- one writer ----

def test_a_second_writer_is_told_who_has_it(ends_boxes):
    make("data")
    start("--name", "writer", "-v", "data:/data", BASE, "sleep", "600")
    for options in (["data:/data"], ["data:/data:ro"]):
        refused = run("--name", "second", "-v", *options, BASE, "true")
        assert refused.code == 125 and "volume 'data' is in use by box writer" in refused.said, refused
    assert list(listed()) == ["writer"]
    caisson("create", "--pull", "never", "--name", "later", "-v", "data:/data", BASE, "sleep", "600").ok()
    refused = caisson("start", "later")
    assert refused.code == 125 and "in use by box writer" in refused.said, refused
    assert inspect("later")["state"] == "created"
    caisson("stop", "-t", "0", "writer").ok()
    caisson("start", "later").ok()
    assert "in use by box later" in caisson("start", "writer").said


def test_readers_share_it_and_keep_writers_out(ends_boxes):
    make("data")
    script("echo x > /data/f", "-v", "data:/data")
    for name in ("one", "two"):
        start("--name", name, "-v", "data:/data:ro", BASE, "sleep", "600")
    for name in ("one", "two"):
        assert caisson("exec", name, "cat", "/data/f").ok().text == "x\n"
    refused = run("-v", "data:/data", BASE, "true")
    assert refused.code == 125 and "in use by box one, two" in refused.said, refused


def test_its_machine_holds_it_too_whatever_becomes_of_the_launcher():
    make("data"), make("read")
    start("--name", "victim", "-v", "data:/data", "-v", "read:/read:ro", BASE, "sleep", "600")
    vmm, launcher = of_role("vmm")[0], of_role("launcher")[0]
    held = [link for link in vmm.links if "/volumes/disks/" in link and "volume" in link]
    assert [os.path.basename(link) for link in held].count("data") >= 1, vmm.links
    launcher.kill(signal.SIGKILL)
    until(lambda: inspect("victim")["state"] != "running", 30)
    caisson("rm", "--force", "victim").ok()
    script("true", "-v", "data:/data")


# ---- how many ----

def test_four_are_had_and_a_fifth_is_refused_by_its_name():
    names = ["a", "b", "c", "d"]
    options = []
    for name in names:
        make(name)
        options += ["-v", f"{name}:/mnt/{name}"]
    script("for n in a b c d; do echo $n > /mnt/$n/name; done", *options)
    assert script("cat /mnt/[abcd]/name", *reversed([f"--volume={name}:/mnt/{name}" for name in names])).text.split() == names
    make("fifth")
    for command in (["run", "--rm"], ["create"]):
        refused = caisson(*command, "--pull", "never", *options, "-v", "fifth:/mnt/e", "-v", "new:/mnt/f", BASE, "true")
        assert refused.code == 2 and "'fifth'" in refused.said and "at most 4" in refused.said, refused
    assert caisson("ls", "--all", "-q").lines == [] and sorted(caisson("volume", "ls", "-q").lines) == ["a", "b", "c", "d", "fifth"]


def test_parts_twice_and_a_box_that_runs_are_refused(ends_boxes):
    make("data")
    for options, word in ((["-v", "data/etc:/x"], "no part"), (["-v", "data:/x", "-v", "data:/y:ro"], "twice"),
                          (["--mount", "src=data,dst=/x,size=1G"], "limit")):
        refused = run(*options, BASE, "true")
        assert refused.code in (2, 125) and word in refused.said and "'data'" in refused.said, refused
    start("--name", "up", BASE, "sleep", "600")
    refused = caisson("volume", "attach", "up", "data:/data")
    assert refused.code == 125 and "'data' is a disk" in refused.said, refused
    caisson("rm", "--force", "up").ok()
    start("--name", "has", "-v", "data:/data", BASE, "sleep", "600")
    refused = caisson("volume", "detach", "has", "/data")
    assert refused.code == 125 and "'data' is a disk" in refused.said, refused


# ---- what goes wrong ----

def test_a_full_disk_is_the_guests_business():
    path = make("small")
    said = sections(script("""
        echo '## write'; dd if=/dev/zero of=/data/big bs=1M count=100 2>&1 | grep -c 'No space left'
        rm /data/big; echo '## again'; dd if=/dev/urandom of=/data/big bs=1M count=20 2>&1 | tail -1
    """, "-v", "small:/data").text)
    assert said["write"] == "1" and "20971520 bytes" in said["again"]
    assert path.stat().st_size == 64 * MIB and path.stat().st_blocks * 512 <= 65 * MIB


def spoil(path, what):
    with open(path, "r+b") as file:
        if what == "zeros":
            file.write(bytes(1 << 20))
        elif what == "noise":
            file.write(os.urandom(1 << 20))
        elif what == "superblock":
            file.seek(1024 + 0x18)
            file.write(b"\xff" * 64)


@pytest.mark.parametrize("what", ["zeros", "noise", "superblock"])
def test_a_damaged_file_system_fails_its_box_with_the_cause(what):
    spoil(make("bad"), what)
    refused = run("-v", "bad:/data", BASE, "true")
    assert refused.code == 125 and "volume 'bad' holds no ext4" in refused.said, refused
    assert caisson("ls", "--all", "-q").lines == [] and "bad" in caisson("volume", "ls", "-q").lines
    script("true")


@pytest.mark.parametrize("what", ["longer", "shorter", "another's"])
def test_a_file_that_is_not_the_volumes_is_not_given_to_a_machine(what):
    path = make("data")
    if what == "another's":
        os.link(path, VOLUMES / "second-name")
    else:
        os.truncate(path, (65 if what == "longer" else 63) * MIB)
    refused = run("-v", "data:/data", BASE, "true")
    assert refused.code == 125 and "the disk of volume 'data'" in refused.said, refused
    if what == "another's":
        os.unlink(VOLUMES / "second-name")


# ---- copies ----

def test_a_clone_is_a_disk_of_its_own(ends_boxes):
    path = make("data")
    script("echo first > /data/f; dd if=/dev/urandom of=/data/big bs=1M count=8", "-v", "data:/data")
    start("--name", "writer", "-v", "data:/data", BASE, "sleep", "600")
    refused = caisson("volume", "clone", "data", "copy")
    assert refused.code == 125 and "in use by box writer" in refused.said, refused
    caisson("rm", "--force", "writer").ok()
    caisson("volume", "clone", "data", "copy").ok()
    info = caisson("volume", "inspect", "--format", "json", "copy").json()[0]
    assert info["type"] == "disk" and info["size_bytes"] == 64 * MIB and info["used_bytes"] < 40 * MIB
    script("echo second > /data/f", "-v", "data:/data")
    assert script("cat /a/f /b/f; cmp /a/big /b/big && echo same", "-v", "data:/a", "-v", "copy:/b").text == "second\nfirst\nsame\n"
    assert path.stat().st_mode & 0o777 == pathlib.Path(info["path"]).stat().st_mode & 0o777 == 0o600


def test_the_host_reads_no_files_of_it(tmp_path):
    make("data")
    (tmp_path / "f").write_text("x")
    for command in (["import", "data", tmp_path], ["export", "data", "-o", tmp_path / "out.tar"], ["cp", "data:/f", tmp_path / "g"],
                    ["cp", tmp_path / "f", "data:/f"], ["sync", "data", tmp_path]):
        refused = caisson("volume", *command)
        assert refused.code == 125 and "'data' is a disk" in refused.said, refused


def test_without_a_jail_it_is_the_same_disk():
    make("data")
    script("echo x > /data/f", "-v", "data:/data", "--security", "none")
    assert script("cat /data/f", "-v", "data:/data:ro").text == "x\n"


def test_dry_run_shows_the_disk_and_makes_nothing():
    make("data")
    said = run("--dry-run", "-v", "data:/data:ro", BASE, "true").ok().text
    assert "/box/volume0" in said and '"read-only":true' in said and "4disks" in said
    assert "volume" not in run("--dry-run", BASE, "true").ok().text.split("command line of the")[1].split("\n")[1].replace("/volumes", "")


def test_boxes_without_disks_have_the_machine_that_they_had():
    said = run("--dry-run", "-v", "share:/data", BASE, "true").ok().text
    assert "disks" not in said.split("shape")[1].split("\n")[0] and "serial=volume" not in said
