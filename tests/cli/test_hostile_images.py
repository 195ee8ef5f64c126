"""Images made to do harm: each ends in one clear error that names the layer and the entry, nothing of it stays in the
home, nothing is written anywhere else. They come the way an attacker would send them: from a registry."""
import gzip
import hashlib
import json
import lzma
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import time

import boxes
import pytest
import registries
from boxes import MEMORY_FACTOR, WORK, caisson
from registries import Image, Server

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "root"))
from image_layers import DIRECTORY, FILE, HARDLINK, SYMLINK, Tar, _header, _pax, _padded  # noqa: E402

NOISE = random.Random(1).randbytes(200000)


def raw_header(name, kind=b"0", size=0, **changes):
    """A header with fields that no honest writer makes: offsets and bytes, the checksum made right afterwards."""
    block = bytearray(_header(name, kind, 0o644, 0, 0, 0, 0, changes.pop("link", b""), 0, 0))
    block[124:136] = b"%011o\0" % size if isinstance(size, int) else size
    for offset, data in changes.pop("at", {}).items():
        block[offset:offset + len(data)] = data
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


END = b"\0" * 1024
GOOD = Tar().directory("bin").file("bin/sh", b"#!").bytes()


def pax(records, header):
    body = _pax(records)
    return _header(b"PaxHeaders/x", b"x", 0o644, 0, 0, len(body), 0, b"", 0, 0) + _padded(body) + header


def sparse(name, real_size):
    """GNU's old sparse form: a few bytes that claim to be a very large file."""
    size = (real_size | 1 << 95).to_bytes(12, "big")
    return raw_header(name, b"S", 512, at={257: b"ustar  \0", 386: b"%011o\0%011o\0" % (0, 512), 483: size}) + b"x" * 512 + END


def looping_links(count):
    tar = Tar()
    for number in range(count):
        tar.symlink(f"l{number}", f"l{number + 1}")
    return tar.symlink(f"l{count}", "l0").bytes()


def zstd_bomb():
    done = subprocess.run("{ cat; head -c 2500M /dev/zero; } | zstd -1 -c", shell=True, input=raw_header(b"bomb", size=2500 << 20),
                          stdout=subprocess.PIPE, check=True)
    return done.stdout


# Layers (lowest first), and words of the error, mostly the entry's name. The layer that does harm is the last, unless
# the one below is worse. Layer bytes may be a function, if they are dear to make.
LAYERS = {
    "dot_dot": ([Tar().file("../escape").bytes()], "../escape"),
    "dot_dot_inside": ([Tar().file("a/../../escape").bytes()], "a/../../escape"),
    "dot_dot_absolute": ([Tar().file("/../../etc/cron.d/evil").bytes()], "cron.d/evil"),
    "dot_dot_directory": ([Tar().directory("../..").bytes()], ".."),
    "dot_dot_long_name": ([Tar().file("../" * 60 + "escape", long_names="gnu").bytes()], ".."),
    "dot_dot_pax_name": ([pax([(b"path", b"../../escape")], raw_header(b"harmless")) + END], "../../escape"),
    "hard_link_dot_dot": ([Tar().hardlink("x", "../../etc/shadow").bytes()], "x"),
    "hard_link_to_nothing": ([Tar().hardlink("x", "etc/shadow").bytes()], "x"),
    "hard_link_absolute_to_nothing": ([Tar().hardlink("x", "/etc/shadow").bytes()], "x"),
    "hard_link_to_directory": ([Tar().directory("d").hardlink("x", "d").bytes()], "x"),
    "hard_link_through_link": ([Tar().symlink("out", "/nowhere").hardlink("x", "out/shadow").bytes()], "x"),
    "hard_links_in_a_circle": ([Tar().hardlink("a", "b").hardlink("b", "a").bytes()], "hard link"),
    "symlink_without_target": ([Tar().symlink("x", "").bytes()], "x"),
    "symlink_with_long_target": ([Tar().symlink("x", "t" * 5000).bytes()], "x"),
    "file_below_looping_links": ([looping_links(3), Tar().file("l0/file", b"x").bytes()], "l"),
    "file_below_link_to_itself": ([Tar().symlink("me", "me").bytes(), Tar().file("me/file", b"x").bytes()], "me"),
    "file_below_link_to_file": ([Tar().file("f", b"x").symlink("l", "f").bytes(), Tar().file("l/file", b"y").bytes()], "l"),
    "root_replaced_by_file": ([raw_header(b".", b"0") + END], "root"),
    "root_replaced_by_link": ([raw_header(b".", b"2", link=b"/tmp") + END], "root"),
    "root_removed": ([Tar().file(".wh...").bytes()], "whiteout"),
    "whiteout_of_nothing": ([Tar().file("d/.wh.").bytes()], "whiteout"),
    "long_name": ([Tar().file("n" * 300).bytes()], "300"),
    "long_path": ([Tar().file("/".join(["directory"] * 600)).bytes()], "directory/"),
    "deep_path": ([Tar().file("d/" * 2047 + "dd/d").bytes()], "d/"),
    "negative_size": ([raw_header(b"negative", size=b"\xff" * 12) + END], ""),
    "negative_owner": ([raw_header(b"owner", at={108: b"\xff" * 8}) + END], "owner"),
    "huge_owner": ([raw_header(b"owner", at={108: b"\x80\0\0\1\0\0\0\0"}) + END], "owner"),
    "impossible_device": ([pax([], raw_header(b"device", b"3", at={329: b"7777777\0", 337: b"\x80\x7f\xff\xff\xff\xff\xff\xff"})) + END], "device"),
    "many_attributes": ([Tar().file("x", xattrs={f"user.a{n}": b"v" for n in range(1100)}).bytes()], "x"),
    "large_attributes": ([Tar().file("x", xattrs={"user.a": b"v" * 5000}).bytes()], "x"),
    "sparse_40_tib": ([sparse(b"sparse", 40 << 40)], "sparse"),
    "sparse_40_gib": ([sparse(b"sparse", 40 << 30)], "sparse"),
    "zstd_bomb": ([zstd_bomb], "1100"),
    "cut_in_a_header": ([GOOD[:300]], ""),
    "cut_in_a_file": ([Tar().file("long", NOISE).bytes()[:100000]], "long"),
    "not_a_tar": ([NOISE[:50000]], ""),
    "gzip_of_noise": ([gzip.compress(NOISE[:50000])], ""),
    "gzip_cut_short": ([gzip.compress(Tar().file("long", NOISE).bytes())[:100000]], ""),
    "gzip_with_wrong_sum": ([gzip.compress(GOOD)[:-8] + b"\0" * 8], ""),
    "gzip_within_gzip": ([gzip.compress(gzip.compress(GOOD))], ""),
    "xz_layer": ([lzma.compress(GOOD)], ""),
    "hostile_below_good": ([Tar().file("../escape").bytes(), GOOD], "../escape"),
    "hostile_above_good": ([GOOD, Tar().file("../escape").bytes()], "../escape"),
}


