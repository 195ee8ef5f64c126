#!/usr/bin/env python3
"""Makes a small OCI archive for the tests: a shell and a few programs out of the base image's root file system, and a
configuration in which everything differs from the defaults.

usage: tiny_image.py ROOTFS.tar IMAGE.tar
"""
import hashlib
import io
import json
import os
import sys
import tarfile

FILES = """bin sbin lib lib64 usr/bin/sh usr/bin/dash usr/bin/id usr/bin/env usr/bin/cat usr/bin/ls usr/bin/sleep
usr/bin/head usr/bin/true usr/bin/hostname usr/bin/uname usr/lib64/ld-linux-x86-64.so.2""".split()
LIBRARIES = ("ld-linux-x86-64.so.2", "libc.so.6", "libselinux.so.1", "libpcre2-8.so.0")

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
alice:x:1000:1000:Alice:/home/alice:/bin/sh
bob:x:1001:100:Bob:/home/bob:/bin/sh
"""
GROUP = b"""root:x:0:
users:x:100:
alice:x:1000:
audio:x:29:alice
video:x:44:alice,bob
staff:x:50:
"""
CONFIG = {
    "User": "alice", "WorkingDir": "/made/by/image", "Entrypoint": ["/usr/bin/env", "FROM=entrypoint"],
    "Cmd": ["sh", "-c", "echo $FROM $COLOUR $0", "cmd"], "Env": ["PATH=/usr/bin:/opt/tools", "COLOUR=blue", "SHAPE=round"],
    "StopSignal": "SIGUSR2",
    "Healthcheck": {"Test": ["CMD-SHELL", "test -f /tmp/healthy"], "Interval": 1_000_000_000, "Retries": 2},
}


def wanted(name):
    if name in FILES:
        return True
    base = os.path.basename(name)
    return name.startswith("usr/lib/") and any(base == library or base.startswith(library + ".") for library in LIBRARIES)


def layer(rootfs):
    buffer = io.BytesIO()
    with tarfile.open(rootfs) as source, tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as target:
        for member in source:
            name = member.name[2:] if member.name.startswith("./") else member.name
            if wanted(name):
                member.name = name
                target.addfile(member, source.extractfile(member) if member.isreg() else None)
        for name, data in (("etc/passwd", PASSWD), ("etc/group", GROUP), ("opt/data.txt", b"data\n")):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            target.addfile(entry, io.BytesIO(data))
        for name, mode, uid in (("home/alice", 0o700, 1000), ("home/bob", 0o700, 1001), ("tmp", 0o1777, 0), ("root", 0o700, 0)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, uid, uid
            target.addfile(entry)
        tool = b"#!/bin/sh\necho tool in opt\n"
        entry = tarfile.TarInfo("opt/tools/tool")
        entry.size, entry.mode = len(tool), 0o755
        target.addfile(entry, io.BytesIO(tool))
    return buffer.getvalue()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def main():
    rootfs, output = sys.argv[1:]
    tree = layer(rootfs)
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": CONFIG, "created": "2024-01-01T00:00:00Z",
                         "rootfs": {"type": "layers", "diff_ids": [digest(tree)]}}).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(tree), "size": len(tree)}],
    }).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest), "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": "latest"}}]}).encode()
    files = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index)]
    files += [("blobs/sha256/" + digest(data)[7:], data) for data in (config, manifest, tree)]
    with tarfile.open(output + ".part", "w") as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    os.rename(output + ".part", output)


if __name__ == "__main__":
    main()
