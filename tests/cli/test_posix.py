"""A box's root disk and its volumes behave as a local file system does: the same suite (tests/posix) in both places."""
import os
import pathlib

import pytest
from boxes import BASE, BIN, caisson

PROGRAM = pathlib.Path(BIN).parent.parent / "tests/posix_suite"  # built beside it
# What docs/volumes.md says of volumes, under "How a volume differs from a local disk".
DIFFERENT = {"attribute_access_lists"}


def suite(*options, directory):
    """name -> what differs ("" if nothing does), in a fresh box."""
    ran = caisson("run", "--rm", "-i", *options, BASE, "sh", "-c", f"cat >/p && chmod +x /p && mkdir -p {directory} && /p {directory}",
                  input=PROGRAM.read_bytes(), timeout=900)
    found = {}
    for line in ran.text.splitlines():
        word, _, rest = line.partition(" ")
        if word in ("ok", "differs"):
            name, _, what = rest.partition(": ")
            found[name] = what
    assert len(found) >= 150, ran.text[-2000:] + ran.err.decode()[-2000:]
    return found


def differing(found):
    return {name: what for name, what in found.items() if what}


def test_the_root_disk_is_a_local_file_system():
    assert differing(suite(directory="/data")) == {}


@pytest.fixture
def volume():
    name = f"posix-{os.getpid()}"
    yield name
    caisson("volume", "rm", name)


def test_a_volume_is_as_its_page_says(volume):
    different = differing(suite("-v", f"{volume}:/data", directory="/data"))
    assert set(different) == DIFFERENT, different
