"""caisson check: what it finds, that it changes nothing unless it is to repair, and that a second look at a repaired home is clean.

All of it in a home of its own, in which nothing runs, with a box that ran, one that did not, and volumes."""
import hashlib
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading
import time

import pytest
from boxes import BASE, HOME, IS_ROOT, TINY, TINY_ARCHIVE, WORK, Started, caisson, environment, inspect, of_role, start, until

PLACE = WORK / "check-home"
ENV = environment(CAISSON_HOME=str(PLACE))


def here(*arguments, **more):
    return caisson(*arguments, env=ENV, **more)


def check(*options, env=ENV, code=None):
    done = caisson("check", "--format", "json", *options, env=env)
    assert done.code in (0, 1) if code is None else done.code == code, done
    report = json.loads(done.out)
    assert report["clean"] == (done.code == 0), done
    return report


def codes(report):
    return sorted(finding["code"] for finding in report["findings"])


def owner():
    return os.stat(PLACE).st_uid


def own(path):
    """What root has made here becomes the service user's, as all of the home is."""
    if IS_ROOT:
        subprocess.run(["chown", "-Rh", f"{owner()}:{owner()}", str(path)], check=True)
    return path


def state(place=PLACE):
    """All of a home, but for the file in which SQLite keeps its locks."""
    found = {}
    for directory, names, files in os.walk(place):
        for name in names + files:
            path = pathlib.Path(directory) / name
            if name == "caisson.db-shm":
                continue
            info = path.lstat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) and info.st_size < 1 << 20 else ""
            found[str(path.relative_to(place))] = (info.st_ino, info.st_mode, info.st_uid, info.st_size, info.st_mtime_ns, info.st_ctime_ns, digest)
    return found


def execute(statement, *values):
    database = sqlite3.connect(PLACE / "caisson.db")
    database.execute("PRAGMA foreign_keys=OFF")
    database.execute(statement, values)
    database.commit()
    database.close()
    for part in PLACE.glob("caisson.db*"):
        own(part)


def box_of(name):
    return here("inspect", "--format", "json", name).json()[0]["id"]


def blobs():
    index = json.loads((PLACE / "images/index.json").read_text())
    manifest = json.loads((PLACE / "images/blobs" / index["manifests"][0]["digest"].replace(":", "/")).read_text())
    return [PLACE / "images/blobs" / layer["digest"].replace(":", "/") for layer in manifest["layers"]]


@pytest.fixture(scope="module")
def made():
    shutil.rmtree(PLACE, ignore_errors=True)
    if IS_ROOT:
        os.chmod(WORK, 0o711)
    else:
        PLACE.mkdir(mode=0o700)
    here("image", "load", "--name", TINY, TINY_ARCHIVE).ok()
    yield
    shutil.rmtree(PLACE, ignore_errors=True)


@pytest.fixture
def home(made):
    """Clean, with boxes and volumes; emptied of them afterwards."""
    if "test/tiny" not in here("image", "ls").text:
        here("image", "load", "--name", TINY, TINY_ARCHIVE).ok()
    here("volume", "create", "--size", "10M", "-l", "kind=data", "data").ok()
    here("volume", "create", "--type", "disk", "--size", "64M", "block").ok()
    here("run", "--pull", "never", "--name", "ran", "-u", "0", "-v", "data:/data", "-v", "/own", TINY, "sh", "-c", "echo kept > /data/file; echo kept > /own/file; echo kept > /file").ok()
    here("create", "--name", "new", "--pull", "never", TINY, "true").ok()
    assert check()["findings"] == []
    yield PLACE
    for name in here("ls", "--all", "-q").ok().lines:
        here("rm", "--force", name).ok()
    here("volume", "prune").ok()
    shutil.rmtree(PLACE / "aside", ignore_errors=True)
    assert check()["findings"] == []


def found_and_mended(expected, repaired=True, deep=(), env=ENV):
    """`check` finds exactly this and changes nothing; after a repair there is nothing to find; what a repair says."""
    before = state()
    report = check(*deep, env=env, code=1)
    assert codes(report) == sorted(expected), report
    assert state() == before
    for finding in report["findings"]:
        assert finding["what"] and finding["remedy"] and finding["object"] and finding["left"] and not finding["done"], finding
    mended = check("--repair", *deep, env=env)
    assert set(expected) <= set(codes(mended)), mended
    if repaired:
        assert mended["clean"], mended
        assert check(*deep, env=env, code=0)["findings"] == []
        assert check("--repair", *deep, env=env, code=0)["findings"] == []
    return mended


def test_a_clean_home(home):
    before = state()
    done = here("check").ok()
    assert done.text.startswith("clean: 2 boxes, 1 images with ") and done.err == b"", done
    report = check("--deep", code=0)
    assert report["looked_at"] == {"boxes": 2, "images": 1, "blobs": 1, "disks": 1, "volumes": 3, "templates": report["looked_at"]["templates"]}
    assert report["aside"] is None and report["home"] == str(home)
    assert state() == before


