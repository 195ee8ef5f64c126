"""caisson volume: what there is, who has it, and what stays when somebody is killed over it."""
import os
import stat

import pytest
from boxes import BASE, HOME, caisson

VOLUMES = HOME / "volumes"


@pytest.fixture(autouse=True)
def no_volumes_stay():
    yield
    for name in caisson("volume", "ls", "-q").ok().lines:
        caisson("volume", "rm", name)
    caisson("volume", "prune").ok()
    for directory in ("named", "anonymous", "info", "space", "boxes", "trash"):
        assert os.listdir(VOLUMES / directory) == [], directory


@pytest.fixture
def idle_box(kept_boxes):
    """A box that was never started: its id and its name."""
    caisson("create", "--name", "idle", BASE, "true").ok()
    return caisson("inspect", "--format", "json", "idle").json()[0]["id"], "idle"


def field(number, value):
    """One field of a protobuf message."""
    if isinstance(value, bytes):
        return bytes([number << 3 | 2, len(value)]) + value
    return bytes([number << 3, value])


def give(box, volume, anonymous=False):
    """Tells the home that a box has a volume, as its maker would."""
    mount = field(1, 1) + field(2, int(anonymous)) + field(3, volume.encode()) + field(5, b"/data") + field(9, 1)
    path = VOLUMES / "boxes" / box
    path.write_bytes(field(1, mount) + field(2, 1))
    os.chown(path, VOLUMES.stat().st_uid, VOLUMES.stat().st_gid)


def listed(*options):
    return caisson("volume", "ls", "--format", "json", *options).json()


def test_create_ls_inspect_rm():
    assert caisson("volume", "create", "data").ok().lines == ["data"]
    caisson("volume", "create", "--size", "10M", "-l", "job=nightly", "-l", "other", "limited").ok()
    drawn = caisson("volume", "create").ok().lines[0]
    assert drawn.startswith("volume-")
    volumes = listed()
    assert [volume["name"] for volume in volumes] == ["data", "limited", drawn]
    assert volumes[0] == {"name": "data", "type": "directory", "anonymous": False, "path": str(VOLUMES / "named/data"), "size_bytes": None,
                          "created_ms": volumes[0]["created_ms"], "labels": {}, "boxes": []}
    assert volumes[1]["size_bytes"] == 10 << 20 and volumes[1]["labels"] == {"job": "nightly", "other": ""}
    assert [volume["name"] for volume in listed("--label", "job")] == ["limited"]
    assert listed("--label", "job=daily") == []
    assert caisson("volume", "ls", "-q").lines == ["data", "limited", drawn]
    assert "10.0 MiB" in caisson("volume", "ls").text
    details = caisson("volume", "inspect", "--format", "json", "data", "limited").json()
    assert [volume["name"] for volume in details] == ["data", "limited"] and details[0]["used_bytes"] is not None
    assert "limit        none" in caisson("volume", "inspect", "data").text
    assert caisson("volume", "rm", "data", "limited").ok().lines == ["data", "limited"]
    assert [volume["name"] for volume in listed()] == [drawn]


