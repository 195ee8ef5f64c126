"""What takes room in a home, what nobody needs, and the reserve."""
import os
import shutil

import pytest
from boxes import TINY, TINY_ARCHIVE, WORK, caisson, environment

MIB = 1 << 20


@pytest.fixture
def own_home():
    home = WORK / "space-home"
    if os.statvfs(WORK).f_bavail * os.statvfs(WORK).f_frsize < 2048 * MIB:
        pytest.skip(f"less than 2 GiB are free in {WORK}")
    env = environment(CAISSON_HOME=str(home))
    caisson("image", "load", "--name", TINY, TINY_ARCHIVE, env=env).ok()
    yield home, env
    shutil.rmtree(home)


def put(home, path, size):
    """A file as if caisson had left it there."""
    owner = home.stat()
    (home / path).parent.mkdir(exist_ok=True)
    (home / path).write_bytes(bytes(size))
    os.chown((home / path).parent, owner.st_uid, owner.st_gid)
    os.chown(home / path, owner.st_uid, owner.st_gid)


def kinds(env):
    space = caisson("df", "--format", "json", env=env).json()
    assert space["bytes"] == sum(kind["bytes"] for kind in space["kinds"])
    return {kind["kind"]: kind for kind in space["kinds"]}


def test_the_reserve_is_made_released_and_made_again(own_home):
    home, env = own_home
    reserve = home / ".reserve"
    assert reserve.stat().st_blocks * 512 >= 64 * MIB and reserve.stat().st_mode & 0o777 == 0o600
    assert kinds(env)["reserve"] == {"kind": "reserve", "count": 1, "bytes": 64 * MIB, "shared_bytes": 0, "reclaimable_bytes": 64 * MIB}
    assert caisson("reserve-release", env=env).ok().text == "freed 64.0 MiB\n" and not reserve.exists()
    refused = caisson("reserve-release", env=env)
    assert refused.code == 125 and "there is no reserve" in refused.said and "caisson gc" in refused.said
    # There is room, so the next process takes it again; one that shrank as well.
    assert caisson("ls", env=env).ok().said == "" and reserve.stat().st_blocks * 512 >= 64 * MIB
    os.truncate(reserve, MIB)
    caisson("ls", env=env).ok()
    assert reserve.stat().st_size == 64 * MIB


def test_df_counts_what_there_is(own_home):
    home, env = own_home
    before = kinds(env)
    assert list(before) == ["images", "disks", "boxes", "volumes", "templates", "logs", "journal", "reserve", "other"]
    assert before["images"]["count"] == 1 and before["images"]["bytes"] > TINY_ARCHIVE.stat().st_size // 2
    assert before["disks"]["count"] == 1 and before["disks"]["shared_bytes"] == 0
    for name in ("one", "two"):
        caisson("create", "--pull", "never", "--name", name, TINY, "true", env=env).ok()
    caisson("volume", "create", "data", env=env).ok()
    (WORK / "megabytes").write_bytes(os.urandom(3 * MIB))
    caisson("volume", "cp", WORK / "megabytes", "data:/", env=env).ok()
    (WORK / "megabytes").unlink()
    after = kinds(env)
    assert after["boxes"]["count"] == 2 and after["volumes"]["count"] == 1
    assert after["volumes"]["bytes"] >= 3 * MIB and after["volumes"]["reclaimable_bytes"] == 0
    assert after["disks"]["shared_bytes"] > 0 and after["disks"]["reclaimable_bytes"] == 0
    shown = caisson("df", env=env).ok().text
    assert shown.splitlines()[0].split() == ["KIND", "COUNT", "SIZE", "SHARED", "RECLAIMABLE"] and "boxes wait while less than" in shown


def test_gc_removes_what_nobody_needs_and_nothing_else(own_home):
    home, env = own_home
    caisson("create", "--pull", "never", "--name", "kept", "-v", "data:/data", TINY, "true", env=env).ok()
    garbage = {"images/blobs/sha256/" + "0" * 64: "blob", "images/downloads/" + "2" * 64 + ".part": "download",
               "images/tmp/load-dead/0": "unfinished", "disks/" + "1" * 64 + "-4096.ext4": "disk"}
    for path in garbage:
        put(home, path, MIB)
    put(home, "templates/.old-" + "3" * 32 + "/mem", MIB)
    reclaimable = kinds(env)
    assert reclaimable["images"]["reclaimable_bytes"] >= 3 * MIB and reclaimable["disks"]["reclaimable_bytes"] == MIB
    # It is young: nothing but what a removal left half gone.
    young = caisson("gc", "--format", "json", env=env).json()
    assert {thing["kind"] for thing in young["removed"]} <= {"unfinished"} and young["failed"] == []
    assert all((home / path).exists() for path in garbage)
    dry = caisson("gc", "--dry-run", "--grace", "0s", "--format", "json", env=env).json()
    assert dry["dry_run"] and {thing["kind"] for thing in dry["removed"]} == set(garbage.values())
    assert all((home / path).exists() for path in garbage)
    done = caisson("gc", "--grace", "0s", "--format", "json", env=env).json()
    assert done["removed"] == dry["removed"] and done["freed_bytes"] >= 4 * MIB
    order = [thing["kind"] for thing in done["removed"]]
    assert order.index("disk") < order.index("blob")
    assert not any((home / path).exists() for path in garbage)
    assert caisson("gc", "--grace", "0s", env=env).ok().text == "freed 0 B\n"
    # What somebody has stays: the image, its disk under a box, the box, its volume.
    caisson("image", "inspect", TINY, env=env).ok()
    caisson("volume", "inspect", "data", env=env).ok()
    assert caisson("ls", "--all", "-q", env=env).ok().lines and len(list((home / "disks").glob("*.ext4"))) == 1
    assert caisson("gc", "--grace", "soon", env=env).code == 2
