"""Twenty boxes (CAISSON_TEST_BOXES) of one template at once: nothing that must be unique is shared, and every clock is right."""
import json
import os
import statistics
import subprocess
import time

import pytest
from boxes import BASE, Started, run

COUNT = int(os.environ.get("CAISSON_TEST_BOXES", "20"))

# What a box tells of itself. The sequence number is that of a TCP connection's first packet over loopback, less the
# kernel's clock in it (RFC 6528: a secret's hash plus time in units of 64 ns): it differs if the secret differs.
TELL = r"""
import json, os, random, socket, struct, sys, time, uuid
def sequence():
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    sniffer.bind(("lo", 0))
    sniffer.settimeout(10)
    server = socket.socket(); server.bind(("127.0.0.1", 4000)); server.listen()
    client = socket.socket(); client.bind(("127.0.0.1", 4001))
    now = time.time_ns()
    client.connect(("127.0.0.1", 4000))
    while True:
        packet = sniffer.recv(200)[14:]
        if packet[9] == 6 and packet[20:24] == struct.pack("!HH", 4001, 4000):
            return (struct.unpack("!I", packet[24:28])[0] - (now >> 6)) % 2**32
tell = {
    "urandom": os.urandom(16).hex(),
    "getrandom": os.getrandom(16).hex(),
    "device": open("/dev/random", "rb").read(16).hex(),
    "random": str(random.random()),
    "hash": str(hash("caisson")),
    "uuid": str(uuid.uuid4()),
    "kernel_uuid": open("/proc/sys/kernel/random/uuid").read().strip(),
    "boot_id": open("/proc/sys/kernel/random/boot_id").read().strip(),
    "machine_id": open("/etc/machine-id").read().strip(),
    "hostname": socket.gethostname(),
    "auxv": open("/proc/self/auxv", "rb").read().hex(),
    "stack": open("/proc/self/maps").read().split("[stack]")[0].splitlines()[-1].split("-")[0],
    "sequence": sequence(),
}
print(json.dumps(tell), flush=True)
for line in sys.stdin:
    print(repr(time.time()), flush=True)
"""


def ask(box):
    """Offset of the box's clock to the host's, and half of the round trip that it was measured over."""
    best = None
    for _ in range(8):
        before = time.time()
        box.process.stdin.write(b"\n")
        guest = float(box.line())
        after = time.time()
        half = (after - before) / 2
        if best is None or half < best[1]:
            best = (guest - (before + after) / 2, half)
    return best


def test_first_random_numbers_differ():
    """Drawn at once: a little later the kernel mixes something in by itself, and would hide what the agent left out."""
    drawn = [run(BASE, "sh", "-c", "head -c 16 /dev/urandom | od -An -tx1").ok().text for _ in range(8)]
    assert len(set(drawn)) == len(drawn), drawn


@pytest.fixture(scope="module")
def told():
    running, told, offsets, began = [], [], [], time.monotonic()
    try:
        for _ in range(COUNT):
            running.append(Started("run", "--rm", "-i", BASE, "python3", "-c", TELL, stdin=subprocess.PIPE))
        for box in running:
            told.append(json.loads(box.line(timeout=120)))
        answered = time.monotonic() - began
        assert all(box.process.poll() is None for box in running), "all of them live at once"
        offsets = [ask(box) for box in running]
        for box in running:
            box.process.stdin.close()
            box.process.stdin = None
        codes = [box.end().code for box in running]
    finally:
        for box in running:
            box.__exit__()
    assert codes == [0] * COUNT
    print(f"{COUNT} boxes answered within {answered:.1f} s")
    return told, offsets


@pytest.mark.parametrize("what", ["urandom", "getrandom", "device", "random", "hash", "uuid", "kernel_uuid", "boot_id",
                                  "machine_id", "hostname", "auxv", "stack"])
def test_no_two_boxes_share(told, what):
    values = [entry[what] for entry in told[0]]
    assert len(set(values)) == COUNT, sorted(values)


def test_no_two_boxes_share_the_secret_of_tcp_sequences(told):
    # With one secret all twenty would lie within the second or so (2^24) over which the boxes are spread.
    values = sorted(entry["sequence"] for entry in told[0])
    groups = 1 + sum(later - earlier > 1 << 24 for earlier, later in zip(values, values[1:]))
    assert groups >= COUNT * 3 // 4, values


def test_nothing_is_the_host_s(told):
    with open("/proc/sys/kernel/random/boot_id") as file:
        host = file.read().strip()
    assert host not in [entry["boot_id"] for entry in told[0]]
    if os.path.exists("/etc/machine-id"):
        with open("/etc/machine-id") as file:
            assert file.read().strip() not in [entry["machine_id"] for entry in told[0]]


def test_every_clock_is_within_50_ms_of_the_host_s(told):
    for offset, half in told[1]:
        assert abs(offset) <= 0.050 + half, [(f"{o * 1000:.1f} ms", f"+-{h * 1000:.1f}") for o, h in told[1]]
    # The margin is real: most of them were measured over short round trips.
    assert statistics.median(half for _, half in told[1]) < 0.25
