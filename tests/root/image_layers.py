"""Layers and OCI layouts made by hand, byte by byte, so that tests can hold what ordinary tools never write."""
import gzip
import hashlib
import json
import os
import struct

FILE, HARDLINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"


def _number(value, width):
    text = b"%0*o" % (width - 1, value)
    if value >= 0 and len(text) < width:
        return text + b"\0"
    # GNU base 256
    return (value & ((1 << (8 * width - 1)) - 1) | 1 << (8 * width - 1)).to_bytes(width, "big")


def _header(name, kind, mode, uid, gid, size, mtime, link, major, minor, magic=b"ustar\x0000"):
    block = struct.pack("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x", name, _number(mode, 8), _number(uid, 8),
                        _number(gid, 8), _number(size, 12), _number(mtime, 12), b" " * 8, kind, link, magic, b"", b"",
                        _number(major, 8), _number(minor, 8), b"")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _padded(data):
    return data + b"\0" * (-len(data) % 512)


def _pax(records):
    out = b""
    for key, value in records:
        body = b" " + key + b"=" + value + b"\n"
        size = len(body) + 1
        while len(b"%d" % size) + len(body) != size:
            size = len(b"%d" % size) + len(body)
        out += b"%d" % size + body
    return out


class Tar:
    """Entries in the order of the calls."""

    def __init__(self):
        self.parts = []

    def add(self, name, kind=FILE, data=b"", mode=0o644, uid=0, gid=0, mtime=1_600_000_000, nanoseconds=0, link=b"",
            major=0, minor=0, xattrs=(), long_names="pax"):
        name, link = (text.encode() if isinstance(text, str) else text for text in (name, link))
        records = []
        if nanoseconds:
            records.append((b"mtime", b"%d.%09d" % (mtime, nanoseconds)))
        for key, value in dict(xattrs).items():
            records.append((b"SCHILY.xattr." + key.encode(), value))
        for text, pax, gnu in ((name, b"path", b"L"), (link, b"linkpath", b"K")):
            if len(text) <= 100 and (long_names == "gnu" or all(c < 128 for c in text)):
                continue
            if long_names == "gnu":
                self.parts.append(_header(b"././@LongLink", gnu, 0, 0, 0, len(text) + 1, 0, b"", 0, 0, b"ustar  \0"))
                self.parts.append(_padded(text + b"\0"))
            else:
                records.append((pax, text))
        if records:
            body = _pax(records)
            self.parts.append(_header(b"PaxHeaders/x", b"x", 0o644, 0, 0, len(body), 0, b"", 0, 0))
            self.parts.append(_padded(body))
        size = len(data) if kind == FILE else 0
        self.parts.append(_header(name[:100], kind, mode, uid, gid, size, mtime, link[:100], major, minor))
        if kind == FILE:
            self.parts.append(_padded(data))
        return self

    def directory(self, name, mode=0o755, **more):
        return self.add(name + ("" if name.endswith("/") else "/"), DIRECTORY, mode=mode, **more)

    def file(self, name, data=b"", **more):
        return self.add(name, FILE, data=data, **more)

    def symlink(self, name, target, **more):
        return self.add(name, SYMLINK, link=target, mode=0o777, **more)

    def hardlink(self, name, target, **more):
        return self.add(name, HARDLINK, link=target, **more)

    def whiteout(self, name):
        directory, _, base = name.rpartition("/")
        return self.add((directory + "/" if directory else "") + ".wh." + base)

    def opaque(self, name):
        return self.add(name + "/.wh..wh..opq")

    def bytes(self):
        return b"".join(self.parts) + b"\0" * 1024


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write_layout(directory, layers, tag="test", compress=True, config=None):
    """An OCI image layout with one image; `layers` are uncompressed tars, lowest first."""
    blobs = os.path.join(directory, "blobs", "sha256")
    os.makedirs(blobs, exist_ok=True)

    def blob(data):
        name = digest(data)
        with open(os.path.join(blobs, name[7:]), "wb") as out:
            out.write(data)
        return name, len(data)

    described = []
    for layer in layers:
        data = gzip.compress(layer, 1, mtime=0) if compress else layer
        name, size = blob(data)
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compress else "")
        described.append({"mediaType": kind, "digest": name, "size": size})
    document = {"architecture": "amd64", "os": "linux", "config": config or {},
                "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
                "history": [{"created_by": "test"} for _ in layers]}
    config_name, config_size = blob(json.dumps(document).encode())
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_name,
                           "size": config_size},
                "layers": described}
    name, size = blob(json.dumps(manifest).encode())
    entry = {"mediaType": manifest["mediaType"], "digest": name, "size": size,
             "annotations": {"org.opencontainers.image.ref.name": tag}}
    with open(os.path.join(directory, "oci-layout"), "w") as out:
        out.write('{"imageLayoutVersion":"1.0.0"}')
    with open(os.path.join(directory, "index.json"), "w") as out:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, out)
    return described