def test_no_home():
    nowhere = caisson("check", env=environment(CAISSON_HOME=str(WORK / "no-home-here")))
    assert nowhere.code == 125 and "there is no home" in nowhere.said, nowhere
    assert not (WORK / "no-home-here").exists()
    assert caisson("check", "--format", "odd").code == 2


# --- the database

def test_records_of_the_dead(home):
    """A box whose supervisor is dead, and one that was never finished: told apart from damage, and tidied as usual."""
    execute("UPDATE boxes SET state='running' WHERE name='ran'")
    execute("UPDATE boxes SET state='creating' WHERE name='new'")
    new = box_of_directory("new")
    found_and_mended(["box_abandoned", "box_unfinished"])
    assert here("inspect", "--format", "json", "ran").json()[0]["state"] == "failed"
    assert not (home / "boxes" / new).exists() and here("inspect", "new").code == 125


def box_of_directory(name):
    database = sqlite3.connect(PLACE / "caisson.db")
    (box,), = database.execute("SELECT id FROM boxes WHERE name=?", (name,)).fetchall()
    database.close()
    return box


def test_another_boot(home):
    execute("UPDATE boxes SET state='running',owner_boot='another',owner_pid=?,owner_start=1 WHERE name='ran'", os.getpid())
    report = check(code=1)
    assert codes(report) == ["box_abandoned"] and "the host was restarted" in report["findings"][0]["what"], report
    here("ls").ok()
    record = here("inspect", "--format", "json", "ran").json()[0]
    assert record["state"] == "failed" and record["reason"] == "host rebooted", record
    check(code=0)


def test_records_that_make_no_sense(home):
    new = box_of("new")
    execute("UPDATE boxes SET state='odd' WHERE name='new'")
    execute("INSERT INTO executions(id,box_id,command,running,started_ms) VALUES('01k3a0b0c0d0e0f0g0h0j0k0m0','01k3a0b0c0d0e0f0g0h0j0k0zz','[]',1,1)")
    execute("INSERT INTO executions(id,box_id,command,running,started_ms) VALUES('01k3a0b0c0d0e0f0g0h0j0k0m1',?,'[]',1,1)", box_of("ran"))
    mended = found_and_mended(["box_record_senseless", "execution_of_no_box", "execution_senseless"])
    kept = pathlib.Path(mended["aside"])
    assert "state: odd" in (kept / f"boxes/{new}.record").read_text() and (kept / f"boxes/{new}").is_dir()


@pytest.mark.parametrize("how", ("torn", "garbage"))
def test_a_damaged_database(home, how):
    """What can be read of it is saved; nothing of the boxes' files is lost."""
    box = box_of("ran")
    database = sqlite3.connect(home / "caisson.db")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    path = home / "caisson.db"
    data = bytearray(path.read_bytes())
    if how == "garbage":
        data[:100] = b"x" * 100
    else:
        page = int.from_bytes(data[16:18], "big")
        for start_of in range(page, len(data), page):
            if b"executions_of_box" not in data[start_of:start_of + page] and data[start_of] == 10:  # a page of an index
                data[start_of + 3:start_of + 5] = b"\xff\xff"
    for part in home.glob("caisson.db-*"):
        part.unlink()
    path.write_bytes(data)
    own(path)
    before = state()
    assert "database_damaged" in codes(check(code=1)) and state() == before
    mended = check("--repair", code=0)
    kept = pathlib.Path(mended["aside"])
    assert (kept / "caisson.db").read_bytes() == bytes(data)
    check(code=0)
    if how == "torn":
        assert here("start", "-a", "ran").code == 0
    else:
        assert here("ls", "--all", "-q").text == "" and (kept / "boxes" / box / "disk.qcow2").exists()
        assert (kept / "volumes/boxes" / box).exists() and len(os.listdir(kept / "volumes/anonymous")) == 1
    assert (home / "volumes/named/data/file").read_text() == "kept\n"


def test_no_database(home):
    """The boxes are not taken for leftovers because of that."""
    box = box_of("ran")
    for part in home.glob("caisson.db*"):
        part.unlink()
    refused = here("ls")
    assert refused.code == 125 and "caisson check --repair" in refused.said and (home / "boxes" / box).exists(), refused
    mended = found_and_mended(["database_missing", "box_stray", "box_stray", "volume_mounts_stray"])
    assert (pathlib.Path(mended["aside"]) / "boxes" / box / "disk.qcow2").exists()


