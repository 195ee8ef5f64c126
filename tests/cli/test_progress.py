"""What long work shows: pulling, unpacking and making a template, on a terminal, in a pipe, with --quiet."""
import os
import pty
import re
import subprocess
import time

import boxes
import pytest
import registries
from boxes import ASSETS, BIN, TINY_ARCHIVE
from registries import Image, Registry, SlowRelay, push_image
from terminals import Session

LAYERS = 3
LAYER_BYTES = 1 << 20
ANSWER = "entrypoint blue cmd"  # of the tiny image
TEMPLATE = "making the template of"


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    """An image of the tiny one and further layers, in a registry that is slow enough to watch."""
    registries.check_tools()
    place = tmp_path_factory.mktemp("progress")
    registry = Registry(place / "registry")
    registry.push(with_layers(place), "test/layered:1")
    relay = SlowRelay(registry, 2 << 20)
    yield f"{relay.name}/test/layered:1"
    relay.stop()
    registry.stop()


def with_layers(place):
    layout = registries.tiny_layout(place)
    for number in range(1, LAYERS):
        directory = place / f"layer-{number}"
        directory.mkdir()
        (directory / f"random-{number}").write_bytes(os.urandom(LAYER_BYTES))
        registries.tool("umoci", "insert", "--image", layout.removeprefix("oci:"), directory, f"/more/{number}")
    return layout


@pytest.fixture
def fresh():
    with registries.fresh_home() as home:
        yield home


def watched(home, *arguments, columns=99, timeout=60, **more):
    """Everything that a terminal got, with the exit code; `more` is environment."""
    with Session(*arguments, env={**home.environment(), **more}, columns=columns) as session:
        code, said = session.end(timeout=timeout)
    assert code == 0, said
    return said


def steps(said):
    """The states of the line that is rewritten, in order."""
    return re.split(r"\r\x1b\[K|\r\n", said)


def screen(said):
    """What is left on the terminal: what stands behind the last rewriting of each line."""
    return [line.rpartition("\r\x1b[K")[2] for line in said.split("\r\n")]


# ---- on a terminal -------------------------------------------------------------------------------------------------

def test_a_run_shows_pull_unpacking_and_template(name, fresh):
    said = watched(fresh, "run", "--rm", name, timeout=120)
    seen = steps(said)
    pulled = [step for step in seen if step.startswith(f"pulling {name}")]
    assert len(set(pulled)) >= 5 and all(re.fullmatch(re.escape(f"pulling {name}") + r"(  \S+ \S+ of \S+ \S+)?", step) for step in pulled), seen
    # Each layer has a line of its own, which stays.
    layers = [re.fullmatch(rf"layer (\d) of {LAYERS}  [0-9a-f]{{12}}  \S+ \S+", line) for line in screen(said)]
    assert sorted(int(found[1]) for found in layers if found) == list(range(1, LAYERS + 1)), said
    assert any(step.startswith(f"unpacking layer 1 of {LAYERS}") for step in seen), seen
    assert any(step.startswith(f"unpacking layer {LAYERS} of {LAYERS}  ") for step in seen), seen
    assert any(step.startswith(TEMPLATE) for step in seen), seen
    order = [next(number for number, step in enumerate(seen) if step.startswith(start)) for start in ("pulling", "unpacking", TEMPLATE, ANSWER)]
    assert order == sorted(order), seen
    # Nothing of what was rewritten is left beside the box's output.
    left = screen(said)
    assert left[-2:] == [ANSWER, ""] and not any(line.startswith(("pulling", "unpacking", "making")) for line in left), left
    # The second time there is nothing to wait for.
    assert screen(watched(fresh, "run", "--rm", name)) == [ANSWER, ""]


def test_pull_shows_the_same_and_ends_with_the_name(name, fresh):
    seen = steps(watched(fresh, "image", "pull", name))
    assert any(step.startswith("pulling ") for step in seen) and any(step.startswith("unpacking layer ") for step in seen), seen
    assert seen[-2:] == [name, ""], seen
    # What is here already is said to be.
    again = screen(watched(fresh, "image", "pull", name))
    assert sum(line.endswith(", already here") for line in again) == LAYERS, again


def test_template_build_shows_it(fresh):
    fresh("image", "load", "--name", boxes.TINY, TINY_ARCHIVE).ok()
    said = watched(fresh, "template", "build", boxes.TINY, timeout=120)
    seen = steps(said)
    assert any(step.startswith(f"{TEMPLATE} {boxes.TINY}") for step in seen), seen
    assert re.fullmatch(r"[0-9a-f]{32}", screen(said)[-2]) and len(screen(said)) == 2, said


