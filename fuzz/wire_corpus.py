#!/usr/bin/env python3
"""Writes the seed corpora of wire_decoder, wire_from_agent and agent_users below fuzz/corpus."""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"
MAGIC = b"\xf5CAISS\x0d\xf6"
MARKER = bytes(range(16))


def frame(stream, kind, payload=b""):
    return struct.pack("<IIB", len(payload), stream, kind) + payload


def field(number, value):
    if isinstance(value, int):
        return bytes([number << 3]) + varint(value)
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def varint(value):
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def control(number, body=b""):
    return frame(0, 1, field(number, body))


HELLO = control(1, field(1, 1) + field(3, b"caisson-agent"))
CONFIGURED = control(2, field(1, 1000) + field(2, 2000) + field(3, 3000))
CONFIGURE_FAILED = control(3, field(1, b"no disk") + field(2, 2))
STARTED = control(4, field(1, 1) + field(2, 42))
START_FAILED = control(5, field(1, 1) + field(2, 1) + field(3, b"not found") + field(4, 2))
EXITED = control(6, field(1, 1) + field(3, 7))
SIGNALLED = control(6, field(1, 1) + field(2, 1) + field(3, 9) + field(4, 1))
SHUT_DOWN = control(7)
DATA = frame(5, 2, b"hello\n")
EOFS = frame(5, 3) + frame(6, 3)
CREDIT = frame(4, 4, struct.pack("<I", 131072))
RUN = HELLO + CONFIGURED + STARTED + DATA + CREDIT + EOFS + EXITED

DECODER = {
    "run": RUN,
    "frames": DATA + EOFS + CREDIT + HELLO,
    "preamble": DATA + MAGIC + MARKER,
    "largest-data": frame(5, 2, b"x" * 32768),
    "beyond-data": struct.pack("<IIB", 32769, 5, 2) + b"x" * 64,
    "beyond-control": struct.pack("<IIB", (4 << 20) + 1, 0, 1) + b"x" * 64,
    "partial": DATA[:-1],
    "stream-0-data": frame(0, 2, b"x"),
    "reserved-channel": frame(7, 2, b"x"),
    "credit-0": frame(4, 4, b"\0" * 4),
    "credit-max": frame(4, 4, b"\xff" * 4),
    "unknown-type": frame(4, 9, b"x"),
}
FROM_AGENT = {
    "run": MAGIC + MARKER + RUN,
    "stale": b"rest of an old line\n" + MAGIC + b"another session!" + MAGIC[:5] + MAGIC + MARKER + RUN,
    "failures": MAGIC + MARKER + HELLO + CONFIGURE_FAILED + START_FAILED + SIGNALLED + SHUT_DOWN,
    "id-0": MAGIC + MARKER + control(6, field(3, 7)),
    "code-256": MAGIC + MARKER + control(6, field(1, 1) + field(3, 256)),
    "unknown-kind": MAGIC + MARKER + control(5, field(1, 1) + field(2, 77)),
    "unknown-message": MAGIC + MARKER + control(15, b"x"),
    "garbage-message": MAGIC + MARKER + frame(0, 1, b"\xff\xff\xff"),
    "credit-overflow": MAGIC + MARKER + frame(4, 4, struct.pack("<I", 16 << 20)) * 2,
    "data-flood": MAGIC + MARKER + frame(5, 2, b"x" * 4096) * 8,
}
PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
GROUP = b"root:x:0:\naudio:x:29:app\n"
USERS = {
    "root": b"\0" + PASSWD + b"\0" + GROUP,
    "name": b"app\0" + PASSWD + b"\0" + GROUP,
    "name-group": b"app:audio\0" + PASSWD + b"\0" + GROUP,
    "numbers": b"1000:29\0" + PASSWD + b"\0" + GROUP,
    "unknown": b"nobody\0" + PASSWD + b"\0" + GROUP,
    "overflow": b"4294967296\0a:b:99999999999999999999:1::::\0:::,,,:",
}

for target, seeds in (("wire_decoder", DECODER), ("wire_from_agent", FROM_AGENT), ("agent_users", USERS)):
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    for name, data in seeds.items():
        # The wire's targets take the size of their pieces from the first byte.
        (CORPUS / target / name).write_bytes(data if target == "agent_users" else b"\x07" + data)
