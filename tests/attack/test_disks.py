"""Disks as nobody made them: replaced by something else, or with damage that only the guest's kernel may look at. The box
fails with its cause; no file of the host is read or opened, and nothing of caisson's dies or stays behind."""
import os
import random
import re
import shutil
import struct

import pytest
from boxes import BASE, HOME, IS_ROOT, TINY, TINY_ARCHIVE, WORK, caisson, environment, inspect, wait_until_gone

WORDS = "the host's own words, which no guest may see\n"


@pytest.fixture
def stopped():
    """A box that has run once, and its disk."""
    caisson("run", "--name", "spoilt", BASE, "sh", "-c", "echo kept > /root/file; sync").ok()
    disk = HOME / "boxes" / inspect("spoilt")["id"] / "disk.qcow2"
    yield disk
    caisson("rm", "spoilt").ok()
    wait_until_gone(2)


@pytest.fixture
def secret():
    path = WORK / "of-the-host"
    path.write_text(WORDS * 3000)
    path.chmod(0o644)
    yield path
    path.unlink()


def expect_refused(why):
    """Also within the time limit of caisson(): a pipe that is opened waits for ever."""
    for command in (("start", "spoilt"), ("cp", "spoilt:/root/file", str(WORK / "out"))):
        refused = caisson(*command)
        assert refused.code == 125 and why in refused.said and "own words" not in refused.said, refused
    assert not (WORK / "out").exists()
    wait_until_gone(2, kept=[inspect("spoilt")["id"]])


def test_a_disk_that_became_a_link(stopped, secret):
    os.utime(secret, ns=(0, secret.stat().st_mtime_ns))  # so that any reading would move it
    stopped.unlink()
    stopped.symlink_to(secret)
    expect_refused("is a symbolic link")
    assert secret.stat().st_atime_ns == 0
    stopped.unlink()
    stopped.symlink_to("/etc/shadow")
    expect_refused("is a symbolic link")
    stopped.unlink()
    stopped.symlink_to(WORK / "nothing-there")
    expect_refused("is a symbolic link")
    assert stopped.is_symlink() and not (WORK / "nothing-there").exists()


def test_a_disk_that_became_a_pipe_is_not_opened(stopped):
    stopped.unlink()
    os.mkfifo(stopped, 0o600)
    expect_refused("is a pipe")


def test_a_disk_that_became_a_directory(stopped):
    stopped.unlink()
    stopped.mkdir()
    (stopped / "x").write_text("x")
    for path in (stopped, stopped / "x"):
        os.chown(path, HOME.stat().st_uid, HOME.stat().st_gid)
    expect_refused("is a directory")


@pytest.mark.skipif(not IS_ROOT, reason="only root makes device nodes, and files of others")
def test_a_disk_that_became_a_device_or_somebody_else_s(stopped, secret):
    stopped.unlink()
    os.mknod(stopped, 0o666 | 0o020000, os.makedev(1, 3))
    expect_refused("is a device")
    stopped.unlink()
    os.link(secret, stopped)
    expect_refused("belongs to another user")


def data_clusters(disk):
    """Host offsets of the overlay's data, by the tables of the qcow2 format."""
    image = disk.read_bytes()
    entries, table = struct.unpack_from(">I", image, 36)[0], struct.unpack_from(">Q", image, 40)[0]
    mask = 0x00fffffffffffe00
    for first in struct.unpack_from(f">{entries}Q", image, table):
        if first & mask:
            for second in struct.unpack_from(">8192Q", image, first & mask):
                if second & mask:
                    yield second & mask


@pytest.mark.parametrize("seed", [1, 2])
def test_a_file_system_full_of_rubbish_in_the_overlay(stopped, seed):
    """Everything that the box ever wrote, its file system's journal and metadata among it, becomes random."""
    choice = random.Random(seed)
    with open(stopped, "r+b") as file:
        for offset in data_clusters(stopped):
            file.seek(offset)
            file.write(choice.randbytes(65536))
    started = caisson("start", "--attach", "spoilt", timeout=120)
    # The guest may still find enough to run its command, or its kernel refuses the disk: then it says so.
    assert started.code == 0 or (started.code == 125 and re.search(r"disk|file system|mount|guest", started.said)), started
    assert inspect("spoilt")["state"] in ("stopped", "failed", "exited"), inspect("spoilt")


def test_a_qcow2_whose_tables_are_rubbish(stopped):
    """QEMU reads them, in its jail; it may refuse or fail reads, and the box says so."""
    choice = random.Random(3)
    with open(stopped, "r+b") as file:
        for cluster in (1, 2, 3):
            file.seek(cluster * 65536)
            file.write(choice.randbytes(4096))
    started = caisson("start", "--attach", "spoilt", timeout=120)
    assert started.code == 125 and started.said.strip(), started
    assert "spoilt" in caisson("ls", "--all").ok().text


@pytest.fixture(scope="module")
def place():
    """A home of its own, whose base disk may be spoilt."""
    home = WORK / "spoilt-home"
    shutil.rmtree(home, ignore_errors=True)
    env = environment(CAISSON_HOME=str(home))
    caisson("image", "load", "--name", TINY, TINY_ARCHIVE, env=env).ok()
    yield home, env
    shutil.rmtree(home)


@pytest.mark.parametrize("what", ["superblock", "metadata"])
def test_a_base_disk_with_corrupt_metadata(place, what):
    home, env = place
    caisson("run", "--rm", "--cold", TINY, "true", env=env, timeout=120).ok()
    disk, = (home / "disks").glob("*.ext4")
    choice = random.Random(4)
    disk.chmod(0o644)
    with open(disk, "r+b") as file:
        good = file.read(1 << 20)
        if what == "superblock":
            file.seek(1024)
            file.write(choice.randbytes(1024))
        else:
            # Group descriptors, bitmaps, inode tables: all but the superblock, so that the kernel starts to believe it.
            file.seek(4096)
            file.write(choice.randbytes((1 << 20) - 4096))
    try:
        for options in (("--cold",), ()):
            ran = caisson("run", "--rm", *options, TINY, "true", env=env, timeout=180)
            assert ran.code == 125 and ran.said.strip(), ran
    finally:
        with open(disk, "r+b") as file:
            file.write(good)
        disk.chmod(0o444)
    caisson("run", "--rm", "--cold", TINY, "true", env=env, timeout=120).ok()


def test_a_base_disk_that_became_a_link(place, secret):
    home, env = place
    caisson("create", "--name", "linked", "--cold", TINY, "true", env=env).ok()
    disk, = (home / "disks").glob("*.ext4")
    kept = disk.with_suffix(".kept")
    disk.rename(kept)
    disk.symlink_to(secret)
    refused = caisson("start", "linked", env=env)
    disk.unlink()
    kept.rename(disk)
    assert refused.code == 125 and "is a symbolic link" in refused.said, refused
    caisson("rm", "linked", env=env).ok()
