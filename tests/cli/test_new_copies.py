"""--copy: files of the caller's in the root disk of a box before its command runs."""
import hashlib
import os
import signal
import socket
import subprocess
import time

import pytest
from boxes import BASE, BIN, box_ids, caisson, environment, run

PYTHON_LISTS = "import os,sys; [print(os.path.relpath(os.path.join(d, f), '/in')) for d, _, n in sorted(os.walk('/in')) for f in sorted(n)]"


@pytest.fixture(autouse=True)
def no_box_is_left():
    before = box_ids()
    yield
    assert box_ids() == before


@pytest.fixture
def tree(tmp_path):
    """What only the caller may read: the service user of root's caisson may not even enter it."""
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_text("first\n")
    (root / "sub/b").write_text("second\n")
    (root / "link").symlink_to("/etc/passwd")
    (root / "a").chmod(0o640)
    root.chmod(0o700)
    tmp_path.chmod(0o700)
    return root


def test_a_file_under_its_name_or_another(tree):
    done = run("--copy", f"{tree}/a:/etc/renamed", "--copy", f"{tree}/sub/b:/etc/", "--copy", f"{tree}/a:/", BASE,
               "sh", "-c", "cat /etc/renamed /etc/b /a; stat -c '%u:%g %a' /etc/renamed").ok()
    assert done.lines == ["first", "second", "first", "0:0 640"]


def test_a_tree_and_its_contents(tree):
    assert run("--copy", f"{tree}:/in", BASE, "python3", "-c", PYTHON_LISTS).ok().lines == ["a", "link", "sub/b"]
    assert run("--copy", f"{tree}:/srv", BASE, "readlink", "/srv/tree/link").ok().lines == ["/etc/passwd"]
    assert run("--copy", f"{tree}/.:/srv", BASE, "cat", "/srv/sub/b").ok().lines == ["second"]


def test_a_link_is_a_link(tree):
    assert run("--copy", f"{tree}/link:/linked", BASE, "readlink", "/linked").ok().lines == ["/etc/passwd"]
    refused = run("--copy", f"{tree}/link/:/linked", BASE, "true")
    assert refused.code != 0 and "link" in refused.said


def test_the_image_may_have_another_user(tree):
    assert run("-u", "nobody", "--copy", f"{tree}/sub/b:/b", BASE, "sh", "-c", "id -un; cat /b").ok().lines == ["nobody", "second"]


def test_it_is_there_from_the_start_and_detached(tree):
    box = caisson("run", "-d", "--pull", "never", "--copy", f"{tree}/a:/a", BASE, "sh", "-c", "cat /a; sleep 60").ok().text.strip()
    try:
        deadline = time.monotonic() + 20
        while caisson("logs", box).text != "first\n" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert caisson("logs", box).text == "first\n"
    finally:
        caisson("rm", "--force", box).ok()


def test_what_was_there_at_creation_counts(tree):
    box = caisson("create", "--pull", "never", "--copy", f"{tree}/a:/a", BASE, "cat", "/a").ok().text.strip()
    try:
        state = caisson("ls", "--all", "--format", "json").json()
        assert [one["state"] for one in state if one["id"] == box] == ["created"]
        (tree / "a").write_text("changed\n")
        assert caisson("start", "-a", box).ok().text == "first\n"
        assert caisson("start", "-a", box).ok().text == "first\n"
    finally:
        caisson("rm", "--force", box).ok()


def test_it_takes_what_the_usual_run_takes(tree):
    """Exit codes, input, kept boxes, commands that do not exist: as without copies."""
    copy = ("--copy", f"{tree}/a:/a")
    assert run(*copy, BASE, "sh", "-c", "exit 7").code == 7
    assert run("-i", *copy, BASE, "cat", "/a", "-", input=b"typed\n").ok().lines == ["first", "typed"]
    assert run("--read-only", *copy, BASE, "cat", "/a").ok().lines == ["first"]
    assert run("--cold", *copy, BASE, "cat", "/a").ok().lines == ["first"]
    assert run(*copy, BASE, "/no/such").code == 127
    assert run("-d", *copy, BASE, "/no/such").code == 127
    kept = caisson("run", "--pull", "never", "--name", "copied-kept", *copy, BASE, "/no/such")
    assert kept.code == 127
    caisson("rm", "copied-kept").ok()
    assert run("--timeout", "1s", *copy, BASE, "sleep", "60").code == 124


@pytest.mark.parametrize("source, target, message", [
    ("/no/such/file", "/x", "/no/such/file"),
    ("a", "/no/such/place/x", "no/such/place"),
    ("a", "/etc/passwd/x", "/etc/passwd"),
    ("sub", "/etc/passwd", "/etc/passwd"),
])
def test_a_copy_that_fails_leaves_no_box(tree, source, target, message):
    source = str(tree / source) if source[0] != "/" else source
    for command in (("create",), ("run",), ("run", "--rm"), ("run", "-d")):
        done = caisson(*command, "--pull", "never", "--copy", f"{tree}/a:/fine", "--copy", f"{source}:{target}", BASE, "true")
        assert done.code == 125 and message in done.said and "--copy" in done.said, done
        assert done.out == b""


def test_what_is_no_file(tree):
    """As with cp: left out inside a tree, with a word about it."""
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "s"))
        done = run("--copy", f"{tree}:/in", BASE, "ls", "/in").ok()
        assert "left out" in done.said and "s" not in done.lines
        alone = run("--copy", f"{tree}/s:/in", BASE, "ls", "/in")
    assert alone.code != 0, alone


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_an_error(tree):
    (tree / "a").chmod(0)
    done = run("--copy", f"{tree}:/in", BASE, "true")
    assert done.code == 125 and "tree/a" in done.said


def test_one_that_is_killed_over_it_leaves_no_box(tmp_path):
    pipe = tmp_path / "large"
    with open(pipe, "wb") as file:
        file.truncate(0)
        for _ in range(64):
            file.write(os.urandom(1 << 20))
    for command in ("create", "run"):
        before = box_ids()
        process = subprocess.Popen([BIN, command, "--pull", "never", "--copy", f"{pipe}:/large", BASE, "true"], env=environment(),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        deadline = time.monotonic() + 20
        while box_ids() == before and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.3)
        assert process.poll() is None, "it was too fast to be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 20
        while box_ids() != before and time.monotonic() < deadline:
            caisson("ls")
            time.sleep(0.2)
        assert box_ids() == before


def test_a_copy_that_a_volume_would_hide_is_refused(tree):
    done = run("-v", "/in", "--copy", f"{tree}/a:/in/a", BASE, "true")
    assert done.code == 2 and "would hide the copy" in done.said


def test_large_files_arrive_whole(tmp_path):
    """Also those that the guest has not written back when the last of them has been read."""
    names = {}
    for i in range(3):
        data = os.urandom((8 << 20) + i)
        (tmp_path / f"f{i}").write_bytes(data)
        names[f"f{i}"] = hashlib.sha256(data).hexdigest()
    copies = [word for name in names for word in ("--copy", f"{tmp_path}/{name}:/srv/")]
    done = run(*copies, BASE, "sh", "-c", "cd /srv && sha256sum f0 f1 f2").ok()
    assert dict(reversed(line.split()) for line in done.lines) == names
