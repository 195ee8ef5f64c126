"""caisson cp: files in and out of boxes, running or not."""
import io
import os
import pathlib
import resource
import shutil
import stat
import struct
import subprocess
import tarfile

import pytest
from boxes import BASE, HOME, caisson

pytestmark = pytest.mark.keeps

ENTRIES = int(os.environ.get("CAISSON_COPY_ENTRIES", "10000"))


@pytest.fixture
def box(ends_boxes):
    caisson("run", "-d", "--name", "files", BASE, "sleep", "600").ok()
    yield "files"



@pytest.fixture
def place(tmp_path):
    """A directory that root's caisson can pass on: it packs and extracts with the caller's rights."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def in_box(box, script):
    return caisson("exec", box, "sh", "-c", script).ok().text


def make_tree(root):
    """Many files, and one of each kind that trees have."""
    root.mkdir()
    for number in range(ENTRIES):
        directory = root / f"d{number % 97}"
        directory.mkdir(exist_ok=True)
        (directory / f"file-{number}").write_bytes(b"x" * (number % 50))
    (root / "empty").mkdir(mode=0o700)
    with open(root / "sparse", "wb") as file:
        file.truncate(300 << 20)
        file.seek(200 << 20)
        file.write(b"in the middle")
    os.link(root / "sparse", root / "d0" / "hard-link")
    (root / "dangling").symlink_to("/no/such/place")
    (root / "relative").symlink_to("d1/file-1")
    for name in (b" leading and trailing ", b"new\nline", b"\xff\xfe", b"-rf", b"*", "\u00fcml\u00e4ut".encode(), b"x" * 255):
        (root / os.fsdecode(name)).write_bytes(name)
    (root / "d2" / "file-2").chmod(0o640)
    (root / "d3").chmod(0o755)
    os.utime(root / "d4" / "file-4", ns=(10**18 + 123456789, 10**18 + 987654321))
    (root / "read-only").mkdir()
    (root / "read-only" / "file").write_text("kept")
    (root / "read-only").chmod(0o555)


def describe(root):
    """What of a tree has to be equal, by name."""
    found, links = {}, {}
    for directory, names, files in os.walk(os.fsencode(root)):
        for name in names + files:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            entry = [stat.S_IFMT(info.st_mode)]
            if stat.S_ISLNK(info.st_mode):
                entry.append(os.readlink(path))
            else:
                entry.append(stat.S_IMODE(info.st_mode))
            if stat.S_ISREG(info.st_mode):
                entry += [info.st_size, info.st_mtime_ns, info.st_nlink]
                if info.st_size < 1 << 20:
                    entry.append(open(path, "rb").read())
                if info.st_nlink > 1:
                    links.setdefault(info.st_ino, set()).add(os.path.relpath(path, os.fsencode(root)))
            found[os.path.relpath(path, os.fsencode(root))] = entry
    return found, sorted(sorted(names) for names in links.values())


def test_a_large_tree_comes_back_as_it_was(box, place):
    make_tree(place / "tree")
    caisson("cp", str(place / "tree"), f"{box}:/root/", timeout=120).ok()
    assert int(in_box(box, "find /root/tree -type f | wc -l")) > ENTRIES
    assert in_box(box, "tail -c +$((200*1024*1024+1)) /root/tree/sparse | head -c 13") == "in the middle"
    assert int(in_box(box, "stat -c '%b' /root/tree/sparse")) < 2000, "its holes are holes in the box"
    caisson("cp", f"{box}:/root/tree", str(place / "back"), timeout=120).ok()
    assert describe(place / "back") == describe(place / "tree")
    assert os.stat(place / "back" / "sparse").st_blocks < 2000, "and again on the host"


def test_names_are_those_of_docker_cp(box, place):
    (place / "file").write_text("one")
    (place / "tree").mkdir()
    (place / "tree" / "inner").write_text("two")
    caisson("cp", str(place / "file"), f"{box}:/root/renamed").ok()
    caisson("cp", str(place / "file"), f"{box}:/root").ok()
    caisson("cp", str(place / "tree") + "/.", f"{box}:/root").ok()
    assert in_box(box, "cat /root/renamed /root/file /root/inner") == "oneonetwo"
    assert in_box(box, "stat -c %u:%g /root/file") == "0:0\n", "what comes in is root's"
    caisson("cp", f"{box}:/root/renamed", str(place / "out")).ok()
    assert (place / "out").read_text() == "one" and (place / "out").stat().st_uid == os.geteuid()
    missing = caisson("cp", f"{box}:/no/such", str(place / "x"))
    assert missing.code == 125 and "/no" in missing.said and not (place / "x").exists()
    missing = caisson("cp", str(place / "nothing"), f"{box}:/root")
    assert missing.code == 125 and "nothing" in missing.said
    for arguments in ([str(place / "file"), str(place / "x")], [f"{box}:/a", f"{box}:/b"]):
        assert caisson("cp", *arguments).code == 2


def test_a_dash_is_a_tar_archive(box, place):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("from-tar")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    caisson("cp", "-", f"{box}:/root", input=archive.getvalue()).ok()
    assert in_box(box, "cat /root/from-tar") == "hello"
    out = caisson("cp", f"{box}:/root/from-tar", "-").ok().out
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert tar.extractfile("from-tar").read() == b"hello"
    assert subprocess.run(["tar", "tf", "-"], input=out, capture_output=True, check=True).stdout == b"from-tar\n"


def test_links_in_the_box_lead_nowhere_on_the_host(box, place):
    """A tree full of links that point out of it: nothing outside of the target is touched or followed."""
    (place / "victim").mkdir()
    (place / "victim" / "file").write_text("untouched")
    (place / "target").mkdir()
    in_box(box, f"""mkdir -p /root/evil && cd /root/evil &&
        ln -s {place}/victim out && ln -s ../../../../../../../../..{place}/victim up && ln -s /etc/passwd passwd &&
        mkdir real && echo changed > real/file""")
    caisson("cp", f"{box}:/root/evil", str(place / "target")).ok()
    copied = place / "target" / "evil"
    assert os.readlink(copied / "out") == f"{place}/victim" and (copied / "real" / "file").read_text() == "changed\n"
    # A second copy puts directories where links are by now: they are in the way, not followed.
    in_box(box, "cd /root/evil && rm out up && mv real out && mkdir up && echo changed > up/file")
    refused = caisson("cp", f"{box}:/root/evil", str(place / "target"))
    assert refused.code == 125 and "evil/" in refused.said
    assert (place / "victim" / "file").read_text() == "untouched" and os.listdir(place / "victim") == ["file"]


def test_the_target_is_never_a_link_that_a_copy_made(box, place):
    """A box makes of a name first a link that the user copies, then what is to be written through it."""
    (place / "victim").mkdir()
    (place / "victim" / "file").write_text("untouched")
    in_box(box, f"ln -s {place}/victim/file /out.txt; ln -s {place}/victim /tree; ln -s inside /fine")
    planted = caisson("cp", f"{box}:/out.txt", str(place / "out.txt")).ok()
    assert os.readlink(place / "out.txt") == f"{place}/victim/file"
    assert "out.txt leads out of the copy" in planted.said
    assert "leads out of the copy" in caisson("cp", f"{box}:/tree", str(place)).ok().said
    in_box(box, "rm /out.txt /tree; echo changed > /out.txt; mkdir /tree; echo changed > /tree/file")
    assert "replaces a link" in caisson("cp", f"{box}:/out.txt", str(place / "out.txt")).ok().said
    assert (place / "out.txt").read_text() == "changed\n" and not (place / "out.txt").is_symlink()
    for end in ("", "/", "/."):
        for source in ("/tree/.", "/tree", "/tree/file"):
            refused = caisson("cp", f"{box}:{source}", str(place / "tree") + end)
            assert refused.code == 2 and "is a link" in refused.said, refused
    for end in ("/", "/."):
        refused = caisson("cp", str(place / "tree") + end, f"{box}:/root/stolen")
        assert refused.code == 2 and "is a link" in refused.said, refused
    caisson("cp", "-L", str(place / "tree") + "/.", f"{box}:/root/given").ok()
    caisson("cp", str(place / "tree"), f"{box}:/root/link").ok()
    assert in_box(box, "cat /root/given/file; readlink /root/link; ls /root") == f"untouched{place}/victim\ngiven\nlink\n"
    assert (place / "victim" / "file").read_text() == "untouched" and os.listdir(place / "victim") == ["file"]


def test_a_copy_replaces_a_file_by_a_whole_file_or_not_at_all(box, place):
    mine = place / "mine"
    mine.write_text("precious")
    in_box(box, "ln -s /etc/passwd /root/link; mkfifo /root/pipe; head -c 64M /dev/zero > /root/zeros")
    for name in ("link", "pipe"):
        refused = caisson("cp", f"{box}:/root/{name}", str(mine))
        assert refused.code == 125 and "does not replace the file" in refused.said, refused
        assert mine.read_text() == "precious"
    # A file-size limit breaks it off in the middle.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 20, hard))
    try:
        limited = caisson("cp", f"{box}:/root/zeros", str(mine))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert limited.code == 125, limited
    assert mine.read_text() == "precious" and os.listdir(place) == ["mine"]
    caisson("cp", f"{box}:/root/zeros", str(mine)).ok()
    assert mine.stat().st_size == 64 << 20 and os.listdir(place) == ["mine"]


def test_modes_are_masked_unless_all_is_kept(box, place):
    in_box(box, "mkdir -m 777 /root/d; touch /root/d/f; chmod 666 /root/d/f")
    before = os.umask(0o027)
    try:
        caisson("cp", f"{box}:/root/d", str(place / "masked")).ok()
        caisson("cp", "-a", f"{box}:/root/d", str(place / "kept")).ok()
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(os.stat(place / name).st_mode) for name in ("masked", "masked/f", "kept", "kept/f")]
    assert modes == [0o750, 0o640, 0o777, 0o666]


def test_a_box_that_does_not_run(ends_boxes, place):
    """Also one that was never started: its machine is started for the copy, without its command."""
    (place / "file").write_text("before its first start")
    caisson("create", "--name", "resting", BASE, "sh", "-c", "cat /root/file; touch /root/ran; exec sleep 600").ok()
    caisson("cp", str(place / "file"), "resting:/root/file").ok()
    assert caisson("inspect", "--format", "json", "resting").json()[0]["state"] == "created"
    caisson("start", "resting").ok()
    in_box("resting", "until test -e /root/ran; do sleep 0.1; done")
    caisson("stop", "-t", "0", "resting").ok()
    assert "before its first start" in caisson("logs", "resting").ok().text
    (place / "file").write_text("between two lives")
    caisson("cp", str(place / "file"), "resting:/root/file").ok()
    caisson("cp", "resting:/root/ran", str(place / "ran")).ok()
    caisson("cp", "resting:/root/file", str(place / "again")).ok()
    assert (place / "again").read_text() == "between two lives"
    assert caisson("inspect", "--format", "json", "resting").json()[0]["state"] == "stopped"
    caisson("rm", "resting").ok()


def test_a_rewritten_disk_is_told_and_not_shown(ends_boxes, place):
    """Whoever owned QEMU may have given the disk a backing file of its choice."""
    (place / "secret").write_text("the host's own words" * 1000)
    os.chmod(place / "secret", 0o644)
    caisson("create", "--name", "rewritten", BASE, "true").ok()
    (place / "file").write_text("x")
    caisson("cp", str(place / "file"), "rewritten:/root/file").ok()
    identity = caisson("inspect", "--format", "json", "rewritten").json()[0]["id"]
    disk = HOME / "boxes" / identity / "disk.qcow2"
    name = os.fsencode(place / "secret")
    with open(disk, "r+b") as file:
        file.seek(8)
        file.write(struct.pack(">QI", 1024, len(name)))
        file.seek(1024)
        file.write(name)
    for command in (("cp", "rewritten:/root/file", str(place / "out")), ("start", "rewritten")):
        refused = caisson(*command)
        assert refused.code == 125 and "backing file" in refused.said and "own words" not in refused.said, refused
    assert not (place / "out").exists()
    caisson("rm", "rewritten").ok()
