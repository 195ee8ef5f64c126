"""What -v, --mount and --copy take and refuse, what is left behind, and how mounts are shown. What is in the volumes is not
looked at here."""
import hashlib
import io
import json
import tarfile

import pytest
from boxes import BASE, HOME, TINY_ARCHIVE, box_ids, caisson, inspect, run

VOLUMES = HOME / "volumes"


def volumes(kind):
    place = VOLUMES / kind
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = {kind: volumes(kind) for kind in ("named", "anonymous", "boxes", "info", "space")}
    boxes = box_ids()
    yield
    assert box_ids() == boxes
    for kind, names in before.items():
        if kind not in ("named", "info", "space"):
            assert volumes(kind) == names, kind


@pytest.fixture
def named():
    """Names of volumes that a test makes: gone at its end."""
    names = []
    yield names
    for name in names:
        for kind in ("named", "info", "space"):
            place = VOLUMES / kind / name
            if place.is_dir():
                for path in sorted(place.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
                place.rmdir()
            elif place.exists():
                place.unlink()


def refused(*options, command=("create",), code=2):
    done = caisson(*command, "--pull", "never", *options, BASE, "true")
    assert done.code == code, done
    assert done.out == b"", done
    return done.said


@pytest.mark.parametrize("text, message, hint", [
    ("/etc:/x", "'/etc' is a path of the host", "caisson volume import etc /etc\n    -v etc:/x"),
    ("/etc/hostname:/x:ro", "'/etc/hostname' is a path of the host", "caisson volume import hostname /etc/hostname\n    -v hostname/hostname:/x:ro"),
    ("./src:/work", "'./src' is a path of the host", "caisson volume import src ./src\n    -v src:/work"),
    (".:/work", "'.' is a path of the host", "caisson volume import data .\n    -v data:/work"),
    ("data", "the path in the box is relative: 'data'", "-v /data\n"),
    ("data:ro", "the path in the box is relative: 'data'", "-v /data:ro\n"),
    ("data:rw", "the path in the box is relative: 'data'", "-v /data:rw\n"),
    ("vol:data", "the path in the box is relative: 'data'", "-v vol:/data\n"),
    ("/", "nothing can be mounted at / of a box", "choose a directory below it"),
    ("vol:/", "nothing can be mounted at / of a box", "choose a directory below it"),
    ("vol:/a/../b", "the path in the box has a part '..'", "write it without"),
    ("vol:/a//b", "the path in the box has an empty part", "write it without"),
    ("vol/../x:/a", "the path in the volume has a part '..'", "write it without"),
    (":/a", "the part before the first ':' is empty", "-v VOLUME:/TARGET"),
    ("vol:", "the part behind the first ':' is empty", "-v VOLUME:/TARGET"),
    ("-vol:/a", "'-vol' cannot be the name of a volume", "use a letter or digit"),
    ("vol:/a:rshared", "unknown option 'rshared'", "known are ro, rw, noexec, nosuid and nodev"),
    ("vol:/a:ro,rw", "it cannot be both ro and rw", "leave one of them out"),
    ("a:/b:ro:x", "it has more than three parts", "-v VOLUME:/TARGET"),
])
def test_what_v_refuses_and_what_to_write_instead(text, message, hint):
    before = volumes("named")
    said = refused(f"--volume={text}")
    assert f"-v '{text}'" in said and message in said and hint in said, said
    assert volumes("named") == before


@pytest.mark.parametrize("text, message", [
    ("type=bind,src=/srv,dst=/x", "'/srv' is a path of the host"),
    ("type=volume,src=/srv,dst=/x", "'/srv' is a path of the host"),
    ("type=volume,src=v,dst=x", "the path in the box is relative: 'x'"),
    ("type=volume,src=v", "it has no dst"),
    ("type=volume,src=v,dst=/x,volume-driver=nfs", "unknown option 'volume-driver'"),
    ("type=tmpfs,src=v,dst=/x", "'src' is for a volume"),
    ("type=npipe,dst=/x", "there is no type 'npipe'"),
])
def test_what_mount_refuses(text, message):
    assert message in refused("--mount", text)


def test_two_things_at_one_place_are_refused():
    assert "/a is mounted twice: the volume 'v' and the volume 'w'" in refused("-v", "v:/a", "-v", "w:/a")
    assert "a tmpfs and the volume 'v'" in refused("-v", "v:/a", "--tmpfs", "/a/")
    assert "a tmpfs and a volume of its own" in refused("--mount", "dst=/a", "--mount", "type=tmpfs,dst=/a")
    assert volumes("named") == volumes("named")


def test_the_whole_list_counts_before_anything_is_made():
    """-v /data alone would make a directory."""
    before = sorted(str(path) for path in HOME.rglob("*") if ".db" not in path.name)
    for command in (("create",), ("run",), ("run", "-d"), ("run", "--dry-run")):
        refused("-v", "/data", "-v", "good:/good", "-v", "/etc:/x", command=command)
        refused("-v", "/data", "-v", "good:/good", "--mount", "dst=/data", command=command)
        refused("-v", "/data", "-v", "good:/good", "-v", "missing/part:/x", command=command, code=125)
    assert sorted(str(path) for path in HOME.rglob("*") if ".db" not in path.name) == before


def test_a_failure_later_undoes_what_was_made(named):
    """The volumes are there before it turns out that there is no such command. Without --rm the box stays, and they with it."""
    named.append("grammar-kept")
    caisson("rm", caisson("create", "--pull", "never", "-v", "grammar-kept:/x", BASE, "true").ok().text.strip()).ok()
    for options in (("--rm",), ("-d", "--rm")):
        done = caisson("run", "--pull", "never", *options, "-v", "/data", "-v", "grammar-new:/x", "-v", "grammar-kept:/y", BASE, "/no/such/command")
        assert done.code == 127, done
        assert "grammar-new" not in volumes("named") and "grammar-new" not in volumes("info") and volumes("anonymous") == []
        assert "grammar-kept" in volumes("named")


def test_a_box_that_cannot_be_made_makes_no_volume():
    caisson("create", "--pull", "never", "--name", "grammar-there", BASE, "true").ok()
    try:
        done = caisson("create", "--pull", "never", "--name", "grammar-there", "-v", "/data", "-v", "grammar-new:/x", BASE, "true")
        assert done.code == 125 and "grammar-there" in done.said
        assert "grammar-new" not in volumes("named") and volumes("anonymous") == []
    finally:
        caisson("rm", "grammar-there").ok()


def test_anonymous_volumes_go_with_a_box_that_ran(named):
    named.append("grammar-ran")
    caisson("run", "--rm", "--pull", "never", "-v", "/data", "-v", "grammar-ran:/x", BASE, "true").ok()
    assert volumes("anonymous") == [] and "grammar-ran" in volumes("named")


def test_a_part_must_exist():
    said = refused("-v", "grammar-none/etc/app.conf:/etc/app.conf", code=125)
    assert "there is no volume 'grammar-none'" in said


def test_inspect_shows_what_is_mounted(named):
    named.append("grammar-data")
    box = caisson("create", "--pull", "never", "-v", "grammar-data:/data:ro,nosuid", "-v", "/own", "--mount", "type=tmpfs,dst=/tmp,size=1M",
                  "--mount", "src=grammar-data,dst=/a/b,noexec", BASE, "true").ok().text.strip()
    try:
        mounts = inspect(box)["mounts"]
        own = mounts[2].pop("volume")
        plain = {"anonymous": False, "subpath": None, "read_only": False, "no_exec": False, "no_suid": False, "attached": False}
        assert mounts == [
            {**plain, "type": "volume", "volume": "grammar-data", "target": "/a/b", "no_exec": True},
            {**plain, "type": "volume", "volume": "grammar-data", "target": "/data", "read_only": True, "no_suid": True},
            {**plain, "type": "volume", "target": "/own", "anonymous": True},
            {**plain, "type": "tmpfs", "volume": None, "target": "/tmp", "no_exec": True, "no_suid": True}]
        assert volumes("anonymous") == [own] and "grammar-data" in volumes("named")
        text = caisson("inspect", box).ok().text
        assert "/data: volume grammar-data, read-only, nosuid" in text and f"/own: a volume of its own ({own})" in text and "/tmp: tmpfs" in text
        for path in (VOLUMES / "anonymous" / own, VOLUMES / "named" / "grammar-data"):
            assert path.stat().st_mode & 0o777 == 0o700
    finally:
        caisson("rm", box).ok()
    assert volumes("anonymous") == [] and "grammar-data" in volumes("named"), "anonymous ones go with the box, named ones stay"


def test_one_name_is_one_volume(named):
    named.append("grammar-one")
    boxes = [caisson("create", "--pull", "never", "-v", "grammar-one:/data", BASE, "true").ok().text.strip() for _ in range(2)]
    inode = (VOLUMES / "named" / "grammar-one").stat().st_ino
    caisson("rm", *boxes).ok()
    assert (VOLUMES / "named" / "grammar-one").stat().st_ino == inode


def test_dry_run_shows_mounts_and_makes_none():
    before = sorted(str(path) for path in HOME.rglob("*") if ".db" not in path.name)
    plan = run("--dry-run", "-v", "grammar-dry:/data:ro", "-v", "/own", "--mount", "type=tmpfs,dst=/t,size=1M", "--copy", "/etc/hostname:/etc/name",
               BASE, "true").ok().text
    for part in ("/data: the volume 'grammar-dry', read-only", "/own: a volume of its own, removed with the box", "tmpfs      /t 1.0 MiB",
                 "copy       /etc/hostname to /etc/name"):
        assert part in plan, plan
    assert sorted(str(path) for path in HOME.rglob("*") if ".db" not in path.name) == before


def declaring(*places):
    """An archive of the tiny image, with VOLUMEs."""
    with tarfile.open(TINY_ARCHIVE) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}

    def blob(digest):
        return "blobs/sha256/" + digest.partition(":")[2]

    def put(data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        files[blob(digest)] = data
        return {"digest": digest, "size": len(data)}

    index = json.loads(files["index.json"])
    manifest = json.loads(files[blob(index["manifests"][0]["digest"])])
    config = json.loads(files[blob(manifest["config"]["digest"])])
    config["config"]["Volumes"] = {place: {} for place in places}
    manifest["config"].update(put(json.dumps(config).encode()))
    index["manifests"][0].update(put(json.dumps(manifest).encode()))
    files["index.json"] = json.dumps(index).encode()
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return result.getvalue()


@pytest.fixture
def load():
    loaded = []

    def load(name, *places):
        loaded.append(name)
        caisson("image", "load", "--name", name, input=declaring(*places)).ok()
        return name
    yield load
    for name in loaded:
        caisson("image", "rm", name)


def targets(*options):
    box = caisson("create", "--pull", "never", *options, "true").ok().text.strip()
    mounts = {mount["target"]: "own" if mount["anonymous"] else mount["volume"] or mount["type"] for mount in inspect(box)["mounts"]}
    assert len(volumes("anonymous")) == list(mounts.values()).count("own")
    caisson("rm", box).ok()
    return mounts


def test_volumes_of_an_image_are_anonymous_unless_something_is_there(load, named):
    named.append("grammar-image")
    image = load("test/declaring", "/data", "cache", "/var/lib/x/")
    assert targets(image) == {"/data": "own", "/cache": "own", "/var/lib/x": "own"}
    assert targets("-v", "grammar-image:/data", "--tmpfs", "/cache", "-v", "/var/lib/x/y", image) == {
        "/data": "grammar-image", "/cache": "tmpfs", "/var/lib/x": "own", "/var/lib/x/y": "own"}
    plan = caisson("run", "--dry-run", "--pull", "never", image).ok().text
    assert plan.count("a volume of its own, removed with the box") == 3


def test_an_image_that_declares_its_root_is_refused(load):
    done = caisson("create", "--pull", "never", load("test/declaring-root", "/"), "true")
    assert done.code == 2 and "the image declares a VOLUME at '/'" in done.said, done


def test_help_shows_them():
    for command in ("run", "create"):
        text = caisson(command, "--help").ok().text
        assert "-v,--volume" in text and "--mount" in text and "--copy" in text
    assert "-v data:/data" in caisson("run", "--help").text
