#!/usr/bin/env python3
"""The same layers through caisson-unpack (then mounted) and through `umoci unpack`: both trees must be equal in names,
types, content, owners, modes, times, links, devices and extended attributes; e2fsck must find nothing.

Needs root: it mounts. usage: image_umoci_test.py CAISSON_UNPACK [unittest arguments]
"""
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

from image_layers import BLOCK, CHARACTER, FIFO, Tar, digest, write_layout

UNPACK = ""
SEEDS = int(os.environ.get("CAISSON_IMAGE_SEEDS", "40"))
DISK_BYTES = 256 << 20
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ACL = bytes.fromhex("02000000" "01000600ffffffff" "0200070064000000" "04000400ffffffff" "10000700ffffffff" "20000400ffffffff")


def run_unpack(layers, image, size=DISK_BYTES, diff_ids=True):
    """caisson-unpack disk; its last line as (kind, object)."""
    files = [tempfile.TemporaryFile() for _ in layers]
    for file, layer in zip(files, layers):
        file.write(layer)
        file.flush()
    request = {"virtual_size_bytes": size, "identity": "test",
               "layers": [{"digest": digest(layer), "size": len(layer),
                           **({"diff_id": digest(layer)} if diff_ids else {})} for layer in layers]}
    with open(image, "w+b") as output:
        wanted = {3 + i: fd for i, fd in enumerate([output.fileno()] + [file.fileno() for file in files])}

        def arrange():
            copies = {target: os.dup2(fd, 500 + target) for target, fd in wanted.items()}
            for target, fd in copies.items():
                os.dup2(fd, target)

        process = subprocess.Popen([UNPACK, "disk"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   preexec_fn=arrange, close_fds=False)
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()  # and stays open: its end would end the process
        lines = process.stdout.read().splitlines()
        process.stdin.close()
        code = process.wait(timeout=300)
    for file in files:
        file.close()
    (kind, value), = json.loads(lines[-1]).items()
    assert (code == 0) == (kind == "result"), (code, lines)
    return kind, value


def describe(root):
    """Path → everything about it that must be equal."""
    found, names = {}, {}
    for directory, _, _ in os.walk(os.fsencode(root)):
        for name in [b"."] + os.listdir(directory):
            path = os.path.join(directory, name) if name != b"." else directory
            relative = os.path.relpath(path, os.fsencode(root))
            if relative in found:
                continue
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            facts = {"mode": oct(info.st_mode), "owner": (info.st_uid, info.st_gid), "mtime": info.st_mtime_ns}
            facts["xattrs"] = {key: os.getxattr(path, key, follow_symlinks=False)
                               for key in os.listxattr(path, follow_symlinks=False)}
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    facts["content"] = digest(file.read())
                facts["size"] = info.st_size
            elif kind == stat.S_IFLNK:
                facts["target"] = os.readlink(path)
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                facts["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
            if kind != stat.S_IFDIR:
                facts["links"] = info.st_nlink
                names.setdefault(info.st_ino, []).append(relative)
            found[relative] = facts
    for group in names.values():
        for name in group:
            found[name]["same file as"] = sorted(group)
    return found


class Trees(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="image-umoci-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def ours(self, layers, size=DISK_BYTES):
        image, mount = self.path("disk.ext4"), self.path("mount")
        kind, value = run_unpack(layers, image, size)
        self.assertEqual(kind, "result", value)
        checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True)
        self.assertEqual(checked.returncode, 0, checked.stdout)
        os.makedirs(mount, exist_ok=True)
        subprocess.run(["mount", "-o", "loop,ro,noload", image, mount], check=True)
        try:
            return describe(mount)
        finally:
            subprocess.run(["umount", mount], check=True)

    def umoci(self, layers):
        layout, bundle = self.path("layout"), self.path("bundle")
        write_layout(layout, layers)
        subprocess.run(["umoci", "unpack", "--image", layout + ":test", bundle], check=True, capture_output=True)
        return describe(os.path.join(bundle, "rootfs"))

    def compare(self, *layers, ignore_times=(b".",)):
        layers = [layer.bytes() if isinstance(layer, Tar) else layer for layer in layers]
        ours, theirs = self.ours(layers), self.umoci(layers)
        for tree in (ours, theirs):
            for name in ignore_times:  # made without an entry of their own: umoci gives them the present
                tree.get(name, {}).pop("mtime", None)
        self.assertEqual(sorted(ours), sorted(theirs))
        for name in ours:
            self.assertEqual(ours[name], theirs[name], name)
        return ours

    def test_three_layers_with_everything(self):
        base = (Tar().directory("./", mode=0o755).directory("etc").file("etc/passwd", b"root:x:0:0\n")
                .directory("usr").directory("usr/lib").symlink("lib", "usr/lib").file("usr/lib/libc.so", b"c" * 70_000)
                .directory("gone").file("gone/a", b"1").directory("gone/deep").file("gone/deep/b", b"2")
                .directory("opaque").file("opaque/old", b"old").directory("opaque/olddir").file("opaque/olddir/x", b"x")
                .file("becomes-directory", b"file").directory("becomes-file").file("becomes-file/inside", b"i")
                .file("linked", b"shared content").hardlink("link-in-layer", "linked")
                .file("hidden-target", b"survives through its link").hardlink("link-to-hidden", "hidden-target")
                .file("setuid", b"s", mode=0o4755).directory("tmp", mode=0o1777).file("setgid", b"g", mode=0o2755)
                .add("null", CHARACTER, major=1, minor=3, mode=0o666).add("big-device", BLOCK, major=259, minor=70_000)
                .add("fifo", FIFO).symlink("long-link", "t" * 200).symlink("fast-link", "f" * 59)
                .symlink("slow-link", "s" * 60)
                .file("owner", b"o", uid=100_000, gid=4_000_000_000).file("times", b"t", mtime=1_234_567_890, nanoseconds=987_654_321)
                .file("before-epoch", b"e", mtime=-1000).file("after-2038", b"e", mtime=5_000_000_000)
                .file("xattr", b"x", xattrs={"user.note": b"hello\0world", "security.capability": CAPABILITY,
                                             "trusted.mark": b"t"})
                .file("acl", b"a", mode=0o674, xattrs={"system.posix_acl_access": ACL})
                .file("empty"))
        middle = (Tar().whiteout("gone").directory("opaque").opaque("opaque").file("opaque/new", b"new")
                  .directory("becomes-directory").file("becomes-directory/now", b"n")
                  .file("becomes-file", b"now a file").whiteout("hidden-target")
                  .hardlink("link-across-layers", "linked").file("usr/lib/added", b"added"))
        top = (Tar().directory("gone", mode=0o700).file("gone/again", b"again").file("etc/passwd", b"changed\n", mode=0o600)
               .file("linked", b"another file now").whiteout("etc/missing"))
        tree = self.compare(base, middle, top)
        self.assertIn(b"link-to-hidden", tree)
        self.assertNotIn(b"hidden-target", tree)
        self.assertNotIn(b"gone/a", tree)

    def test_names_of_any_bytes_and_lengths(self):
        layer = (Tar().file("caf\u00e9", b"1").file("cafe\u0301", b"2").file(b"latin-\xe9", b"3").file(b"\xff\xfe", b"4")
                 .file("n" * 255, b"5").file("\u65e5\u672c/" + "d" * 200 + "/file", b"6")
                 .file("gnu/" + "g" * 250, b"7", long_names="gnu").file(b"gnu-\xe9", b"8", long_names="gnu")
                 .symlink("to", b"\xe9" * 300).symlink("gnu-to", "x" * 400, long_names="gnu")
                 .file("new\nline", b"9").file("tab\t ", b"10").hardlink("hard-\u00e9", "caf\u00e9"))
        self.compare(layer, ignore_times=(b".", "\u65e5\u672c".encode(), ("\u65e5\u672c/" + "d" * 200).encode(), b"gnu"))

    def test_entries_below_links_of_lower_layers_land_in_their_targets(self):
        base = (Tar().directory("usr").directory("usr/lib").directory("usr/bin").symlink("lib", "usr/lib")
                .symlink("bin", "/usr/bin").symlink("deep", "lib/../../../../usr/bin").symlink("usr/local", "../srv")
                .directory("srv").file("usr/lib/old", b"old").file("usr/lib/replaced", b"old").file("usr/bin/dropped", b"d"))
        top = (Tar().file("lib/new", b"new").file("lib/replaced", b"new").whiteout("bin/dropped").file("deep/through", b"t")
               .file("usr/local/etc/conf", b"c").file("lib/sub/dir/file", b"f"))
        self.compare(base, top, ignore_times=(b".", b"srv", b"srv/etc", b"usr/lib", b"usr/lib/sub", b"usr/lib/sub/dir"))

    def test_many_entries_in_one_directory(self):
        layer = Tar().directory("many")
        for i in range(5000):
            layer.file(f"many/entry-{i:05}-" + "x" * (i % 120), b"%d" % i)
        self.compare(layer)

    def test_large_and_awkward_sizes(self):
        layer = Tar()
        for size in (1, 511, 512, 513, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1, 40 << 20):
            layer.file(f"size-{size}", random.Random(size).randbytes(size))
        layer.file("zeros", b"\0" * (3 << 20)).file("half-zero", b"\0" * 100_000 + b"end")
        self.compare(layer)

    def test_random_layers(self):
        for seed in range(SEEDS):
            with self.subTest(seed=seed):
                self.directory = tempfile.mkdtemp(prefix="image-umoci-")
                try:
                    layers = random_layers(random.Random(seed))
                    self.compare(*layers, ignore_times=(b".",))
                finally:
                    shutil.rmtree(self.directory, ignore_errors=True)


def random_layers(rng):
    """Layers such as a build makes them: every entry valid in what lies below it."""
    names = ["a", "b", "c", "d"]
    state = {"": "d"}  # path → kind: d(irectory), f(ile), l(ink)
    layers = []
    for number in range(rng.randint(1, 5)):
        tar, seen = Tar(), set()

        def new_path():
            directories = [path for path, kind in state.items() if kind == "d" and path not in removed]
            parent = rng.choice(directories)
            return (parent + "/" if parent else "") + rng.choice(names)

        def drop(path):
            for other in [p for p in state if p == path or p.startswith(path + "/")]:
                del state[other]

        removed = set()
        for entry in range(rng.randint(1, 14)):
            path = new_path()
            if path in seen or path.count("/") > 4:
                continue
            if any(other.startswith(path + "/") for other in seen):
                continue
            # What a build records: the directories on the way have entries too.
            parent = path.rpartition("/")[0]
            stamp = dict(mtime=1_000_000 + number * 1000 + entry, uid=number, gid=entry)
            action = rng.choice("ffffddshhwwo")
            files = [p for p, kind in state.items() if kind == "f" and p != path and not p.startswith(path + "/")]
            if action == "w":
                if path in state and number > 0:
                    tar.whiteout(path)
                    drop(path)
                    seen.add(path)
                continue
            if action == "o":
                if state.get(path) == "d" and number > 0:
                    tar.directory(path, **stamp).opaque(path)
                    drop(path)
                    state[path] = "d"
                    seen.add(path)
                continue
            if action == "h":
                if files:
                    target = rng.choice(files)
                    drop(path)
                    tar.hardlink(path, target)
                    state[path] = "f"
                    seen.add(path)
                continue
            seen.add(path)
            if action == "d":
                if state.get(path) != "d":
                    drop(path)
                tar.directory(path, mode=rng.choice([0o755, 0o700, 0o1777]), **stamp)
                state[path] = "d"
            elif action == "s":
                drop(path)
                tar.symlink(path, rng.choice(["a", "../b", "/c/d", "nowhere"]), **stamp)
                state[path] = "l"
            else:
                drop(path)
                tar.file(path, rng.randbytes(rng.choice([0, 10, 5000])), **stamp)
                state[path] = "f"
            del parent
        layers.append(tar)
    return layers


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("skipped: needs root")
        sys.exit(77)
    for tool, package in (("umoci", "umoci"), ("e2fsck", "e2fsprogs")):
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing; install it: sudo apt-get install {package}")
    UNPACK = sys.argv.pop(1)
    unittest.main(verbosity=2)
