"""Images as people have them, made with umoci and mmdebstrap and pulled from a real registry: each runs, and its root
disk holds exactly what `umoci unpack` makes of it (needs root: it mounts)."""
import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import boxes
import pytest
import registries
from boxes import ASSETS, WORK, caisson
from registries import Registry, tool

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "root"))
describe = importlib.import_module("image_umoci_test").describe

BUSYBOX = "/bin/busybox"


def umoci_image(place, name, layers, **config):
    """An OCI layout by umoci: each of `layers` changes the unpacked root file system, and becomes a layer."""
    layout = f"{place}/{name}"
    tool("umoci", "init", "--layout", layout)
    tool("umoci", "new", "--image", layout + ":1")
    for number, change in enumerate(layers):
        bundle = f"{place}/{name}-bundle"
        tool("umoci", "unpack", "--image", layout + ":1", bundle)
        change(pathlib.Path(bundle, "rootfs"))
        tool("umoci", "repack", "--image", layout + ":1", bundle)
        shutil.rmtree(bundle)
    for key, value in config.items():
        tool("umoci", "config", "--image", layout + ":1", f"--config.{key}", value)
    return f"oci:{layout}:1"


def debian(root):
    tool("tar", "-C", root, "--xattrs", "--xattrs-include=*", "-xpf", f"{ASSETS}/base/rootfs.tar")  # by mmdebstrap


def busybox(root):
    (root / "bin").mkdir()
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in ("sh", "cat", "ls", "stat", "id"):
        os.link(root / "bin/busybox", root / "bin" / name)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    os.symlink("bin", root / "usr-bin")


def distroless(root):
    """One static program, no shell, a user by number."""
    (root / "app").mkdir(mode=0o755)
    shutil.copy(BUSYBOX, root / "app/echo")
    os.chown(root / "app/echo", 65532, 65532)
    os.utime(root / "app/echo", ns=(0, 1_600_000_000_123_456_789))


def many(root):
    counter = root / "counter"
    number = int(counter.read_text()) + 1 if counter.exists() else 0
    (root / f"layer-{number}").write_text(str(number))
    (root / "counter").write_text(str(number))
    if number == 3:
        os.mknod(root / "null", 0o20666, os.makedev(1, 3))
        os.mkfifo(root / "fifo")
        os.setxattr(root / "counter", "user.note", b"hello")
        os.chmod(root / "counter", 0o4755)
    if number == 7:
        os.unlink(root / "layer-2")


IMAGES = {
    "debian": ([debian], {"cmd": "cat"}, ["sh", "-c", "dpkg --status base-files | head -1; python3 -c 'print(6*7)'"], "Package: base-files\n42\n"),
    "busybox": ([busybox], {"cmd": "sh"}, ["sh", "-c", "stat -c %h /bin/sh; id -u"], "6\n0\n"),
    "distroless": ([distroless], {"entrypoint": "/app/echo", "user": "65532:65532"}, ["hello", "from", "nowhere"], "hello from nowhere\n"),
    "many": ([busybox] + [many] * 12, {"cmd": "sh"}, ["sh", "-c", "cat /counter; ls -d /layer-*"],
             "11" + "".join(f"/layer-{n}\n" for n in sorted(range(12), key=str) if n != 2)),
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    if not boxes.IS_ROOT:
        pytest.skip("needs root: owners, devices and mounts")
    registries.check_tools()
    place = tmp_path_factory.mktemp("real")
    server = Registry(place / "registry")
    server.layouts = {}
    for name, (layers, config, _, _) in IMAGES.items():
        server.layouts[name] = umoci_image(place, name, layers, **config)
        server.push(server.layouts[name], f"real/{name}:1")
    server.place = place
    yield server
    server.stop()


@pytest.fixture(scope="module")
def home():
    base = WORK / f"real-{os.getpid()}"
    base.mkdir(mode=0o711)
    (base / "home").mkdir(mode=0o711)
    yield base / "home", boxes.environment(CAISSON_HOME=str(base / "home"), HOME=str(base))
    shutil.rmtree(base)


@pytest.mark.parametrize("name", IMAGES)
def test_it_runs_and_is_what_umoci_unpacks(registry, home, name, tmp_path):
    directory, environment = home
    image = f"{registry.name}/real/{name}:1"
    before = set(os.listdir(directory / "disks")) if (directory / "disks").exists() else set()
    caisson("image", "pull", image, env=environment).ok()
    _, _, command, expected = IMAGES[name]
    assert caisson("run", "--rm", "--pull", "never", image, *command, env=environment, timeout=120).ok().text == expected
    disk, = [entry for entry in os.listdir(directory / "disks") if entry.endswith(".ext4") and entry not in before]
    bundle = tmp_path / "bundle"
    tool("umoci", "unpack", "--image", registry.layouts[name][4:], bundle)
    mount = tmp_path / "mount"
    mount.mkdir()
    tool("mount", "-o", "loop,ro,noload", directory / "disks" / disk, mount)
    try:
        ours = describe(mount)
    finally:
        tool("umount", mount)
    theirs = describe(bundle / "rootfs")
    for tree in (ours, theirs):
        tree[b"."].pop("mtime")  # has no entry of its own in some layers
    assert sorted(ours) == sorted(theirs)
    differing = {path: (ours[path], theirs[path]) for path in ours if ours[path] != theirs[path]}
    assert not differing, json.dumps({str(path): str(pair) for path, pair in list(differing.items())[:5]}, indent=1)
