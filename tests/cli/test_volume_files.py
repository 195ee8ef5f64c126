"""caisson volume import, export, cp, sync, clone: files in and out of volumes, whatever somebody has put into them."""
import io
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import tarfile
import time

import pytest
from boxes import BIN, HOME, IS_ROOT, WORK, caisson, environment, until

VOLUMES = HOME / "volumes"
METADATA = "user.caisson.metadata"


@pytest.fixture(autouse=True)
def no_volumes_stay():
    yield
    for name in caisson("volume", "ls", "-q").ok().lines:
        caisson("volume", "rm", name).ok()
    caisson("volume", "prune").ok()
    for directory in ("named", "anonymous", "info", "space", "boxes", "trash"):
        assert os.listdir(VOLUMES / directory) == [], directory


@pytest.fixture
def place(tmp_path):
    """Closed to everybody but the caller, so that nothing that works as somebody else gets in."""
    tmp_path.chmod(0o700)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def tree(place):
    root = place / "src"
    (root / "d").mkdir(parents=True)
    (root / "d" / "file").write_text("content")
    (root / "d" / "file").chmod(0o640)
    os.link(root / "d" / "file", root / "again")
    (root / "link").symlink_to("/etc/passwd")
    (root / "script").write_text("#!/bin/sh\n")
    (root / "script").chmod(0o755)
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b"x" * 255):
        (root / os.fsdecode(name)).write_bytes(name)
    with open(root / "sparse", "wb") as file:
        file.truncate(100 << 20)
        file.seek(50 << 20)
        file.write(b"middle")
    os.utime(root / "script", ns=(10**18, 10**18 + 5))
    return root


def volume(name):
    return VOLUMES / "named" / name


def exported(name, *options):
    archive = tarfile.open(fileobj=io.BytesIO(caisson("volume", "export", name, *options).ok().out))
    return {member.name: member for member in archive}, archive