def test_load_import_and_save_show_how_far_they_are(fresh):
    seen = steps(watched(fresh, "image", "load", "--name", boxes.TINY, TINY_ARCHIVE))
    assert any(step.startswith("unpacking layer 1 of 1") for step in seen), seen
    assert any(step.startswith("reading the archive  ") for step in seen), seen
    seen = steps(watched(fresh, "image", "import", "--name", "imported", f"{ASSETS}/base/rootfs.tar"))
    assert any(step.startswith("reading the archive  ") for step in seen), seen
    seen = steps(watched(fresh, "image", "save", "-o", fresh.base / "saved.tar", boxes.TINY))
    assert any(step.startswith("saving  ") for step in seen) and seen[-1] == "", seen


def test_a_line_never_wraps(name, fresh):
    """A line that wraps cannot be rewritten: its beginning would stay."""
    said = watched(fresh, "run", "--rm", name, columns=30, timeout=120)
    rewritten = [step for step in steps(said) if step.startswith(("pulling", "unpacking", "making"))]
    assert len(rewritten) > 5 and max(map(len, rewritten)) == 29, rewritten
    assert not any(line.startswith(("pulling", "unpacking", "making")) for line in screen(said)), said


def test_waiting_for_another_process_shows(name, fresh):
    with fresh.start("image", "pull", name) as other:
        deadline = time.monotonic() + 20
        while not fresh.partial_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        seen = steps(watched(fresh, "image", "pull", name))
        assert other.end().code == 0
    assert any("another process" in step for step in seen), seen


def test_an_error_replaces_the_line(name, fresh):
    missing = name.rpartition(":")[0] + ":none"
    with Session("image", "pull", name, missing, env=fresh.environment()) as session:
        code, said = session.end()
    assert code == 125
    left = [line for line in screen(said) if not line.startswith("layer ")]
    assert left[0] == name and left[1].startswith("caisson: ") and not any(line.startswith("pulling") for line in left), left


@pytest.mark.parametrize("no_color", [None, "", "1"])
def test_nothing_is_coloured(name, fresh, no_color):
    """NO_COLOR is kept by using no colour at all: the only sequence that a terminal gets empties a line."""
    more = {} if no_color is None else {"NO_COLOR": no_color}
    said = watched(fresh, "image", "pull", name, TERM="xterm-256color", **more)
    for arguments in (["image", "ls"], ["image", "inspect", name], ["image", "prune"], ["--help"], ["ls"]):
        said += watched(fresh, *arguments, TERM="xterm-256color", **more)
    with Session("image", "inspect", "nothing", env={**fresh.environment(), "TERM": "xterm-256color", **more}) as session:
        code, refused = session.end()
    assert code == 125 and "nothing" in refused
    assert set(re.findall(r"\x1b[^A-Za-z]*[A-Za-z]?", said + refused)) == {"\x1b[K"}


# ---- silence -------------------------------------------------------------------------------------------------------

def test_a_pipe_gets_no_progress(name, fresh):
    """But who runs an image that is not here is told what happens: that is a notice, and --quiet takes it away."""
    ran = fresh("run", "--rm", name, timeout=120).ok()
    assert ran.text == ANSWER + "\n"
    assert ran.err.decode() == f"caisson: there is no image {name} here yet; pulling it\n"
    fresh("image", "rm", name).ok()
    fresh("image", "prune").ok()
    assert fresh("image", "pull", name).ok().said == ""
    built = fresh("template", "build", "--memory", "256M", name, timeout=120).ok()
    assert built.said == "" and re.fullmatch(r"[0-9a-f]{32}\n", built.text)
    assert fresh("image", "load", "--name", boxes.TINY, TINY_ARCHIVE).ok().said == ""


def test_standard_error_decides(name, fresh):
    """Results into a pipe, progress on the terminal: and the other way round silence."""
    for where, noisy in (("stdout", True), ("stderr", False)):
        master, slave = pty.openpty()
        streams = {"stdout": slave, "stderr": slave, where: subprocess.PIPE}
        with subprocess.Popen([BIN, "image", "pull", name], stdin=subprocess.DEVNULL, env=fresh.environment(), cwd="/", **streams) as process:
            os.close(slave)
            said = b""
            while True:
                try:
                    more = os.read(master, 65536)
                except OSError:  # the last slave is closed
                    break
                said += more
            piped = getattr(process, where).read()
        os.close(master)
        assert process.returncode == 0
        assert (b"layer 1 of" in said) is noisy and b"\x1b" not in piped and b"layer 1" not in piped, (said, piped)


def test_quiet_on_a_terminal(name, fresh):
    assert watched(fresh, "run", "--rm", "--quiet", name, timeout=120) == ANSWER + "\r\n"
    fresh("image", "rm", name).ok()
    fresh("image", "prune").ok()
    assert watched(fresh, "image", "pull", "--quiet", name) == name + "\r\n"
