"""Homes on small file systems of their own, which tests can fill to the last block. Only root can mount them."""
import contextlib
import os
import pathlib
import subprocess

import pytest
from boxes import IS_ROOT, WORK, caisson, environment

MIB = 1 << 20


@contextlib.contextmanager
def small_home(mib):
    """A home on an ext4 of `mib` MiB; what commands need to use it."""
    if not IS_ROOT:
        pytest.skip("only root may mount a small file system")
    place, image = WORK / "small", WORK / "small.ext4"
    place.mkdir(mode=0o755)
    with open(image, "wb") as file:
        file.truncate(mib * MIB)
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-m", "0", image], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    mounted = subprocess.run(["mount", "-o", "loop", image, place], stderr=subprocess.PIPE)
    if mounted.returncode != 0:
        image.unlink()
        place.rmdir()
        pytest.skip(f"no loop device here: {mounted.stderr.decode().strip()}")
    home = place / "home"
    env = environment(CAISSON_HOME=str(home))
    try:
        yield home, env
    finally:
        for filler in place.glob("filler*"):
            filler.unlink()
        for name in caisson("ls", "--all", "-q", env=env).lines:
            caisson("rm", "--force", name, env=env)
        subprocess.run(["umount", place], check=True)
        image.unlink()
        place.rmdir()


def free_bytes(home):
    status = os.statvfs(pathlib.Path(home).parent)
    return status.f_bavail * status.f_frsize


def leave_free(home, size):
    """Takes all room but `size` bytes, for somebody outside the home: a file that can be removed again."""
    filler = home.parent / f"filler{len(list(home.parent.glob('filler*')))}"
    with open(filler, "wb") as file:
        taken = free_bytes(home) - size
        if taken > 0:
            os.posix_fallocate(file.fileno(), 0, taken)
    return filler


def fill(home):
    """To the last block."""
    filler = home.parent / "filler-all"
    with open(filler, "ab", buffering=0) as file:
        for piece in (MIB, 4096):
            while True:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), piece)
                    file.seek(0, os.SEEK_END)
                except OSError:
                    break
    assert free_bytes(home) == 0
    return filler
