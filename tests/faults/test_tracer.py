"""fault_tracer itself: the call that it is told to fail fails, once, whoever makes it; and what it records can be replayed."""
import os
import random
import shutil
import subprocess

import boxes
import pytest
import replay
from matrix import TRACER

STATIC = os.path.join(os.path.dirname(os.path.dirname(boxes.BIN)), "libexec/caisson/caisson-enter")


@pytest.fixture
def place(tmp_path):
    return tmp_path


def traced(place, *options, script):
    report = place / "report"
    done = subprocess.run([TRACER, "--report", report, "--below", place, *map(str, options), "sh", "-c", script], cwd=place,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    return done.returncode, done.stdout.decode(), report.read_text()


def counts(report):
    return {line.split()[1]: int(line.split()[2]) for line in report.splitlines() if line.startswith("count ")}


def test_counts_of_a_clean_run(place):
    code, said, report = traced(place, script="echo a > x; echo b > y; mkdir d; mv y d/z; ln x w; rm x; rmdir d 2>/dev/null; exit 7")
    assert (code, said) == (7, "")
    found = counts(report)
    assert {kind: found[kind] for kind in ("write", "open", "mkdir", "link")} == {"write": 2, "open": 3, "mkdir": 1, "link": 1}, report  # /dev/null, too
    assert found["rename"] == 1 and found["unlink"] == 2 and found["fork"] >= 4 and "fired" not in report


@pytest.mark.parametrize("fault, text", (
    ("open:2:ENOSPC", "cannot create y: No space left on device"), ("write:1:EIO", "I/O error"), ("mkdir:1:ENOSPC", "No space left on device"),
    ("open:1:EMFILE", "cannot create x: Too many open files"), ("fork:1:ENOMEM", "Cannot fork"), ("rename:1:EIO", "Input/output error"),
    ("unlink:1:EIO", "Input/output error")))
def test_one_call_fails(place, fault, text):
    script = "echo a > x; echo b > y; mkdir d; mv x w; rm w"
    code, said, report = traced(place, "--fail", fault, script=script)
    assert text in said, said
    assert report.count("fired " + fault.split(":")[0]) == 1, report
    # Only one: in the same place the whole script goes well.
    shutil.rmtree(place / "d", ignore_errors=True)
    assert traced(place, "--fail", fault.replace(":1:", ":999:").replace(":2:", ":999:"), script=script) [:2] == (0, "")


def test_static_programs_are_reached(place):
    assert "statically linked" in subprocess.run(["file", "-L", STATIC], stdout=subprocess.PIPE, check=True).stdout.decode() if shutil.which("file") else True
    shell = shutil.which("busybox")
    code, said, report = traced(place, "--fail", "open:1:EMFILE", script=f"exec env -i {shell} sh -c 'echo a > x'" if shell else f"exec env -i {STATIC} 2>x")
    assert "Too many open files" in said, (said, report)


def test_what_is_left_behind_is_traced(place):
    code, said, report = traced(place, "--fail", "write:2:EIO", script="echo a > x; (sleep 0.3; echo b > y || echo failed > z) >/dev/null 2>&1 & exit 0")
    assert code == 0
    boxes.until(lambda: (place / "z").exists(), 5)
    assert (place / "y").read_bytes() == b"" and (place / "z").read_text() == "failed\n"


def test_a_call_outside_does_not_count(place):
    code, said, report = traced(place, script="echo a > /dev/null; echo b | cat > x")
    assert counts(report)["write"] == 1, report


def recorded(place, script):
    home, log = place / "home", place / "log"
    home.mkdir()
    (home / "old").write_text("old\n")
    (place / "marks").write_text("")
    shutil.copytree(home, place / "before")
    subprocess.run([TRACER, "--below", home, "--record", log, "--marks", place / "marks", "/usr/bin/python3", "-c", script], cwd=home, check=True,
                   timeout=30)
    return replay.Log(log)


def image(place, log, end, kind, seed=1):
    target = place / f"{kind}-{end}-{seed}"
    replay.Image(log, place / "before", end, kind, random.Random(seed)).write(target, os.getuid(), os.getgid())
    return {path.name: path.read_bytes() if path.is_file() else None for path in target.rglob("*")}


root = pytest.mark.skipif(not boxes.IS_ROOT, reason="recording needs root: others may not look into processes that hide what they hold")


@root
def test_replayed_whole_it_is_the_same(place):
    log = recorded(place, """
import os
os.mkdir("d"); f = os.open("d/a", os.O_WRONLY | os.O_CREAT); os.write(f, b"12345"); os.pwrite(f, b"xy", 1); os.ftruncate(f, 4); os.close(f)
os.rename("d/a", "d/b"); os.link("d/b", "c"); os.symlink("c", "s"); os.unlink("old"); os.mkdir("e"); os.rmdir("e"); os.chmod("c", 0o640)
f = os.open(".", os.O_TMPFILE | os.O_WRONLY); os.write(f, b"unnamed"); os.link(f"/proc/self/fd/{f}", "named", src_dir_fd=0, follow_symlinks=True)
open("../marks", "a").write("+thing one\\n")
""")
    assert image(place, log, len(log.acts), "killed") == {"d": None, "b": b"1xy4", "c": b"1xy4", "s": b"1xy4", "named": b"unnamed"}
    assert log.marks(len(log.acts)) == (["+thing one"], None)


@root
def test_only_what_was_synced_is_sure(place):
    log = recorded(place, """
import os
def put(name, data, sync):
    f = os.open(name, os.O_WRONLY | os.O_CREAT); os.write(f, data)
    if sync: os.fsync(f)
    os.close(f)
put("sure", b"s" * 2000, True); os.fsync(os.open(".", os.O_RDONLY)); put("named", b"n" * 2000, True); put("loose", b"l" * 2000, False)
""")
    assert image(place, log, len(log.acts), "least") == {"sure": b"s" * 2000, "old": b"old\n"}
    for kind in ("ordered", "hostile"):
        homes = [image(place, log, len(log.acts), kind, seed) for seed in range(40)]
        assert all(home["sure"] == b"s" * 2000 for home in homes)
        assert {("loose" in home, home.get("loose") == b"l" * 2000) for home in homes} == {(False, False), (True, False), (True, True)}
        # The name of a file whose content was synced: a journal has it by then, POSIX does not say so.
        assert {home.get("named") for home in homes} == ({b"n" * 2000} if kind == "ordered" else {None, b"n" * 2000})