def test_a_database_of_the_future(home):
    execute("PRAGMA user_version=99")
    assert "database_new" in codes(check(code=1))
    assert "database_new" in codes(check("--repair", code=1))
    version = sqlite3.connect(HOME / "caisson.db").execute("PRAGMA user_version").fetchone()[0]
    execute(f"PRAGMA user_version={version}")


# --- boxes

def test_files_of_boxes(home):
    ran, new = box_of("ran"), box_of("new")
    own(pathlib.Path(shutil.copytree(home / "boxes" / new, home / "boxes/01k3a0b0c0d0e0f0g0h0j0k0m0")))
    os.chmod(home / "boxes/01k3a0b0c0d0e0f0g0h0j0k0m0", 0o700)
    (home / "boxes/not-a-box").mkdir(mode=0o700)
    own(home / "boxes/not-a-box")
    shutil.rmtree(home / "boxes" / new)
    os.chmod(home / "boxes" / ran, 0o755)
    (home / "boxes" / ran / "disk.new").write_bytes(b"half")
    (home / "boxes" / ran / "limits.tmp.abcdef").write_bytes(b"half")
    mended = found_and_mended(["box_files_missing", "box_stray", "box_unknown", "box_mode", "unfinished_file", "unfinished_file"])
    kept = pathlib.Path(mended["aside"])
    assert (kept / "boxes/not-a-box").is_dir() and (kept / f"boxes/{new}.record").exists()
    assert here("start", "-a", "ran").code == 0


@pytest.mark.parametrize("damage", ("backing", "gone", "link", "garbage"))
def test_disks_of_boxes(home, damage):
    ran = box_of("ran")
    disk = home / "boxes" / ran / "disk.qcow2"
    if damage == "backing":
        with open(disk, "r+b") as file:
            file.seek(8)
            file.write((4096).to_bytes(8, "big") + (11).to_bytes(4, "big"))
    elif damage == "garbage":
        disk.write_bytes(b"nothing")
    else:
        disk.unlink()
    if damage == "link":
        disk.symlink_to("/etc/passwd")
    anonymous = os.listdir(home / "volumes/anonymous")
    mended = found_and_mended(["box_disk_missing" if damage == "gone" else "box_disk_damaged"])
    kept = pathlib.Path(mended["aside"])
    assert (kept / "boxes" / ran).is_dir() and (kept / "volumes/anonymous" / anonymous[0] / "file").read_text() == "kept\n"
    assert (home / "volumes/named/data/file").read_text() == "kept\n"


def test_modes(home):
    os.chmod(home, 0o777)
    os.chmod(home / "boxes", 0o775)
    os.chmod(home / "volumes/named/data", 0o777)
    os.chmod(home / "caisson.db", 0o666)
    refused = here("ls")
    assert refused.code == 125 and "can be written by others" in refused.said and "chmod go-w" in refused.said
    found_and_mended(["home_mode", "home_mode", "volume_mode", "database_mode"])
    here("ls").ok()


# --- images, root disks, templates

def test_images(home):
    layer, = blobs()
    content = layer.read_bytes()
    layer.chmod(0o644)
    layer.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert check(code=0)["findings"] == []  # only who reads it sees that
    mended = found_and_mended(["image_layer_damaged"], deep=("--deep",))
    kept = pathlib.Path(mended["aside"]) / layer.relative_to(home)
    assert kept.exists() and here("image", "ls", "-q").text == ""
    # Boxes that were made from it go on.
    assert here("start", "-a", "ran").code == 0
    here("image", "load", "--name", TINY, TINY_ARCHIVE).ok()
    layer.chmod(0o644)
    layer.write_bytes(content[:100])
    found_and_mended(["image_layer_damaged"])


def test_the_list_of_images(home):
    index = home / "images/index.json"
    index.write_text("{")
    mended = found_and_mended(["image_index_damaged"])
    assert (pathlib.Path(mended["aside"]) / "images/index.json").read_text() == "{"
    here("image", "load", "--name", TINY, TINY_ARCHIVE).ok()
    assert here("start", "-a", "ran").code == 0


def test_what_processes_that_died_left(home):
    (home / "images/tmp/load-abcdef").mkdir(parents=True)
    (home / "templates/.new-00000000000000000000000000000000-abcdef").mkdir()
    (home / "templates/11111111111111111111111111111111").mkdir(mode=0o700)
    disk, = (home / "disks").glob("*.ext4")
    (home / "disks" / (disk.name + ".tmp")).write_bytes(b"half")
    (home / "disks/notes").write_text("mine")
    (home / "volumes/trash/01k3a0b0c0d0e0f0g0h0j0k0m0").mkdir(mode=0o700)
    (home / "volumes/info/gone").write_bytes(b"")
    own(home)
    mended = found_and_mended(["unfinished_import", "unfinished_template", "template_damaged", "unfinished_disk", "base_disk_unknown",
                               "volume_unfinished", "volume_record_stray"])
    assert (pathlib.Path(mended["aside"]) / "disks/notes").read_text() == "mine"


