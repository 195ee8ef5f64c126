"""Twenty boxes (CAISSON_TEST_BOXES) with a network, of one template at once: what their kernels draw for their packets is not
the same, and their cards work as the template's did."""
import json
import os

import boxes
import internet
import pytest
from boxes import BASE, Started
from internet import WEB, WEB6

pytestmark = pytest.mark.skipif(bool(internet.unavailable()), reason=internet.unavailable())
COUNT = int(os.environ.get("CAISSON_TEST_BOXES", "20"))

# What a box's first packets over its card say of its kernel's secrets. Of a first packet of TCP: its sequence number less
# the clock that is in it (RFC 6528), its time stamp less the monotonic clock. Of datagrams of IPv6: the flow label (a hash),
# the identification of a fragment (a random number).
TELL = r"""
import json, socket, struct, sys, time
V4, V6 = sys.argv[1:3]
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sniffer.bind(("eth0", 0))
sniffer.settimeout(10)
def sent(family, wanted):
    while True:
        frame, place = sniffer.recvfrom(65535)
        kind = struct.unpack("!H", frame[12:14])[0]
        if place[2] == socket.PACKET_OUTGOING and kind == (0x0800 if family == socket.AF_INET else 0x86dd):
            packet = frame[14:]
            protocol = packet[9] if family == socket.AF_INET else packet[6]
            if protocol in wanted:
                return packet, packet[20 if family == socket.AF_INET else 40:]
def stream(family, address):
    client = socket.socket(family, socket.SOCK_STREAM)
    client.bind(("", 4001 if family == socket.AF_INET else 4003))
    client.setblocking(False)
    now, up = time.time_ns(), time.monotonic_ns()
    client.connect_ex((address, 7))
    _, segment = sent(family, (6,))
    options = segment[20:4 * (segment[12] >> 4)]
    at = 0
    while options[at] != 8:
        at += 1 if options[at] == 1 else options[at + 1]
    stamp = struct.unpack("!I", options[at + 2:at + 6])[0]
    return (struct.unpack("!I", segment[4:8])[0] - (now >> 6)) % 2**32, (stamp - up // 10**6) % 2**32
def datagram(family, address, size):
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.bind(("", 4002))
    sender.sendto(bytes(size), (address, 7))
    return sent(family, (17, 44))
tell = {}
tell["sequence"], tell["stamp"] = stream(socket.AF_INET, V4)
tell["sequence6"], tell["stamp6"] = stream(socket.AF_INET6, V6)
tell["flow"] = struct.unpack("!I", datagram(socket.AF_INET6, V6, 10)[0][:4])[0] & 0xfffff
tell["fragment"] = struct.unpack("!I", datagram(socket.AF_INET6, V6, 3000)[1][4:8])[0]
tell["sysfs"] = open("/sys/class/net/eth0/device/features").read().strip()
tell["link"] = open("/sys/class/net/eth0/address").read().strip()
print(json.dumps(tell), flush=True)
sys.stdin.read()
"""


def start(world, *words):
    return Started(f"--net=/proc/{world.host}/ns/net", boxes.BIN, "run", "--rm", "-i", "--pull", "never", "--net", "public", *words, stdin=-1, program="nsenter")


@pytest.fixture(scope="module")
def told(world):
    running = []
    try:
        for _ in range(COUNT):
            running.append(start(world, BASE, "python3", "-c", TELL, WEB, WEB6))
        told = [json.loads(box.line(timeout=180)) for box in running]
        assert all(box.process.poll() is None for box in running), "all of them live at once"
        for box in running:
            box.process.stdin.close()
            box.process.stdin = None
        assert [box.end().code for box in running] == [0] * COUNT
    finally:
        for box in running:
            box.__exit__()
    return told


def groups(values, width):
    """How many there are, if those that lie within `width` of the next count as one."""
    values = sorted(values)
    return 1 + sum(later - earlier > width for earlier, later in zip(values, values[1:]))


# With one secret all would lie within the second or so (2^24) over which the boxes are spread; stamps within some.
@pytest.mark.parametrize("what, width", [("sequence", 1 << 24), ("sequence6", 1 << 24), ("stamp", 10000), ("stamp6", 10000)])
def test_no_two_boxes_share_the_secret_of_tcp(told, what, width):
    values = [entry[what] for entry in told]
    assert groups(values, width) >= COUNT * 3 // 4, sorted(values)


@pytest.mark.parametrize("what", ["flow", "fragment"])
def test_no_two_boxes_share(told, what):
    values = [entry[what] for entry in told]
    assert len(set(values)) >= COUNT - 1, sorted(values)


def test_cards_have_what_makes_them_fast(told):
    """A template whose card had no tap with virtio's headers would have negotiated nothing of this, for good."""
    # Bits of struct virtio_net's features, virtio 1.2, 5.1.3; the file has the lowest first.
    wanted = {"CSUM": 0, "GUEST_CSUM": 1, "GUEST_TSO4": 7, "GUEST_TSO6": 8, "HOST_TSO4": 11, "HOST_TSO6": 12, "MRG_RXBUF": 15, "CTRL_VQ": 17}
    for entry in told:
        assert {name for name, bit in wanted.items() if entry["sysfs"][bit] != "1"} == set(), entry["sysfs"]
        # Nothing that a restored guest would have to do at once.
        assert entry["sysfs"][21] == "0", "GUEST_ANNOUNCE"
        assert entry["link"] == "02:ca:15:50:00:02"