def test_is_the_owners_alone():
    caisson("volume", "create", "data").ok()
    for path in (VOLUMES, VOLUMES / "named", VOLUMES / "named/data"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert path.stat().st_uid == HOME.stat().st_uid


@pytest.mark.parametrize("name", ["..", "a/b", "/etc", " ", "-x", "a b", "x" * 65, "\u00fc", "01arz3ndektsv4rrffq69g5fav"])
def test_refuses_names(name):
    refused = caisson("volume", "create", "--", name)
    assert refused.code == 125 or refused.code == 2
    assert refused.said.count("\n") >= 1, refused
    assert listed() == []
    for command in ("inspect", "rm"):
        assert caisson("volume", command, "--", name).code != 0


def test_refuses_options():
    for options, word in ((["--size", "0", "x"], "--size 0"), (["--size", "many", "x"], "--size"), (["--type", "disk", "x"], "needs a size"),
                          (["--type", "tape", "x"], "tape"), (["-l", "=x", "x"], "no name")):
        refused = caisson("volume", "create", *options)
        assert refused.code in (2, 125) and word in refused.said, refused
    assert listed() == []
    assert caisson("volume", "ls", "--format", "xml").code != 0


def test_says_what_is_there_and_what_is_not():
    caisson("volume", "create", "--size", "4M", "data").ok()
    again = caisson("volume", "create", "data")
    assert again.code == 125 and "'data' already" in again.said
    assert listed()[0]["size_bytes"] == 4 << 20
    for command in ("inspect", "rm"):
        missing = caisson("volume", command, "nowhere")
        assert missing.code == 125 and "no volume 'nowhere'" in missing.said and "caisson volume ls" in missing.said
    caisson("volume", "rm", "--force", "nowhere").ok()
    half = caisson("volume", "rm", "nowhere", "data")
    assert half.code == 125 and half.lines == ["data"], "the others are removed"


def test_rm_refuses_while_a_box_has_it(idle_box):
    box, name = idle_box
    caisson("volume", "create", "data").ok()
    give(box, "data")
    assert listed()[0]["boxes"] == [name]
    refused = caisson("volume", "rm", "data")
    assert refused.code == 125 and f"used by box {name}" in refused.said and f"caisson rm {name}" in refused.said, refused
    assert caisson("volume", "rm", "--force", "data").code == 125
    assert caisson("volume", "prune").ok().lines == ["freed 0 B"]
    caisson("rm", name).ok()
    assert listed()[0]["boxes"] == []
    caisson("volume", "rm", "data").ok()


def test_anonymous_volumes_go_with_their_box(idle_box):
    box, name = idle_box
    other = "01arz3ndektsv4rrffq69g5fav"
    caisson("volume", "ls").ok()
    make_directory(VOLUMES / "anonymous" / other)
    give(box, other, anonymous=True)
    volume = listed()[0]
    assert volume["anonymous"] and volume["name"] == other and volume["boxes"] == [name]
    assert caisson("volume", "rm", other).code == 125
    caisson("rm", name).ok()
    assert listed() == [] and os.listdir(VOLUMES / "anonymous") == os.listdir(VOLUMES / "boxes") == []


def make_directory(path):
    path.mkdir(mode=0o700)
    os.chown(path, VOLUMES.stat().st_uid, VOLUMES.stat().st_gid)


def test_what_dead_processes_left_goes_with_the_next_command():
    caisson("volume", "create", "data").ok()
    make_directory(VOLUMES / "anonymous" / "01arz3ndektsv4rrffq69g5fav")
    make_directory(VOLUMES / "trash" / "01arz3ndektsv4rrffq69g5faw")
    give("01arz3ndektsv4rrffq69g5fax", "data")
    caisson("info").ok()
    assert [volume["name"] for volume in listed()] == ["data"] and listed()[0]["boxes"] == []
    assert os.listdir(VOLUMES / "anonymous") == os.listdir(VOLUMES / "trash") == os.listdir(VOLUMES / "boxes") == []


def test_prune_takes_what_no_box_has(idle_box):
    for name, label in (("used", "a"), ("unused", "a"), ("other", "b")):
        caisson("volume", "create", "-l", label, name).ok()
    give(idle_box[0], "used")
    assert caisson("volume", "prune", "-l", "a", "--format", "json").json()["volumes"] == ["unused"]
    assert caisson("volume", "prune").ok().lines[0] == "other"
    assert [volume["name"] for volume in listed()] == ["used"]


def test_df_counts_what_the_host_keeps():
    caisson("volume", "create", "--size", "10M", "data").ok()
    file = VOLUMES / "named/data/file"
    file.write_bytes(b"x" * (1 << 20))
    os.link(file, VOLUMES / "named/data/again")
    with open(VOLUMES / "named/data/sparse", "wb") as sparse:
        sparse.truncate(1 << 30)
    df = caisson("volume", "df", "--format", "json").json()
    assert 1 << 20 <= df["used_bytes"] < 3 << 19 and df["volumes"][0]["used_bytes"] == df["used_bytes"]
    assert "10.0 MiB" in caisson("volume", "df").text
    pruned = caisson("volume", "prune", "--format", "json").json()
    assert pruned == {"volumes": ["data"], "freed_bytes": df["used_bytes"]}
