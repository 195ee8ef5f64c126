"""The whole matrix of faults, printed: `make test-faults`. Arguments: names of operations; all if none is given.

usage: vm_ring run tests/faults/whole.py [--share N] [OPERATION...]
"""
import pathlib
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import boxes  # noqa: E402
import registries  # noqa: E402
from matrix import Matrix  # noqa: E402


def main(arguments):
    share = None
    if arguments[:1] == ["--share"]:
        share, arguments = int(arguments[1]), arguments[2:]
    place = pathlib.Path(tempfile.mkdtemp(prefix="faults-", dir=boxes.WORK))
    registries.check_tools()
    registry = registries.Registry(place / "registry")
    registries.push_image(registry, registries.Image([registries.tar_of([("file", "file", b"x" * 90000)])], Cmd=["true"]), "cell:1", place / "pushed")
    matrix = Matrix(place, registry)
    try:
        matrix.run(names=arguments or None, share=share)
    finally:
        matrix.remove_kept()
        registry.stop()
        shutil.rmtree(place, ignore_errors=True)
    print(matrix.printed())
    return 1 if matrix.bad else 0


sys.exit(main(sys.argv[1:]))
