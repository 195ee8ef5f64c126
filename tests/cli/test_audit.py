"""caisson audit and events: what is recorded, by whom, and that tampering with it shows."""
import hashlib
import json
import os
import re
import signal
import sqlite3
import time

import pytest
from boxes import BASE, HOME, IS_ROOT, Started, caisson, inspect, run, until_state

AUDIT = HOME / "audit"


def entries(*arguments):
    return [json.loads(line) for line in caisson("audit", "--format", "json", *arguments).ok().lines]


def kinds(*arguments):
    return [entry["kind"] for entry in entries(*arguments)]


def chain(box):
    return AUDIT / "boxes" / box / "00000000000000000001.jsonl"


def verified(*arguments):
    done = caisson("audit", "verify", "--format", "json", *arguments)
    findings = [(finding["problem"], finding["seq"]) for finding in json.loads(done.out)["findings"]]
    assert done.code == (1 if findings else 0), done
    return findings


@pytest.fixture
def box(kept_boxes):
    """A box that has run and stopped, with its chain at rest: its id."""
    caisson("run", "--name", "audited", BASE, "true").ok()
    box = inspect("audited")["id"]
    caisson("audit", "head", box).ok()
    assert verified(box) == []
    return box


@pytest.fixture
def tampered(box):
    """The lines of its chain; put back afterwards."""
    original = chain(box).read_bytes()
    yield original
    chain(box).write_bytes(original)
    assert verified(box) == []


def test_a_life_of_a_box(kept_boxes):
    before = time.time() - 1
    caisson("create", "--name", "audited", BASE, "sh", "-c", "sleep 1000", env={**os.environ, "SECRET": "x"}).ok()
    caisson("start", "audited").ok()
    assert caisson("exec", "-e", "TOKEN=geheim", "audited", "sh", "-c", "exit 7").code == 7
    caisson("pause", "audited").ok()
    caisson("resume", "audited").ok()
    caisson("rename", "audited", "renamed").ok()
    caisson("stop", "-t", "0s", "renamed").ok()
    box = inspect("renamed")["id"]
    found = entries(box)
    assert [entry["kind"] for entry in found] == [
        "box_created", "box_started", "execution_started", "execution_started", "execution_completed", "box_paused", "box_resumed",
        "box_renamed", "box_stop_requested", "execution_completed", "box_stopped"], found
    assert [entry["seq"] for entry in found] == list(range(1, 12))
    created, started, command, execution, completed = found[:5]
    assert created["details"]["arguments"] == ["sh", "-c", "sleep 1000"] and created["details"]["image"].startswith("caisson/base")
    assert execution["details"]["arguments"] == ["sh", "-c", "exit 7"]
    assert completed["details"]["exit_code"] == 7 and completed["details"]["outcome"] == "exited"
    assert 0 <= completed["details"]["duration_ms"] < 60000
    assert command["details"]["execution"] == "main"
    assert created["process"] == "caisson" and created["pid"] > 0
    if IS_ROOT:
        assert created["uid"] == 0 and started["uid"] == 0
    assert found[7]["details"] == {"old_name": "audited"} and found[7]["name"] == "renamed"
    assert all(entry["box"] == box for entry in found)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"]) for entry in found)
    assert b"geheim" not in chain(box).read_bytes()
    caisson("rm", "renamed").ok()
    # By its id it is still there, and the home's chain has its end.
    assert kinds(box)[-2:] == ["box_removed", "chain_closed"]
    closed = entries(box)[-1]
    assert closed["chain"] == "home" and closed["details"]["hash"] == entries(box)[-2]["hash"]
    assert caisson("audit", "renamed").code == 125
    assert verified() == []
    recent = entries("--since", str(before), "--kind", "box_created")
    assert box in [entry["box"] for entry in recent] and {entry["kind"] for entry in recent} == {"box_created"}


def test_a_box_that_is_removed_by_its_supervisor():
    caisson("run", "--rm", BASE, "sh", "-c", "exit 3")
    caisson("ls").ok()  # whoever opens the home next closes its chain
    box = entries("--kind", "chain_closed")[-1]["box"]
    found = entries(box)
    assert [entry["kind"] for entry in found] == ["box_created", "box_started", "execution_started", "execution_completed", "box_stopped",
                                                  "box_removed", "chain_closed"]
    assert found[4]["details"]["exit_code"] == 3
    assert verified() == []


