#!/usr/bin/env python3
"""Writes the seed corpus of share_server below fuzz/corpus."""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus" / "share_server"
# As in share_server.cc.
OPERATIONS = [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22,
              23, 24, 25, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 42, 43, 44, 45, 46,
              47, 50, 51, 26, 0xCA150001, 0xCA150002, 0xCA150003]
WRITTEN, READ, FIRST = 2, 3, 4  # nodes: the two volumes, and the first that is looked up


def message(operation, node, arguments):
    assert len(arguments) < 256
    return bytes([OPERATIONS.index(operation), node, len(arguments)]) + arguments


def name(text):
    return text + b"\0"


def create(text, node=WRITTEN, flags=2 | 0o100):
    return message(35, node, struct.pack("<IIII", flags, 0o100644, 0, 0) + name(text))


def write(handle, data, node=FIRST, offset=0):
    return message(16, node, struct.pack("<QQIIQII", handle, offset, len(data), 0, 0, 0, 0) + data)


def read(handle, node=FIRST, size=4096, operation=15):
    return message(operation, node, struct.pack("<QQIIQII", handle, 0, size, 0, 0, 0, 0))


def lock(operation, kind, owner=7, flags=0, node=FIRST):
    return message(operation, node, struct.pack("<QQQQIIII", 1, owner, 0, 99, kind, 5, flags, 0))


def setattr_(node, valid, mode=0, size=0, user=0):
    return message(4, node, struct.pack("<IIQQQQQQIIIIIIII", valid, 0, 1, size, 0, 1, 2, 3, 4, 5, 6, mode, 0, user, user, 0))


FILE = create(b"f")
OPEN_LIST = message(27, WRITTEN, struct.pack("<II", 0, 0))
SEEDS = {
    "lookup": message(1, READ, name(b"f")) + message(1, READ, name(b"d")) + message(3, 4, struct.pack("<IIQ", 0, 0, 0)),
    "out": message(1, READ, name(b"..")) + message(1, READ, name(b"l")) + message(1, 4, name(b"f")) + message(5, 4, b""),
    "contents": FILE + write(1, b"hello") + read(1) + message(25, FIRST, struct.pack("<QIIQ", 1, 0, 0, 7)) + message(18, FIRST, struct.pack("<QIIQ", 1, 2, 0, 7)),
    "size": FILE + setattr_(FIRST, 8 | 1, 0o4777, 1 << 30) + message(43, FIRST, struct.pack("<QQQII", 1, 0, 1 << 20, 0, 0)) +
            message(46, FIRST, struct.pack("<QQII", 1, 0, 3, 0)),
    "owner": FILE + setattr_(FIRST, 7, 0o7777, 0, 1000) + message(6, WRITTEN, name(b"l") + name(b"../outside/f")) + setattr_(5, 6, 0, 0, 9),
    "links": FILE + message(13, WRITTEN, struct.pack("<Q", FIRST) + name(b"g")) + message(10, WRITTEN, name(b"f")) + message(13, READ, struct.pack("<Q", FIRST) + name(b"g")),
    "rename": FILE + message(12, WRITTEN, struct.pack("<Q", WRITTEN) + name(b"f") + name(b"g")) + message(45, WRITTEN, struct.pack("<QII", READ, 0, 0) + name(b"g") + name(b"h")),
    "directories": message(9, WRITTEN, struct.pack("<II", 0o755, 0) + name(b"d")) + create(b"x", FIRST) + OPEN_LIST +
                   read(2, WRITTEN, operation=44) + read(2, WRITTEN, operation=28) + message(11, WRITTEN, name(b"d")),
    "listings": message(0xCA150002, 0, b"") + FILE + OPEN_LIST + message(0xCA150003, WRITTEN, struct.pack("<QQII", 2, 0, 9, 1)) +
                message(0xCA150003, WRITTEN, struct.pack("<QQII", 1, 0, 1, 0)) + message(0xCA150003, 1, struct.pack("<QQII", 2, 1 << 63, 1, 0)),
    "special": message(8, WRITTEN, struct.pack("<IIII", 0o010644, 0, 0, 0) + name(b"p")) + message(8, WRITTEN, struct.pack("<IIII", 0o020644, 259, 0, 0) + name(b"c")),
    "attributes": FILE + message(21, FIRST, struct.pack("<II", 3, 0) + name(b"user.a") + b"abc") + message(22, FIRST, struct.pack("<II", 99, 0) + name(b"user.a")) +
                  message(23, FIRST, struct.pack("<II", 99, 0)) + message(24, FIRST, name(b"user.caisson.metadata")),
    "locks": FILE + lock(32, 1) + lock(31, 1, 8) + lock(33, 1, 8) + message(36, 0, struct.pack("<Q", 0)) + lock(32, 2) + lock(32, 1, 9, 1),
    "temporary": message(51, WRITTEN, struct.pack("<IIII", 2, 0o100600, 0, 0)) + message(13, WRITTEN, struct.pack("<Q", FIRST) + name(b"t")),
    "copy": FILE + write(1, b"hello") + create(b"g") + message(47, FIRST, struct.pack("<QQQQQQQ", 1, 0, 5, 2, 0, 5, 0)),
    "forget": FILE + message(2, FIRST, struct.pack("<Q", 1)) + write(1, b"still open") + message(42, 0, struct.pack("<IIQQ", 1, 0, FIRST, 1)) + message(17, 0, b""),
    "raw": FILE + bytes([255, 0, 4]) + struct.pack("<I", 10),
}

CORPUS.mkdir(parents=True, exist_ok=True)
for seed, data in SEEDS.items():
    (CORPUS / seed).write_bytes(data)