def change(text):
    """A change of the image's documents as a function of the image."""
    return lambda image: setattr(image, "text", lambda: text(image))


def with_manifest(**fields):
    return change(lambda image: json.dumps({**image.manifest, **fields}).encode())


def wrong_diff_id(image):
    image.config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    image.build()


def wrong_size(image):
    image.manifest["layers"][0]["size"] -= 512


def deep_config(image):
    digest = image.add(b'{"a":' * 10000 + b"1" + b"}" * 10000)
    image.manifest["config"] = {**image.manifest["config"], "digest": digest, "size": len(image.blobs[digest])}


def nul_in_config(image):
    image.config["config"] = {"Env": ["A=b\0c"]}
    image.build()


def many_strings(image):
    image.config["config"] = {"Cmd": ["x"] * 20000}
    image.build()


DOCUMENTS = {
    "json_10000_deep": (change(lambda image: b'{"a":' * 10000 + b"1" + b"}" * 10000), "deep"),
    "config_10000_deep": (deep_config, "deep"),
    "json_cut_short": (change(lambda image: json.dumps(image.manifest).encode()[:-20]), "JSON"),
    "wrong_diff_id": (wrong_diff_id, "config says"),
    "wrong_size": (wrong_size, "layer 1 of 1"),
    "wrong_media_type": (lambda image: image.manifest["layers"][0].update(mediaType="text/html"), "text/html"),
    "no_layers": (with_manifest(layers=[]), "describes 1"),
    "layers_no_list": (with_manifest(layers={"a": 1}), "layers"),
    "negative_layer": (lambda image: image.manifest["layers"][0].update(size=-1), "size"),
    "endless_layer": (lambda image: image.manifest["layers"][0].update(size=1 << 62), "size"),
    "many_large_layers": (lambda image: image.manifest.update(layers=[{**image.manifest["layers"][0], "digest": "sha256:%064x" % n, "size": 60 << 30}
                                                                      for n in range(200)]), "larger than"),
    "digest_with_path": (lambda image: image.manifest["layers"][0].update(digest="sha256:../../../../etc/passwd"), "digest"),
    "digest_of_another_kind": (lambda image: image.manifest["layers"][0].update(digest="md5:" + "0" * 32), "digest"),
    "nul_in_config": (nul_in_config, "zero byte"),
    "many_strings": (many_strings, "limit"),
}


@pytest.fixture(scope="module")
def home():
    """One home for all of them: the test is that it stays as it is."""
    base = WORK / f"hostile-{os.getpid()}"
    base.mkdir(mode=0o711)
    (base / "home").mkdir(mode=0o711)
    environment = boxes.environment(CAISSON_HOME=str(base / "home"), HOME=str(base))
    good = Server(Image([GOOD], Cmd=["true"]).serve)
    caisson("image", "pull", f"{good.name}/good/image:1", env=environment).ok()
    good.stop()
    yield base / "home", environment
    shutil.rmtree(base)


