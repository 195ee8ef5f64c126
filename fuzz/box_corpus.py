#!/usr/bin/env python3
"""Writes the seed corpus of box_log below fuzz/corpus."""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus" / "box_log"
SALT = 0x12345678


def crc32c(data, before=0):
    crc = ~before & 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return ~crc & 0xFFFFFFFF


def header(version=1, file_sequence=3, first_record=7):
    data = b"\xf5CAISLOG" + struct.pack("<IIQQI", version, SALT, file_sequence, first_record, 0)
    return data + struct.pack("<I", crc32c(data))


def record(sequence, payload, source=1, kind=1, time=1777636800000000000):
    data = struct.pack("<IBBHQqI", len(payload), source, kind, 0, sequence, time, crc32c(payload, SALT))
    return data + struct.pack("<I", crc32c(data, SALT)) + payload


LINES = record(7, b"one\ntw") + record(8, b"an error\n", source=2) + record(9, b"o\nthree")
SEEDS = {
    "empty": header(),
    "lines": header() + LINES,
    "not-utf8": header() + record(7, b"\xff\x00\xc3\n") + record(8, "grüße\n".encode()),
    "console": header() + record(7, b"[    0.000000] Linux\r\n", source=3),
    "lost": header() + record(7, struct.pack("<QI", 4096, 28), kind=2) + record(8, b"after\n"),
    "short-lost": header() + record(7, b"\x01", kind=2),
    "torn": header() + LINES[:-3],
    "torn-header": header() + LINES + record(10, b"x")[:20],
    "damaged-header": header() + b"\xff" + LINES[1:] + LINES,
    "damaged-bytes": header() + LINES[:33] + b"\xff" + LINES[34:],
    "zeros": header() + LINES + bytes(100),
    "unknown-source": header() + record(7, b"x", source=9),
    "gap": header() + record(7, b"x\n") + record(1 << 63, b"y\n"),
    "newer": header(version=2) + LINES,
    "no-header": LINES,
    "time-range": header() + record(7, b"x\n", time=-(1 << 63)) + record(8, b"y\n", time=(1 << 63) - 1),
}

CORPUS.mkdir(parents=True, exist_ok=True)
for name, data in SEEDS.items():
    (CORPUS / name).write_bytes(data)
