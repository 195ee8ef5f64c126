"""A part of the matrix of faults, spread evenly; `make test-faults` runs all of it."""
import pathlib
import shutil
import tempfile

import boxes
import pytest
import registries
from matrix import Matrix

pytestmark = pytest.mark.keeps
SHARE = 1  # of the cells of each operation and kind
MACHINES = ("run --rm", "start")


@pytest.fixture(scope="module")
def prepared():
    place = pathlib.Path(tempfile.mkdtemp(prefix="faults-", dir=boxes.WORK))
    registries.check_tools()
    registry = registries.Registry(place / "registry")
    image = registries.Image([registries.tar_of([("file", "file", b"x" * 90000)])], Cmd=["true"])
    registries.push_image(registry, image, "cell:1", place / "pushed")
    made = Matrix(place, registry)
    yield made
    made.remove_kept()
    registry.stop()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def matrix(prepared):
    prepared.table.clear()
    prepared.bad.clear()
    return prepared


def test_without_machines(matrix):
    matrix.run([name for name, operation in matrix.operations.items() if not operation.machine], share=SHARE)
    print(matrix.printed())
    assert not matrix.bad, "\n\n".join(matrix.bad)


def test_with_machines(matrix):
    matrix.run(MACHINES, share=SHARE)
    print(matrix.printed())
    assert not matrix.bad, "\n\n".join(matrix.bad)


@pytest.mark.parametrize("operation, kind, last", (
    ("volume create", "sync", None),  # the volume stayed, and could not be made again
    ("image pull", "rename", None),  # a part of a download that nobody could write to stayed
    ("run -d", "pwrite", 6),  # it was said to run, and stayed "starting"
))
def test_what_was_mended(matrix, operation, kind, last):
    matrix.run([operation], kinds=[kind], last=last)
    print(matrix.printed())
    assert not matrix.bad, "\n\n".join(matrix.bad)
