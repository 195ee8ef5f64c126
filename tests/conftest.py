"""Checks around every black-box test. What the ring needs must be there: a missing piece fails the run."""
import os
import sys

import pytest

sys.dont_write_bytecode = True
try:
    import boxes
except RuntimeError as error:
    pytest.exit(f"the vm ring cannot run: {error}", returncode=3)


def pytest_sessionstart(session):
    for path, remedy in ((boxes.BIN, "build it: make build"), (boxes.ASSETS, "make it: tools/setup/assets DIRECTORY"),
                         (boxes.HOME, "make it: tests/vm_ring setup"), (boxes.TINY_ARCHIVE, "make it: tests/vm_ring setup")):
        if not os.path.exists(path):
            pytest.exit(f"the vm ring cannot run: there is no {path}; {remedy}", returncode=3)


@pytest.fixture(autouse=True)
def nothing_stays(request):
    """After every test: no process, directory, mount, socket or temporary file of a box."""
    kept = boxes.box_ids()
    yield
    if "keeps" not in request.keywords:
        boxes.wait_until_gone(kept=kept)


@pytest.fixture
def no_volumes_stay(nothing_stays):
    """Removes boxes and volumes; then nothing is left of any volume."""
    yield
    for box in boxes.caisson("ls", "--all", "-q").ok().lines:
        boxes.caisson("rm", "--force", box)
    for name in boxes.caisson("volume", "ls", "-q").ok().lines:
        boxes.caisson("volume", "rm", name).ok()
    volumes = boxes.HOME / "volumes"
    for directory in ("named", "anonymous", "disks", "info", "space", "boxes", "trash"):
        assert not volumes.exists() or os.listdir(volumes / directory) == [], directory


@pytest.fixture(scope="session")
def tiny():
    """The tiny image, loaded into the store."""
    names = [image["name"] for image in boxes.caisson("image", "ls", "--format", "json").json()]
    if boxes.TINY + ":latest" not in names and boxes.TINY not in names:
        boxes.caisson("image", "load", "--name", boxes.TINY, boxes.TINY_ARCHIVE).ok()
    return boxes.TINY


@pytest.fixture
def kept_boxes():
    """Removes what a test has kept."""
    before = boxes.box_ids()
    yield
    for box in boxes.box_ids():
        if box not in before:
            boxes.caisson("rm", box)


@pytest.fixture
def ends_boxes():
    """Ends and removes, by force, what a test has started."""
    before = boxes.box_ids()
    yield
    for box in boxes.box_ids():
        if box not in before:
            boxes.caisson("rm", "--force", box)