def test_a_killed_supervisor_leaves_a_chain_that_fits(kept_boxes):
    caisson("run", "-d", "--name", "audited", BASE, "sleep", "1000").ok()
    box = inspect("audited")["id"]
    os.kill(inspect("audited")["supervisor_pid"], signal.SIGKILL)
    until_state("audited", "failed")
    caisson("audit", "head", box).ok()
    assert verified(box) == []
    caisson("start", "audited").ok()
    caisson("kill", "audited").ok()
    assert kinds(box).count("box_started") == 2 and kinds(box)[-1] == "box_stopped"
    assert verified(box) == []


def test_copies_volumes_and_images(kept_boxes, tmp_path):
    (tmp_path / "file").write_text("content")
    os.chmod(tmp_path, 0o755)
    since = str(time.time() - 0.001)
    caisson("volume", "create", "audited-data").ok()
    caisson("create", "--name", "audited", "-v", "audited-new:/new", BASE, "true").ok()
    caisson("volume", "attach", "audited", "audited-data:/data").ok()
    caisson("cp", str(tmp_path / "file"), "audited:/root/copy").ok()
    caisson("cp", "audited:/root/copy", "-").ok()
    caisson("volume", "detach", "audited", "/data").ok()
    caisson("image", "tag", BASE, "audited/tag").ok()
    box = inspect("audited")["id"]
    found = {entry["kind"]: entry for entry in entries("--since", since)}
    assert found["files_copied_in"]["details"]["host_path"] == str(tmp_path / "file")
    assert found["files_copied_in"]["details"]["box_path"] == "/root/copy" and found["files_copied_in"]["details"]["exit_code"] == 0
    assert found["files_copied_in"]["details"]["bytes"] > 7
    assert found["files_copied_out"]["details"]["host_path"] == "-" and found["files_copied_out"]["details"]["bytes"] > 7
    assert found["volume_attached"]["details"] == {"volume": "audited-data", "target": "/data"} and found["volume_attached"]["box"] == box
    assert found["volume_detached"]["box"] == box
    assert found["box_created"]["details"]["mounts"] == ["audited-new:/new"]
    assert [entry["details"]["volume"] for entry in entries("--since", since, "--kind", "volume_created")] == ["audited-data", "audited-new"]
    assert found["image_tagged"]["details"]["image"].startswith("audited/tag")
    caisson("rm", "audited").ok()
    caisson("image", "rm", "audited/tag").ok()
    for volume in ("audited-data", "audited-new"):
        caisson("volume", "rm", volume).ok()
    assert {"volume_removed", "image_removed"} <= set(kinds("--since", since))


def test_lowered_security(kept_boxes):
    caisson("create", "--name", "audited", "--cap-add", "NET_ADMIN", "--privileged", BASE, "true").ok()
    box = inspect("audited")["id"]
    lowered = [entry for entry in entries(box) if entry["kind"] == "security_lowered"]
    assert len(lowered) == 1 and lowered[0]["chain"] == "home"
    assert "privileged" in lowered[0]["details"]["lowered"] and "cap_add=NET_ADMIN" in str(lowered[0]["details"]["lowered"]).replace("CAP_", "")


def test_without_a_record_security_is_not_lowered(kept_boxes):
    caisson("audit").ok()
    home = AUDIT / "home"
    os.rename(home, AUDIT / "aside")
    home.write_text("")  # no directory: nothing can be recorded there
    try:
        refused = caisson("create", "--name", "audited", "--privileged", BASE, "true")
        assert refused.code == 125 and "not lowered without a record" in refused.said, refused
        assert caisson("inspect", "audited").code != 0
        # Everything else goes on, and says so.
        done = caisson("volume", "create", "audited-data")
        assert done.code == 0 and "could not be recorded" in done.said and "audit/home" in done.said
    finally:
        home.unlink()
        os.rename(AUDIT / "aside", home)
    caisson("volume", "rm", "audited-data").ok()
    assert verified("home") == []


