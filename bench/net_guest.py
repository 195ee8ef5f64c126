"""What bench/net does in the box: net_guest.py ROUNDS MEGABYTES CONNECTS WAY=ADDRESS... A line of JSON a round and way.

The way "user" goes over a second card, of QEMU's user network, which is set up here: the agent knows one card.
"""
import fcntl
import glob
import json
import socket
import struct
import sys
import time

PORT, PIECE = 9000, 1 << 18
USER_CARD = "02:00:00:00:00:99"


def four(address):
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def set_up_user_card(target):
    """10.0.9.15, and over it the way to `target`."""
    card = next(path.split("/")[4] for path in glob.glob("/sys/class/net/*/address") if open(path).read().strip() == USER_CARD)
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for what, value in ((0x8916, four("10.0.9.15")), (0x891c, four("255.255.255.0"))):  # SIOCSIFADDR, SIOCSIFNETMASK
        fcntl.ioctl(control, what, struct.pack("16s16s8x", card.encode(), value))
    fcntl.ioctl(control, 0x8914, struct.pack("16sH22x", card.encode(), 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
    # SIOCADDRT: struct rtentry, up, by a gateway, one host
    fcntl.ioctl(control, 0x890b, struct.pack("=8x16s16s16sH70x", four(target), four("10.0.9.2"), four("255.255.255.255"), 0x1 | 0x2 | 0x4))
    features = open(f"/sys/class/net/{card}/device/features").read().strip()
    return features


def connect(address):
    return socket.create_connection((address, PORT), 30)


def down(address, length):
    with connect(address) as connection:
        connection.sendall(struct.pack("!cQ", b"d", length))
        room, left = memoryview(bytearray(PIECE)), length
        begun = time.monotonic()
        while left > 0:
            got = connection.recv_into(room)
            if got == 0:
                raise EOFError("cut off")
            left -= got
        return length * 8 / (time.monotonic() - begun) / 1e9


def up(address, length):
    with connect(address) as connection:
        connection.sendall(struct.pack("!cQ", b"u", length))
        piece, left = bytes(PIECE), length
        begun = time.monotonic()
        while left > 0:
            connection.sendall(piece[:left] if left < PIECE else piece)
            left -= PIECE
        if connection.recv(1) != b"k":
            raise EOFError("cut off")
        return length * 8 / (time.monotonic() - begun) / 1e9


def connects(address, count):
    taken, begun = [], time.monotonic()
    for _ in range(count):
        before = time.monotonic()
        connection = connect(address)
        taken.append(time.monotonic() - before)
        connection.close()
    whole = time.monotonic() - begun
    return sorted(taken)[count // 2] * 1000, count / whole


def main():
    rounds, megabytes, count = map(int, sys.argv[1:4])
    ways = dict(word.split("=") for word in sys.argv[4:])
    if "user" in ways:
        set_up_user_card(ways["user"])
    for number in range(rounds + 1):
        for way, address in ways.items():
            row = {"download, Gbit/s": down(address, megabytes << 20), "upload, Gbit/s": up(address, megabytes << 20)}
            row["connect, ms"], row["connects a second"] = connects(address, count)
            print(json.dumps([number, way, row]), flush=True)


main()
