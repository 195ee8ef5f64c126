#!/usr/bin/env python3
"""Writes the seed corpus of net_beginning below fuzz/corpus."""
import ipaddress
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus" / "net_beginning"


def tcp(flags=2, options=b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + bytes(12), source=12345, destination=443):
    return struct.pack(">HHIIBBHHH", source, destination, 0xDEADBEEF, 0, (20 + len(options)) // 4 << 4, flags, 65535, 0, 0) + options


def ip4(body, options=b"", fragment=0x4000, protocol=6):
    words = (20 + len(options)) // 4
    return struct.pack(">BBHHHBBH4s4s", 0x40 | words, 0, words * 4 + len(body), 1, fragment, 64, protocol, 0,
                       bytes([10, 0, 2, 15]), bytes([192, 0, 2, 7])) + options + body


def ip6(body, following=6, destination="2001:db8::7"):
    return struct.pack(">IHBB", 6 << 28, len(body), following, 64) + ipaddress.ip_address("fd00:ca15::2").packed + \
        ipaddress.ip_address(destination).packed + body


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def queued(packet, number=7):
    body = struct.pack("=BBH", 2, 0, 0) + attribute(1, struct.pack(">IHB", number, 0x800, 0)) + attribute(10, packet)
    return struct.pack("=IHHII", 16 + len(body), 3 << 8, 0, 0, 0) + body


PACKETS = {
    "v4": ip4(tcp()),
    "v4-options": ip4(tcp(), options=b"\x01\x01\x01\x01"),
    "v4-bare": ip4(tcp(options=b"")),
    "v4-cut": ip4(tcp())[:39],
    "v4-fragment": ip4(tcp(), fragment=0x2000),
    "v4-udp": ip4(tcp(), protocol=17),
    "v4-answer": ip4(tcp(flags=0x12)),
    "v4-port-0": ip4(tcp(destination=0)),
    "v6": ip6(tcp()),
    "v6-hop-by-hop": ip6(bytes([6, 0, 1, 4, 0, 0, 0, 0]) + tcp(), following=0),
    "v6-mapped": ip6(tcp(), destination="::ffff:10.0.0.1"),
}
SEEDS = {name: b"\0" + packet for name, packet in PACKETS.items()}
SEEDS["queue-one"] = b"\1" + queued(PACKETS["v4"])
SEEDS["queue-three"] = b"\1" + b"".join(queued(PACKETS[name], number) for number, name in enumerate(("v4", "v6", "v4-cut")))
SEEDS["queue-cut"] = (b"\1" + queued(PACKETS["v6"]))[:-30]
SEEDS["queue-error"] = b"\1" + struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -22) + queued(PACKETS["v6"])

if __name__ == "__main__":
    CORPUS.mkdir(parents=True, exist_ok=True)
    for name, seed in SEEDS.items():
        (CORPUS / name).write_bytes(seed)
