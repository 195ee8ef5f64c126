"""A box that comes near to filling the file system of the home waits until there is room, and loses nothing."""
import os
import subprocess

import pytest
from boxes import IS_ROOT, TINY, TINY_ARCHIVE, WORK, caisson, environment, until

MIB = 1 << 20


@pytest.fixture
def small_home():
    """A home on an ext4 of 1 GiB; what commands need to use it."""
    if not IS_ROOT:
        pytest.skip("only root may mount a small file system")
    place, image = WORK / "small", WORK / "small.ext4"
    place.mkdir(mode=0o755)
    with open(image, "wb") as file:
        file.truncate(1024 * MIB)
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-m", "0", image], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    mounted = subprocess.run(["mount", "-o", "loop", image, place], stderr=subprocess.PIPE)
    if mounted.returncode != 0:
        image.unlink()
        place.rmdir()
        pytest.skip(f"no loop device here: {mounted.stderr.decode().strip()}")
    home = place / "home"
    try:
        yield home, environment(CAISSON_HOME=str(home))
    finally:
        for name in caisson("ls", "--all", "-q", env=environment(CAISSON_HOME=str(home))).lines:
            caisson("rm", "--force", name, env=environment(CAISSON_HOME=str(home)))
        subprocess.run(["umount", place], check=True)
        image.unlink()
        place.rmdir()


def free_bytes(home):
    status = os.statvfs(home)
    return status.f_bavail * status.f_frsize


def test_a_box_that_fills_the_home_is_paused_and_goes_on(small_home):
    home, env = small_home
    caisson("image", "load", "--name", TINY, TINY_ARCHIVE, env=env).ok()
    writer = "i=0; while :; do head -c 4194304 /dev/urandom >> /big$((i % 2)); echo $i; i=$((i + 1)); done"
    caisson("run", "-d", "--pull", "never", "--name", "writer", "--memory", "256M", "-u", "0", "--entrypoint", "", "-v", "kept:/kept",
            TINY, "sh", "-c", writer, env=env).ok()
    # Somebody else takes most of what is left, so that the box has little to write.
    filler = home.parent / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free_bytes(home) - 90 * MIB, MIB))

    def state():
        return caisson("inspect", "--format", "json", "writer", env=env).json()[0]

    until(lambda: state()["state"] == "paused", 60, lambda: (state()["state"], free_bytes(home)))
    assert "left on the file system of the home" in state()["reason"]
    left = free_bytes(home)
    assert 10 * MIB < left < 60 * MIB, left
    refused = caisson("exec", "writer", "true", env=env)
    assert refused.code == 125 and "almost full" in refused.said, refused
    assert "goes on by itself" in caisson("resume", "writer", env=env).said
    written = caisson("logs", "writer", env=env).ok().lines
    filler.unlink()
    until(lambda: state()["state"] == "running", 20, state)
    until(lambda: len(caisson("logs", "writer", env=env).ok().lines) > len(written), 20)
    # Nothing of what it had said or written is lost.
    lines = caisson("logs", "writer", env=env).ok().lines
    assert [int(line) for line in lines] == list(range(len(lines)))
    caisson("stop", "-t", "0", "writer", env=env).ok()
