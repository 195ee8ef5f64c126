"""A part of the matrix of faults, spread evenly; `make test-faults` runs all of it."""
import pytest
import registries
from boxes import BASE
from matrix import Matrix

pytestmark = pytest.mark.keeps
SHARE = 1  # of the cells of each operation and kind
MACHINES = ("run --rm", "start")


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    from boxes import WORK
    import shutil
    import tempfile
    import pathlib
    place = pathlib.Path(tempfile.mkdtemp(prefix="faults-", dir=WORK))
    registries.check_tools()
    registry = registries.Registry(place / "registry")
    image = registries.Image([registries.tar_of([("file", "file", b"x" * 90000)])], Cmd=["true"])
    registries.push_image(registry, image, "cell:1", place / "pushed")
    made = Matrix(place, registry)
    yield made
    made.remove_kept()
    registry.stop()
    shutil.rmtree(place, ignore_errors=True)


def test_without_machines(matrix):
    matrix.run([name for name, operation in matrix.operations.items() if not operation.machine], share=SHARE)
    print(matrix.printed())
    assert not matrix.bad, "\n\n".join(matrix.bad)


def test_with_machines(matrix):
    matrix.table.clear()
    matrix.run(MACHINES, share=SHARE)
    print(matrix.printed())
    assert not matrix.bad, "\n\n".join(matrix.bad)
