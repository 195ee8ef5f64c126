"""A guest whose kernel pokes the registers and queues of its virtio devices at random (poke_devices.cc, in Linux's place,
under the usual QEMU in the usual jail): only its own QEMU may die of it, the host's memory stays bounded, the box says
why it ended, and nothing else changes.

  CAISSON_POKE_SECONDS  how long, 10 unless set
  CAISSON_POKE_SEED     of the first machine, to see a run again; each further machine takes the next one
"""
import os
import pathlib
import re
import shutil
import struct
import time

import pytest
from boxes import ASSETS, BASE, HOME, WORK, assets_but, environment
from watching import GUEST_MIB, Life, Sibling, fingerprint

POKER = pathlib.Path(os.environ["CAISSON_POKE_DEVICES"])
SECONDS = float(os.environ.get("CAISSON_POKE_SECONDS", "10"))
SEED = int(os.environ.get("CAISSON_POKE_SEED", time.time_ns() & 0x7fffffff))


@pytest.fixture
def poked():
    """poked(SEED): the environment of a caisson whose guest kernel is the poking one."""
    place = assets_but("kernel", WORK / "poked-assets")
    shutil.copytree(pathlib.Path(ASSETS) / "kernel", place / "kernel", copy_function=os.symlink)
    (place / "kernel").chmod(0o755)

    def with_seed(seed):
        program = bytearray(POKER.read_bytes())
        at = program.index(b"POKESEED") + 8
        program[at:at + 8] = struct.pack("<Q", seed)
        kernel = place / "kernel/vmlinux"
        kernel.unlink()
        kernel.write_bytes(program)
        kernel.chmod(0o644)
        return environment(CAISSON_ASSETS=str(place))

    yield with_seed
    shutil.rmtree(place)


def pokes(box):
    """How many it says on its console, between QEMU's complaints."""
    try:
        with open(HOME / "boxes" / box / "console.log", "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - (256 << 10)))
            said = re.findall(rb"pokes (\d+)\r", log.read())
    except OSError:
        return 0
    return int(said[-1]) if said else 0


def test_only_the_poking_box_suffers(poked, ends_boxes):
    sibling = Sibling()
    before = fingerprint()
    deadline = time.monotonic() + SECONDS
    seed, total, machines, most_mib = SEED, 0, 0, 0
    print(f"CAISSON_POKE_SEED={SEED}")
    while time.monotonic() < deadline or machines < 2:
        counted = [0]

        def look(box):
            counted[0] = max(counted[0], pokes(box))

        life = Life(("--rm", "--cold", "--memory", f"{GUEST_MIB}M", BASE, "true"), max(5, min(100, deadline - time.monotonic())),
                    sibling, poked(seed), look)
        print(f"seed {seed}: {counted[0]} pokes, {life}")
        life.is_bounded()
        if life.by_itself:
            assert life.ended.code == 125 and re.search(r"guest|VMM|machine", life.ended.said), life.ended
        sibling.is_well()
        seed, total, machines, most_mib = seed + 1, total + counted[0], machines + 1, max(most_mib, life.vmm_mib)
    print(f"{total} pokes in {machines} machines, QEMU {most_mib:.0f} MiB at most")
    assert total > 1000 and most_mib > 0, "the devices were poked at all"
    assert fingerprint() == before


def test_randomness_takes_no_memory(poked, ends_boxes):
    """QEMU would make room for all that the guest's buffers claim to have."""
    sibling = Sibling()
    asked = []

    def look(box):
        log = HOME / "boxes" / box / "console.log"
        if log.exists() and b"asked for a gigabyte" in log.read_bytes():
            asked.append(time.monotonic())
        return asked and asked[-1] - asked[0] > 3  # time to take a gigabyte

    life = Life(("--rm", "--cold", "--memory", f"{GUEST_MIB}M", BASE, "true"), 60, sibling, poked(0), look)
    print(life)
    assert asked and 0 < life.vmm_mib < GUEST_MIB + 300, life
