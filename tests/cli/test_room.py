"""A box that comes near to filling the file system of the home waits until there is room, and loses nothing."""
import os

import pytest
from boxes import TINY, TINY_ARCHIVE, caisson, until
from small_homes import MIB, free_bytes
from small_homes import small_home as home_of


@pytest.fixture
def small_home():
    with home_of(1024) as made:
        yield made


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
    assert state()["reason"].startswith("host disk full: only ")
    left = free_bytes(home)
    assert 10 * MIB < left < 60 * MIB, left
    refused = caisson("exec", "writer", "true", env=env)
    assert refused.code == 125 and "host disk full" in refused.said, refused
    assert "goes on by itself" in caisson("resume", "writer", env=env).said
    written = caisson("logs", "writer", env=env).ok().lines
    filler.unlink()
    until(lambda: state()["state"] == "running", 20, state)
    until(lambda: len(caisson("logs", "writer", env=env).ok().lines) > len(written), 20)
    # Nothing of what it had said or written is lost.
    lines = caisson("logs", "writer", env=env).ok().lines
    assert [int(line) for line in lines] == list(range(len(lines)))
    caisson("stop", "-t", "0", "writer", env=env).ok()