def test_root_disks(home):
    disk, = (home / "disks").glob("*.ext4")
    os.rename(disk, home / "elsewhere")
    report = check(code=1)
    assert codes(report) == ["base_disk_missing", "base_disk_missing"] and not report["findings"][0]["repairable"], report
    os.rename(home / "elsewhere", disk)
    check(code=0)


# --- volumes

def test_volumes(home):
    box = box_of("ran")
    (home / "volumes/info/data").write_bytes(b"\xff\xff")
    stray = home / "volumes/anonymous/01k3a0b0c0d0e0f0g0h0j0k0m0"
    stray.mkdir(mode=0o700)
    (stray / "file").write_text("somebody's")
    (home / "volumes/boxes/01k3a0b0c0d0e0f0g0h0j0k0m1").write_bytes(b"")
    os.truncate(home / "volumes/disks/block", 32 << 20)
    own(home / "volumes")
    mended = found_and_mended(["volume_info_damaged", "volume_stray", "volume_mounts_stray", "volume_disk_size"])
    kept = pathlib.Path(mended["aside"])
    assert (kept / "volumes/anonymous/01k3a0b0c0d0e0f0g0h0j0k0m0/file").read_text() == "somebody's"
    assert here("volume", "inspect", "--format", "json", "block").json()[0]["size_bytes"] == 32 << 20
    assert (home / "volumes/named/data/file").read_text() == "kept\n"
    # An anonymous one that is missing is made anew; a named one is for its owner to bring back.
    own_volume, = os.listdir(home / "volumes/anonymous")
    shutil.rmtree(home / "volumes/anonymous" / own_volume)
    os.rename(home / "volumes/named/data", home / "data")
    report = check("--repair", code=1)
    left = [finding for finding in report["findings"] if finding["left"]]
    assert [finding["code"] for finding in left] == ["volume_missing"] and "volumes/named/data" in left[0]["what"] and box in left[0]["object"], report
    os.rename(home / "data", home / "volumes/named/data")
    check(code=0)


def test_mounts_that_cannot_be_read(home):
    box = box_of("ran")
    (home / "volumes/boxes" / box).write_bytes(b"\xff\xff")
    mended = found_and_mended(["volume_mounts_damaged"])
    kept = pathlib.Path(mended["aside"])
    assert (kept / "volumes/boxes" / box).exists() and (kept / "boxes" / box / "disk.qcow2").exists()
    assert (home / "volumes/named/data/file").read_text() == "kept\n"


# --- beside what runs

@pytest.mark.usefixtures("ends_boxes")
def test_processes_without_a_box():
    """A machine that outlives its record: it is found, told, and ended; nothing of others is."""
    other = start("--name", "other", BASE, "sleep", "600")
    box = start("--name", "orphan", BASE, "sleep", "600")
    everything = environment()
    assert check(env=everything, code=0)["findings"] == []
    shim, = of_role("shim", box)
    launcher, = of_role("launcher", box)
    os.kill(launcher.pid, signal.SIGSTOP)  # so that it does not go with its supervisor before it was looked at
    try:
        shim.kill()
        report = check(env=everything, code=1)
        assert {"box_abandoned", "process_stray", "control_group_stray"} >= set(codes(report)) and "box_abandoned" in codes(report), report
    finally:
        try:
            os.kill(launcher.pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
    check("--repair", env=everything, code=0)
    assert inspect("orphan")["state"] == "failed" and inspect("other")["id"] == other and inspect("other")["state"] == "running"
    check(env=everything, code=0)


@pytest.mark.usefixtures("ends_boxes", "no_volumes_stay")
def test_beside_boxes_that_come_and_go():
    """Nothing that somebody is just doing is told as a trouble."""
    stop = threading.Event()
    told = []

    def look():
        while not stop.is_set():
            done = caisson("check", "--format", "json")
            if done.code != 0:
                told.append(done)

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        deadline = time.monotonic() + float(os.environ.get("CAISSON_CHECK_SECONDS", "15"))
        number = 0
        while time.monotonic() < deadline:
            number += 1
            caisson("volume", "create", f"v{number}").ok()
            caisson("run", "-d", "--pull", "never", "--name", f"c{number}", "-v", f"v{number}:/v", "-v", "/own", BASE, "sleep", "600").ok()
            caisson("run", "--rm", "--pull", "never", "-v", "/own", BASE, "true").ok()
            caisson("image", "load", "--name", f"test/other{number}", TINY_ARCHIVE).ok()
            caisson("stop", "-t", "0", f"c{number}").ok()
            caisson("rm", f"c{number}").ok()
            caisson("volume", "rm", f"v{number}").ok()
            caisson("image", "rm", f"test/other{number}").ok()
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    assert not told, told[0]