def outside():
    """Names in the places that the layers aim at."""
    return {place: sorted(os.listdir(place)) for place in ("/", "/etc", "/etc/cron.d", "/usr/bin", str(WORK)) if os.path.isdir(place)}


def attack(home, image):
    directory, environment = home
    before, around = registries.snapshot(directory), outside()
    server = Server(image.serve)
    try:
        result = caisson("image", "pull", f"{server.name}/hostile/image:1", env=environment)
    finally:
        server.stop()
    assert result.code == 125 and result.said.startswith("caisson: "), result
    assert "ended unexpectedly" not in result.said, result
    assert all(byte >= 32 or byte == 10 for byte in result.err), result
    assert registries.snapshot(directory) == before
    assert outside() == around
    return result


# What only shows when all layers are merged: the entry or link is named, no single layer is to blame.
OF_NO_LAYER = {"file_below_looping_links", "file_below_link_to_itself", "file_below_link_to_file"}


@pytest.mark.parametrize("name", LAYERS)
def test_hostile_layers(home, name):
    layers, words = LAYERS[name]
    layers = [layer() if callable(layer) else layer for layer in layers]
    image = Image(layers, Cmd=["true"])
    for described, layer in zip(image.manifest["layers"], layers):
        kind = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}.get(layer[:2], "")
        described["mediaType"] += kind
    result = attack(home, image)
    guilty = image.layer_digests[0 if name == "hostile_below_good" else -1]
    assert words in result.said and (guilty in result.said or name in OF_NO_LAYER), result


@pytest.mark.parametrize("name", DOCUMENTS)
def test_hostile_documents(home, name):
    alter, words = DOCUMENTS[name]
    image = Image([GOOD], Cmd=["true"])
    alter(image)
    assert words in attack(home, image).said


def test_there_are_forty():
    assert len(LAYERS) + len(DOCUMENTS) >= 40


def test_strange_but_sound(home, tiny):
    """What looks bad and is not: it comes in, and stays inside."""
    directory, environment = home
    layer = (Tar().symlink("absolute", "/etc/passwd").symlink("dangling", "no/where").symlink("up", "../../../../../../etc/passwd")
             .symlink("a", "b").symlink("b", "c").symlink("c", "etc").directory("etc").file("etc/x", b"first").file("etc/x", b"second")
             .file("a/through", b"links").file("name\nwith\tcontrols").file("caf\u00e9".encode("latin-1").decode("latin-1"), b"")
             .file("/absolute-name", b"inside").bytes())
    around = outside()
    server = Server(Image([layer], Cmd=["true"]).serve)
    try:
        caisson("image", "pull", f"{server.name}/strange/image:1", env=environment).ok()
    finally:
        server.stop()
    assert outside() == around
    caisson("image", "rm", f"{server.name}/strange/image:1", env=environment).ok()


def test_memory_stays_bounded(home):
    """A million entries: 512 MiB of tar, a few hundred KiB on the way."""
    directory, environment = home
    block = _header(b"@@@@@@@@", FILE, 0o644, 0, 0, 0, 0, b"", 0, 0)
    digits = [b"%03d" % number for number in range(1000)]
    base = sum(block) - 8 * ord("@") - sum(block[148:156]) + 8 * 32
    compressor = subprocess.Popen(["zstd", "-1", "-c", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    import threading
    packed = []
    reader = threading.Thread(target=lambda: packed.append(compressor.stdout.read()))
    reader.start()
    plain = hashlib.sha256()
    for outer in digits:
        parts = []
        for inner in digits:
            name = b"d" + outer[:1] + b"/" + outer[1:] + inner
            parts.append(name + block[8:148] + b"%06o\0 " % (base + sum(name)) + block[156:])
        data = b"".join(parts)
        plain.update(data)
        compressor.stdin.write(data)
    plain.update(END)
    compressor.stdin.write(END)
    compressor.stdin.close()
    reader.join()
    compressor.wait()
    image = Image([packed[0]], Cmd=["true"])
    image.config["rootfs"]["diff_ids"] = ["sha256:" + plain.hexdigest()]
    image.build()
    image.manifest["layers"][0]["mediaType"] += "+zstd"
    server = Server(image.serve)
    peak = 0
    try:
        with boxes.Started("image", "pull", f"{server.name}/many/entries:1", env=environment) as pull:
            while pull.process.poll() is None:
                for process in boxes.processes(marker=f"hostile-{os.getpid()}"):
                    if process.role == "unpack":
                        status = process.status()
                        peak = max(peak, int(status.get("VmHWM", "0 kB").split()[0]))
                time.sleep(0.1)
            assert pull.end().code == 0
    finally:
        server.stop()
    caisson("image", "rm", f"{server.name}/many/entries:1", env=environment).ok()
    assert 0 < peak < (400 << 10) * MEMORY_FACTOR, f"{peak} KiB"
