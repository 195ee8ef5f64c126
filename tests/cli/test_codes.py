"""Exit codes: the command's; 128+N; 124 timeout; 125 caisson; 126 not executable; 127 not found; 2 usage."""
import pytest
from boxes import BASE, at_best, caisson, environment, run


@pytest.mark.parametrize("command, code", [
    (["sh", "-c", "exit 7"], 7),
    (["sh", "-c", "exit 255"], 255),
    (["sh", "-c", "exit 125"], 125),
    (["sh", "-c", "kill -9 $$"], 137),
    (["sh", "-c", "kill -TERM $$"], 143),
    (["python3", "-c", "import os; os.abort()"], 134),
    # The exit of the main command is the box's, whatever else still runs.
    (["sh", "-c", "sleep 100 & exit 3"], 3),
])
def test_the_command_s_own_code(command, code):
    result = run(BASE, *command)
    assert (result.code, result.out, result.err) == (code, b"", b"")


@pytest.mark.parametrize("command, code, message", [
    (["/no/such"], 127, "/no/such"),
    (["no-such-command"], 127, "not found"),
    (["/etc/passwd/x"], 127, "/etc/passwd/x"),
    ([""], 2, "empty"),
    (["/etc/passwd"], 126, "ermission denied"),
    (["/usr"], 126, "/usr"),
])
def test_commands_that_cannot_start(command, code, message):
    result = run(BASE, *command)
    assert (result.code, result.out) == (code, b"")
    assert message in result.said and result.said.startswith("caisson: ")


def test_a_program_without_an_interpreter_is_told_apart():
    # The script makes a program whose first line names nothing that exists, and starts it.
    result = run(BASE, "sh", "-c", "printf '#!/no/interpreter\\n' > /x; chmod 755 /x; exec /x")
    assert result.code in (126, 127)
    directory = run("-w", "/etc/passwd", BASE, "true")
    assert directory.code == 126 and "working directory" in directory.said


def test_timeout():
    result = at_best(lambda: run("--timeout", "1s", BASE, "sleep", "60"), seconds=3)
    assert (result.code, result.out) == (124, b"") and result.seconds < 3, result
    assert "in time" in result.said


def test_timeout_kills_all_children_and_keeps_the_output():
    stubborn = """trap '' TERM INT HUP; echo first
                  (trap '' TERM; setsid sleep 60) & setsid sh -c 'sleep 60 & sleep 60' & sleep 60"""
    result = at_best(lambda: run("--timeout", "1s", BASE, "sh", "-c", stubborn), seconds=3)
    assert (result.code, result.out) == (124, b"first\n") and result.seconds < 3, result
    assert run("--timeout", "20s", BASE, "sh", "-c", "exit 5").code == 5


def test_an_unknown_image_says_what_to_do():
    result = run("no/such:image", "true")
    assert result.code == 125
    assert "no/such:image" in result.said and "caisson image" in result.said


def test_caisson_s_own_failures(tmp_path):
    broken = caisson("run", "--rm", BASE, "true", env=environment(CAISSON_ASSETS=str(tmp_path)))
    assert broken.code == 125 and str(tmp_path) in broken.said and "assets" in broken.said
    closed = caisson("ls", env=environment(CAISSON_HOME="relative"))
    assert closed.code == 2 and "absolute" in closed.said
