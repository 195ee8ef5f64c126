#!/usr/bin/env python3
"""Writes the seed corpora of the image_* fuzz targets: usage: fuzz/image_corpus.py"""
import gzip
import json
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "tests", "root"))
from image_layers import CHARACTER, FIFO, Tar  # noqa: E402


def write(target, name, data):
    directory = os.path.join(here, "corpus", target)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data)


def layered(*layers):
    out = b""
    for layer in layers:
        data = layer if isinstance(layer, bytes) else b"".join(layer.parts) + b"\0" * 512
        data += b"\0" * (-len(data) % 512)
        out += bytes([len(data) // 512]) + data
    return out


TARS = {
    "plain": [Tar().directory("d").file("d/a", b"content").symlink("l", "d").hardlink("h", "d/a")],
    "whiteouts": [Tar().file("a", b"1").directory("d").file("d/x", b"2"),
                  Tar().whiteout("a").directory("d").opaque("d").file("d/y", b"3")],
    "hidden-link": [Tar().file("a", b"1").hardlink("b", "a").hardlink("c", "b"), Tar().whiteout("a").file("b", b"2")],
    "across": [Tar().file("a", b"1"), Tar().hardlink("b", "a"), Tar().whiteout("a")],
    "usrmerge": [Tar().directory("usr").directory("usr/lib").symlink("lib", "usr/lib"),
                 Tar().file("lib/a", b"1").whiteout("lib/b"), Tar().directory("lib")],
    "long-names": [Tar().file("n" * 150, b"1").file("g" * 150, b"2", long_names="gnu").symlink("s", "t" * 150)],
    "metadata": [Tar().file("x", b"1", xattrs={"user.a": b"b\0c"}, nanoseconds=5, uid=3_000_000_000)
                 .add("dev", CHARACTER, major=1, minor=3).add("fifo", FIFO)],
    "escape": [Tar().file("../x", b"1")],
    "gzip": [gzip.compress(Tar().file("a", b"1").bytes(), mtime=0)],
    "empty": [b""],
}
for name, layers in TARS.items():
    write("image_layer_tar", name, layered(*layers))
sparse = Tar()
sparse.add("GNUSparseFile/s", data=b"abcd")
header = b"".join(Tar().add("PaxHeaders/x", b"x").parts)
body = b"".join(b"%d %s\n" % (len(r) + 4, r) for r in
                (b"GNU.sparse.size=8192", b"GNU.sparse.numblocks=2", b"GNU.sparse.map=0,2,4096,2", b"GNU.sparse.name=s"))
write("image_layer_tar", "sparse", layered(header[:124] + b"%011o\0" % len(body) + header[136:] + body.ljust(512, b"\0") +
                                           b"".join(sparse.parts) + b"\0" * 512))

OPERATIONS = {
    "everything": [(0, 0, 0), (1, 1, 0), (2, 2, 1), (3, 0x21, 0), (7, 0, 0), (4, 0, 0), (5, 1, 0), (0, 0x22, 0), (6, 0x41, 0)],
    "links": [(1, 0, 0), (2, 1, 0), (7, 0, 0), (0, 0x21, 0), (7, 0, 0), (1, 1, 0), (4, 0x20, 0)],
    "loops": [(2, 0, 1), (2, 1, 0), (0, 0x20, 0)],
    "hard-links": [(0, 0, 0), (3, 1, 0), (3, 2, 1), (7, 0, 0), (4, 0, 0), (4, 1, 0)],
}
for name, operations in OPERATIONS.items():
    write("image_tree", name, b"".join(bytes(operation) for operation in operations))

DIGEST = "sha256:" + "a" * 64
DESCRIPTOR = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST, "size": 7,
              "platform": {"os": "linux", "architecture": "amd64"},
              "annotations": {"org.opencontainers.image.ref.name": "a:b"}}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 9}
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 9}
DOCUMENTS = {
    "index": (0, {"schemaVersion": 2, "manifests": [DESCRIPTOR]}),
    "manifest": (1, {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]}),
    "config": (2, {"architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z",
                   "config": {"Entrypoint": ["/e"], "Cmd": ["a"], "Env": ["A=1"], "WorkingDir": "/", "User": "1:2",
                              "StopSignal": "SIGINT", "Labels": {"a": "b"}, "Volumes": {"/v": {}},
                              "ExposedPorts": {"80/tcp": {}}},
                   "rootfs": {"type": "layers", "diff_ids": [DIGEST]}}),
    "docker": (3, [{"Config": "c.json", "RepoTags": ["a:b"], "Layers": ["x/layer.tar"]}]),
    "null": (2, {"config": None, "rootfs": {"diff_ids": []}}),
}
for name, (choice, document) in DOCUMENTS.items():
    write("image_oci_json", name, bytes([choice]) + json.dumps(document).encode())
write("image_oci_json", "deep", b"\0" + b"[" * 70)
write("image_oci_json", "not-utf8", b"\2" + b'{"rootfs":{"diff_ids":["\xff"]}}')
