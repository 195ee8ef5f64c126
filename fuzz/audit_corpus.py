#!/usr/bin/env python3
"""Writes the seed corpus of audit_line below fuzz/corpus."""
import hashlib
import json
import pathlib

CORPUS = pathlib.Path(__file__).parent / "corpus" / "audit_line"


def line(seq=1, kind="box_created", details=None, prev="0" * 64, time="2026-05-01T12:00:00.123Z", **more):
    text = json.dumps({"seq": seq, "time": time, "kind": kind, **more, "uid": 1000, "pid": 42, "details": details or {}, "prev": prev},
                      separators=(",", ":"))
    return text[:-1] + ',"hash":"' + hashlib.sha256(text.encode()).hexdigest() + '"}'


WHOLE = line(box="01hzzzzzzzzzzzzzzzzzzzzzzz", name="keen-otter", process="caisson", details={"image": "base", "arguments": ["echo", "a b"], "cpus": 2})
SEEDS = {
    "whole": WHOLE,
    "short": line(),
    "altered": WHOLE.replace("keen", "lean"),
    "torn": WHOLE[:-20],
    "control": line(name="\x1b[2J\u009b31m\r\n", details={"\x07": "\x7f\u202e", "deep": [[[[{"a": None}]]]]}),
    "not-utf8": WHOLE.replace("base", "\udcff"),
    "large-sequence": line(seq=2**64 - 1),
    "no-time": line(time="yesterday"),
    "month-99": line(time="2026-99-99T99:99:99.999Z"),
    "details-no-object": line(details=[1]),
    "two-hashes": WHOLE[:-1] + ',"hash":"' + "f" * 64 + '"}',
}

CORPUS.mkdir(parents=True, exist_ok=True)
for name, data in SEEDS.items():
    (CORPUS / name).write_bytes(data.encode(errors="surrogateescape"))