def test_one_byte_changed(box, tampered):
    at = tampered.index(b"box_started") + 4
    chain(box).write_bytes(tampered[:at] + b"S" + tampered[at + 1:])
    assert verified(box) == [("altered", 2)] and ("altered", 2) in verified()
    assert "entry 2 was altered" in caisson("audit", "verify", box).text


def test_one_line_removed(box, tampered):
    lines = tampered.splitlines(keepends=True)
    chain(box).write_bytes(b"".join(lines[:2] + lines[3:]))
    assert verified(box) == [("missing", 3)]


def test_two_swapped(box, tampered):
    lines = tampered.splitlines(keepends=True)
    lines[1], lines[3] = lines[3], lines[1]
    chain(box).write_bytes(b"".join(lines))
    assert verified(box) == [("reordered", 2)]


def test_the_tail_cut(box, tampered):
    lines = tampered.splitlines(keepends=True)
    chain(box).write_bytes(b"".join(lines[:-2]))
    assert verified(box) == [("cut", len(lines) - 1)]
    chain(box).write_bytes(tampered[:-5])
    assert verified(box) == [("cut", len(lines))]


def rechained(data, change):
    """All lines anew, with hashes that fit, after `change` of their text."""
    made, before = [], "0" * 64
    for line in data.decode().splitlines():
        text = re.sub(r'"prev":"[0-9a-f]*","hash":"[0-9a-f]*"}$', f'"prev":"{before}"}}', change(line))
        before = hashlib.sha256(text.encode()).hexdigest()
        made.append(text[:-1] + f',"hash":"{before}"}}\n')
    return "".join(made).encode()


def test_the_whole_journal_written_anew(box, tampered):
    head = caisson("audit", "head", box).ok().lines[0]
    assert verified("--head", head, box) == []
    assert rechained(tampered, lambda line: line) == tampered, "the documented hash"
    last = len(tampered.splitlines())
    chain(box).write_bytes(rechained(tampered, lambda line: line.replace('"box_created"', '"box_admired"')))
    assert verified(box) == [("rewritten", last)]
    # Whoever can write the database as well is found out by who kept the head.
    database = sqlite3.connect(HOME / "caisson.db")
    (known,) = database.execute("SELECT hash FROM journal_heads WHERE chain=?", (box,)).fetchone()
    forged = json.loads(chain(box).read_text().splitlines()[-1])["hash"]
    try:
        database.execute("UPDATE journal_heads SET hash=? WHERE chain=?", (forged, box))
        database.commit()
        assert verified(box) == []
        assert verified("--head", head, box) == [("rewritten", last)]
        assert caisson("audit", "head", box).lines[0] != head
    finally:
        database.execute("UPDATE journal_heads SET hash=? WHERE chain=?", (known, box))
        database.commit()
        database.close()


def test_half_a_line_is_no_tampering(box):
    with open(chain(box), "ab") as file:
        file.write(b'{"seq":99,"ti')
    assert verified(box) == []
    caisson("rename", "audited", "audited2").ok()
    assert kinds(box)[-2:] == ["journal_torn", "box_renamed"]
    assert verified(box) == []


def test_events_as_they_come(kept_boxes):
    with Started("events", "-f", "--since", str(time.time()), "--format", "json") as following:
        caisson("run", "--rm", "--name", "audited", BASE, "true").ok()
        seen = []
        while "box_removed" not in seen:
            seen.append(json.loads(following.line())["kind"])
        assert seen == ["box_created", "box_started", "execution_started", "execution_completed", "box_stopped", "box_removed"]


def test_text_for_a_terminal():
    run("--rm", BASE, "echo", "\x1b[2J\u009b31mred\x07\r\n").ok()
    for command in ("audit", "events"):
        done = caisson(command).ok()
        assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]", done.out), done.out
    assert "uid" in caisson("audit").text and "\\x1b" in caisson("events").text


def test_usage():
    assert caisson("audit", "nobody").code == 125
    assert caisson("audit", "verify", "nobody").code == 125
    assert caisson("audit", "verify", "--head", "12").code == 2
    assert caisson("audit", "--since", "soon").code == 2
    assert caisson("events", "--format", "xml").code == 2
    assert re.fullmatch(r"\d+:[0-9a-f]{64}", caisson("audit", "head").ok().lines[0])
    assert caisson("audit", "head", "--format", "json").json()["chain"] == "home"