def archive_of(*members):
    """A tar archive of (name, type, fields or bytes)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, fields in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            content = fields.pop("content", b"")
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def own(path):
    """As if a box had written it."""
    os.chown(path, HOME.stat().st_uid, HOME.stat().st_gid, follow_symlinks=False)


def test_a_tree_comes_in_as_it_is_and_is_a_copy(tree):
    assert caisson("volume", "import", "src", tree).ok().lines == ["src"]
    members, archive = exported("src")
    assert members["./d/file"].mode == 0o640 and archive.extractfile("./d/file").read() == b"content"
    assert members["./again"].islnk() or members["./d/file"].islnk()
    assert members["./link"].issym() and members["./link"].linkname == "/etc/passwd"
    assert members["./script"].mode == 0o755 and members["./script"].mtime == 10**9
    assert {"./" + os.fsdecode(name) for name in (b"\xff\xfe", b"new\nline", b"-rf")} <= {os.fsdecode(os.fsencode(name)) for name in members}
    assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}
    (tree / "d" / "file").write_text("changed")
    assert (volume("src") / "d" / "file").read_text() == "content", "copied, never linked"
    assert (volume("src") / "sparse").stat().st_blocks * 512 < 1 << 20
    for path in volume("src").rglob("*"):
        info = path.lstat()
        assert info.st_uid == HOME.stat().st_uid
        if not stat.S_ISLNK(info.st_mode):
            assert stat.S_IMODE(info.st_mode) in (0o600, 0o700), "the host's inode is the owner's alone"


def test_one_file_comes_in_under_its_name(place):
    (place / "app.conf").write_text("a=1")
    caisson("volume", "import", "conf", place / "app.conf").ok()
    assert os.listdir(volume("conf")) == ["app.conf"]
    caisson("volume", "import", "conf", place / "app.conf").ok()
    (place / "other.conf").write_text("b=2")
    caisson("volume", "import", "conf", place / "other.conf").ok()
    assert sorted(os.listdir(volume("conf"))) == ["app.conf", "other.conf"]


def test_archives_keep_what_the_guest_made(place):
    data = archive_of(("./", tarfile.DIRTYPE, {"mode": 0o755}),
                      ("./mine", tarfile.REGTYPE, {"mode": 0o644, "uid": 1000, "gid": 1000, "content": b"1"}),
                      ("./theirs", tarfile.REGTYPE, {"mode": 0o4755, "uid": 999, "gid": 998, "content": b"2"}),
                      ("./device", tarfile.CHRTYPE, {"mode": 0o666, "devmajor": 1, "devminor": 3}),
                      ("./pipe", tarfile.FIFOTYPE, {"mode": 0o600}),
                      ("./d", tarfile.DIRTYPE, {"mode": 0o2770, "uid": 33, "gid": 33}))
    caisson("volume", "import", "--keep-owner", "--owner", "1000:1000", "data", "-", input=data).ok()
    assert os.getxattr(volume("data") / "mine", METADATA) == b"1 - - 644 0 0"
    assert os.getxattr(volume("data") / "theirs", METADATA) == b"1 999 998 4755 0 0"
    for path in volume("data").iterdir():
        info = path.lstat()
        assert info.st_uid == HOME.stat().st_uid and stat.S_IMODE(info.st_mode) in (0o600, 0o700)
        assert stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode), path
    members, _ = exported("data", "--owner", "5:6")
    assert (members["./mine"].uid, members["./mine"].gid) == (5, 6)
    assert (members["./theirs"].uid, members["./theirs"].gid, members["./theirs"].mode) == (999, 998, 0o4755)
    assert members["./device"].ischr() and (members["./device"].devmajor, members["./device"].devminor) == (1, 3)
    assert members["./pipe"].isfifo() and members["./d"].mode == 0o2770

    # and through a file, into another volume, it is the same, if the owner has a number that nothing else has
    caisson("volume", "export", "--owner", "1000:1000", "-o", place / "data.tar", "data").ok()
    assert stat.S_IMODE((place / "data.tar").stat().st_mode) == 0o600
    caisson("volume", "import", "--keep-owner", "--owner", "1000:1000", "--tar", "again", place / "data.tar").ok()
    for name in ("mine", "theirs", "device", "pipe", "d"):
        assert os.getxattr(volume("again") / name, METADATA) == os.getxattr(volume("data") / name, METADATA)

    caisson("volume", "import", "plain", "-", input=data).ok()
    assert os.getxattr(volume("plain") / "theirs", METADATA) == b"1 - - 755 0 0", "without --keep-owner"
    assert "exists" in caisson("volume", "export", "-o", place / "data.tar", "data").said


@pytest.mark.parametrize("options", [["-o", "out.tar", "--owner", "1"], ["--owner", "a:b"], ["--owner", "-1:0"], ["--owner", "4294967295:0"]])
def test_export_refuses_owners(options, place):
    caisson("volume", "create", "data").ok()
    refused = caisson("volume", "export", *options, "data", cwd=place)
    assert refused.code == 2 and "UID:GID" in refused.said
    assert os.listdir(place) == []


def test_what_is_missing_is_said(place):
    missing = place / "missing"
    for arguments, word in ((["import", "data", missing], "missing"), (["import", "a/b", place], "a/b"), (["export", "nowhere"], "nowhere"),
                            (["cp", "nowhere:/f", place], "nowhere"), (["cp", place, "nowhere:/f"], "nowhere"), (["clone", "nowhere", "x"], "nowhere"),
                            (["sync", "data", missing], "missing"), (["sync", "--from-volume", "nowhere", place], "nowhere"),
                            (["cp", "a:/x", "b:/y"], "both places"), (["cp", ":/x", "."], "no volume"), (["cp", "./a", "./b"], "neither place")):
        refused = caisson("volume", *arguments)
        assert refused.code != 0 and word in refused.said, refused
    assert caisson("volume", "ls", "-q").lines == []
    caisson("volume", "create", "data").ok()
    for arguments in (["cp", "data:/f", place], ["cp", "data:/d/f", place], ["cp", place / "missing", "data:/f"], ["cp", place, "data:/d/f"]):
        refused = caisson("volume", *arguments)
        assert refused.code == 125, refused
    exists = caisson("volume", "clone", "data", "data")
    assert exists.code == 125 and "already" in exists.said
    assert os.listdir(place) == os.listdir(volume("data")) == []


def test_cp_as_docker_does(tree, place):
    caisson("volume", "create", "data").ok()
    caisson("volume", "cp", tree, "data:/").ok()
    assert (volume("data") / "src" / "d" / "file").read_text() == "content"
    caisson("volume", "cp", tree, "data:new").ok()
    assert (volume("data") / "new" / "d" / "file").exists()
    caisson("volume", "cp", f"{tree}/.", "data:/").ok()
    assert (volume("data") / "d" / "file").exists()
    caisson("volume", "cp", "data:/src/d/file", place / "got").ok()
    assert (place / "got").read_text() == "content" and (place / "got").stat().st_uid == os.getuid()
    (place / "out").mkdir()
    caisson("volume", "cp", "-q", "data:/src", place / "out").ok()
    assert (place / "out" / "src" / "link").is_symlink() and (place / "out" / "src" / "script").stat().st_mode & 0o111
    names = tarfile.open(fileobj=io.BytesIO(caisson("volume", "cp", "data:/src/d", "-").ok().out)).getnames()
    assert sorted(names) == ["d", "d/file"]
    caisson("volume", "cp", "-", "data:/d", input=archive_of(("f", tarfile.REGTYPE, {"content": b"x"}))).ok()
    assert (volume("data") / "d" / "f").read_text() == "x"


def hostile_volume(place):
    """What a box could have made of its volume: links that lead out in all directions."""
    precious = place / "precious"
    precious.mkdir()
    (precious / "secret").write_text("secret")
    (precious / "secret").chmod(0o644)
    for path in (precious, place):
        path.chmod(0o755)
    caisson("volume", "create", "data").ok()
    root = volume("data")
    for name, target in (("out", precious), ("file", precious / "secret"), ("up", "../../../../.."), ("deep", "d/../../..")):
        (root / name).symlink_to(target)
        own(root / name)
    return root, precious


def test_links_in_a_volume_lead_nowhere(place):
    """Two-sided: see volume_copy_beneath."""
    root, precious = hostile_volume(place)
    (place / "mine").write_text("mine")
    for arguments in (["cp", "data:/out/secret", place / "got"], ["cp", "data:/out/.", place / "got"], ["cp", "data:/up/etc/passwd", place / "got"],
                      ["cp", place / "mine", "data:/out/new"], ["cp", place / "mine", "data:/out/"], ["cp", place / "mine", "data:/up/tmp/new"]):
        refused = caisson("volume", *arguments)
        assert refused.code in (2, 125), refused
        assert not (place / "got").exists() and os.listdir(precious) == ["secret"]
    # An archive that goes through them, and links that are in the way of files.
    for name in ("out/new", "out/secret", "../new", "/../new", "up/tmp/new"):
        assert caisson("volume", "cp", "-", "data:/", input=archive_of((name, tarfile.REGTYPE, {"content": b"x"}))).code != 0, name
    caisson("volume", "cp", "-", "data:/", input=archive_of(("file", tarfile.REGTYPE, {"content": b"x"}))).ok()
    assert (precious / "secret").read_text() == "secret" and (root / "file").read_text() == "x"
    for name in ("hard-link", "file"):
        caisson("volume", "cp", "-", "data:/", input=archive_of((name, tarfile.LNKTYPE, {"linkname": "out/secret"})))
    assert (precious / "secret").stat().st_nlink == 1 and os.listdir(precious) == ["secret"]
    (precious / "more").write_text("x")
    caisson("volume", "sync", "data", precious).ok()
    members, _ = exported("data")
    assert members["./out"].issym() and members["./up"].issym() and not any("passwd" in name for name in members)
    caisson("volume", "clone", "data", "second").ok()
    assert (volume("second") / "out").is_symlink()
    assert caisson("volume", "df", "--format", "json").json()["used_bytes"] < 1 << 20


def test_removing_and_syncing_follow_no_link(place):
    root, precious = hostile_volume(place)
    source = place / "source"
    source.mkdir()
    (source / "f").write_text("x")
    caisson("volume", "sync", "--delete", "data", source).ok()
    assert os.listdir(root) == ["f"] and (precious / "secret").read_text() == "secret"
    (root / "out").symlink_to(precious)
    own(root / "out")
    target = place / "target"
    target.mkdir()
    (target / "out").mkdir()
    (target / "out" / "old").write_text("x")
    caisson("volume", "sync", "-q", "--from-volume", "--delete", "data", target).ok()
    assert (target / "out").is_symlink() and os.listdir(precious) == ["secret"]
    caisson("volume", "rm", "data").ok()
    assert (precious / "secret").read_text() == "secret"


def test_trees_without_end_are_counted_and_removed():
    """A box may nest directories as deep as it likes; what cannot be exported is said, and nothing hangs."""
    caisson("volume", "create", "deep").ok()
    here = os.open(volume("deep"), os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("d", 0o700, dir_fd=here)
        os.chown("d", HOME.stat().st_uid, HOME.stat().st_gid, dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert caisson("volume", "inspect", "--format", "json", "deep").json()[0]["used_bytes"] >= 2500 * 4096
    for arguments in (["export", "deep"], ["clone", "deep", "second"]):
        refused = caisson("volume", *arguments)
        assert refused.code == 125 and "too long" in refused.said, refused
    assert caisson("volume", "ls", "-q").lines == ["deep"]
    caisson("volume", "rm", "deep").ok()


def test_the_limit_of_a_volume_holds(place):
    (place / "large").write_bytes(os.urandom(3 << 20))
    full = caisson("volume", "import", "--size", "2M", "data", place / "large")
    assert full.code == 125 and "limit of 2.0 MiB" in full.said, full
    assert caisson("volume", "ls", "-q").lines == []
    caisson("volume", "create", "--size", "5M", "data").ok()
    caisson("volume", "import", "data", place / "large").ok()
    for arguments in (["cp", place / "large", "data:/second"], ["import", "data", place]):
        if arguments[0] == "import":
            (place / "second").write_bytes(os.urandom(3 << 20))
        full = caisson("volume", *arguments)
        assert full.code == 125 and "limit of 5.0 MiB" in full.said, full
        assert caisson("volume", "inspect", "--format", "json", "data").json()[0]["used_bytes"] <= 5 << 20
        assert not any(name.startswith(".caisson") for name in os.listdir(volume("data")))
    again = caisson("volume", "cp", place / "large", "data:/")
    assert again.code == 125, "the old one stays until the new one is complete, so there has to be room for both"
    (place / "small").write_bytes(os.urandom(1 << 19))
    for _ in range(5):
        caisson("volume", "cp", place / "small", "data:/").ok()
    caisson("volume", "clone", "data", "second").ok()
    assert caisson("volume", "inspect", "--format", "json", "second").json()[0]["size_bytes"] == 5 << 20


def test_a_broken_archive_leaves_no_volume():
    data = archive_of(("a", tarfile.REGTYPE, {"content": b"x" * 5000}), ("b", tarfile.REGTYPE, {"content": b"x" * 5000}))
    for broken in (data[:7000], b"", b"no archive at all" * 100):
        assert caisson("volume", "import", "data", "-", input=broken).code != 0
        assert caisson("volume", "ls", "-q").lines == []
    assert os.listdir(VOLUMES / "trash") == []


@pytest.mark.skipif(not IS_ROOT, reason="only root mounts a disk that is full in a moment")
def test_a_full_disk_leaves_nothing_half_made(place):
    (place / "large").write_bytes(os.urandom(8 << 20))
    disk = WORK / "small-disk"  # where the service user gets to
    disk.mkdir()
    script = f"""
        set -e
        mount -t tmpfs -o size=6M,mode=755 none {disk}
        export CAISSON_HOME={disk}/home
        caisson() {{ {BIN} "$@" || echo "code $?"; }}
        caisson volume create data
        caisson volume import data {place}/large
        caisson volume import new {place}/large
        caisson volume cp {place}/large data:/x
        head -c 8M /dev/zero > {disk}/fill || true
        caisson volume create more
        caisson volume clone data more
        caisson volume ls -q
        caisson volume rm data
        find $CAISSON_HOME/volumes -mindepth 2
    """
    done = subprocess.run(["unshare", "-m", "bash", "-c", script], env=environment(), capture_output=True, text=True, timeout=60)
    disk.rmdir()
    assert done.stdout.split("\n") == ["data", "code 125", "code 125", "code 125", "code 125", "code 125", "data", "data", ""], done
    assert done.stderr.count("No space left") >= 5, done


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_half_way_nothing_is_there(number):
    """The archive never ends; the one who reads it is killed."""
    read, write = os.pipe()
    try:
        with subprocess.Popen([BIN, "volume", "import", "data", "-"], stdin=read, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              env=environment()) as process:
            os.write(write, archive_of(("a", tarfile.REGTYPE, {"content": b"x" * 50000}))[:40000])
            until(lambda: any(any(pathlib.Path(path).iterdir()) for path in (VOLUMES / "trash").iterdir()), what="files")
            assert caisson("volume", "ls", "-q").lines == [] and len(os.listdir(VOLUMES / "trash")) == 1, "others leave it alone"
            process.send_signal(number)
            process.wait(10)
    finally:
        os.close(read)
        os.close(write)
    until(lambda: caisson("volume", "ls", "-q").lines == [] and os.listdir(VOLUMES / "trash") == [], what="it is swept")


def test_a_clone_is_a_second_one(tree):
    caisson("volume", "import", "--size", "50M", "data", tree).ok()
    assert caisson("volume", "clone", "data", "copy").ok().lines == ["copy"]
    one, two = exported("data")[0], exported("copy")[0]
    assert {name: (member.mode, member.mtime, member.size, member.type) for name, member in one.items() if not member.islnk()}.keys() >= {"./script"}
    assert sorted(one) == sorted(two)
    (volume("data") / "script").write_text("changed")
    assert (volume("copy") / "script").read_text() == "#!/bin/sh\n"
    assert os.getxattr(volume("copy") / "script", METADATA) == b"1 - - 755 0 0"


def said_of(process):
    return process.stderr.readline().decode()


def test_sync_copies_what_changed(tree, place):
    first = caisson("volume", "sync", "src", tree).ok()
    assert "synced: " in first.said and ", 0 removed" in first.said
    again = caisson("volume", "sync", "src", tree).ok()
    assert "synced: 0 changed, 0 removed" in again.said, again
    inode = (volume("src") / "script").stat().st_ino
    (tree / "d" / "file").write_text("other content")
    (tree / "script").chmod(0o700)
    (volume("src") / "guests").write_text("x")
    own(volume("src") / "guests")
    assert ", 0 removed" in caisson("volume", "sync", "src", tree).ok().said
    assert (volume("src") / "d" / "file").read_text() == "other content" and (volume("src") / "guests").exists()
    assert (volume("src") / "script").stat().st_ino == inode and os.getxattr(volume("src") / "script", METADATA) == b"1 - - 700 0 0"
    removed = caisson("volume", "sync", "--delete", "src", tree).ok()
    assert ", 1 removed" in removed.said and not (volume("src") / "guests").exists()

    target = place / "target"
    target.mkdir()
    (target / "mine").write_text("x")
    caisson("volume", "sync", "--from-volume", "src", target).ok()
    assert (target / "d" / "file").read_text() == "other content" and (target / "mine").exists()
    assert (target / "script").stat().st_uid == os.getuid() and (target / "script").stat().st_mode & 0o777 == 0o700
    caisson("volume", "sync", "-q", "--from-volume", "--delete", "src", target).ok()
    assert sorted(os.listdir(target)) == sorted(os.listdir(tree))
    # What was a file is a directory now, and the other way round.
    shutil.rmtree(tree / "d")
    (tree / "d").write_text("file")
    (tree / "script").unlink()
    (tree / "script" / "below").mkdir(parents=True)
    assert caisson("volume", "sync", "src", tree).code == 2
    caisson("volume", "sync", "--delete", "src", tree).ok()
    assert (volume("src") / "d").read_text() == "file" and (volume("src") / "script" / "below").is_dir()


@pytest.mark.parametrize("back", [False, True])
def test_sync_goes_on_with_what_changes(back, place):
    """What is written appears on the other side within moments, in directories that are made meanwhile, too."""
    host = place / "host"
    host.mkdir()
    caisson("volume", "create", "data").ok()
    source, target = (volume("data"), host) if back else (host, volume("data"))
    options = ["--from-volume"] if back else []
    with subprocess.Popen([BIN, "volume", "sync", "--watch", "--delete", *options, "data", host], stderr=subprocess.PIPE, env=environment()) as process:
        try:
            assert "synced: " in said_of(process)
            for number in range(3):
                (source / f"d{number}" / "deeper").mkdir(parents=True)
                time.sleep(0.3)
                (source / f"d{number}" / "deeper" / "file").write_text(f"content {number}")
                for path in (source / f"d{number}", source / f"d{number}" / "deeper", source / f"d{number}" / "deeper" / "file"):
                    if back:
                        own(path)
                copy = target / f"d{number}" / "deeper" / "file"
                until(lambda copy=copy, number=number: copy.exists() and copy.read_text() == f"content {number}", what=f"{copy}")
            (source / "d0" / "deeper" / "file").write_text("rewritten")
            until(lambda: (target / "d0" / "deeper" / "file").read_text() == "rewritten", what="a new version")
            shutil.rmtree(source / "d1")
            until(lambda: not (target / "d1").exists(), what="removal")
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)
    until(lambda: not [line for line in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()
                       if "caisson-copy" in line and "again" in line], what="no process stays")


def test_root_reads_as_root_and_others_read_nothing(place):
    """The caller's files are read with the caller's rights, though everything else is done as the service user."""
    (place / "closed").mkdir(mode=0o700)
    (place / "closed" / "secret").write_text("x")
    (place / "closed" / "secret").chmod(0o600)
    caisson("volume", "import", "data", place / "closed").ok()
    assert (volume("data") / "secret").read_text() == "x"
    caisson("volume", "sync", "data", place / "closed").ok()
    caisson("volume", "cp", place / "closed" / "secret", "data:/again").ok()
    caisson("volume", "cp", "data:/again", place / "closed" / "back").ok()
    assert (place / "closed" / "back").stat().st_uid == os.getuid()
    if not IS_ROOT:
        closed = caisson("volume", "import", "other", "/etc/shadow")
        assert closed.code == 125 and caisson("volume", "ls", "-q").lines == ["data"]
