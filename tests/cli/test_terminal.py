"""run -t: the command's terminal, and what becomes of the caller's own."""
import os
import signal
import termios
import time

import pytest
from boxes import BASE, caisson
from terminals import COLUMNS, ROWS, Session

def terminal(*command, options=("--rm", "-it")):
    return Session("run", *options, BASE, *command)


def shell(text, **more):
    return terminal("sh", "-c", text, **more)


def test_the_command_has_a_terminal_of_the_callers_size():
    with shell("test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo $TERM; exit 5") as session:
        code, said = session.end()
    assert code == 5
    assert said.split("\r\n") == ["/dev/pts/0", f"{ROWS} {COLUMNS}", "xterm", ""]


def test_term_can_be_chosen():
    with shell("echo $TERM", options=("--rm", "-it", "-e", "TERM=dumb")) as session:
        assert session.end() == (0, "dumb\r\n")


def test_the_size_follows():
    with shell("trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done") as session:
        session.wait_for("ready")
        session.resize(50, 120)
        session.wait_for("50 120")
        session.resize(10, 20)
        session.wait_for("10 20")


def test_keys_reach_the_command_and_not_caisson():
    with shell("trap 'echo interrupted' INT; trap 'echo quit' QUIT; echo ready; while :; do read line; echo got $line; done") as session:
        session.wait_for("ready")
        session.type_until("\x03", "interrupted")
        session.type_until("\x1c", "quit")
        session.type("some text\r")
        session.wait_for("got some text")


def test_control_c_ends_a_child_of_a_shell():
    with terminal("bash", "--norc") as session:
        session.type("PS1='prompt''> '\r")
        session.wait_for("prompt> ")
        session.type("sleep 1000; echo code-$?\r")
        session.wait_for("code-$?")
        time.sleep(0.5)
        session.type("\x03")
        session.wait_for("prompt> ")
        session.type("sleep 1000\r")
        session.wait_for("1000")
        time.sleep(0.5)
        session.type("\x1a")
        session.wait_for("Stopped")
        session.wait_for("prompt> ")
        session.type("exec sh -c 'exit 4'\r")  # plain exit would mind the stopped job
        assert session.end()[0] == 4


def test_control_d_is_the_end_of_input():
    with terminal("cat") as session:
        session.type("line\r")
        session.wait_for("line\r\nline\r\n")
        session.type("\x04")
        assert session.end()[0] == 0


def test_bytes_of_a_full_screen_program_pass_unchanged():
    screen = r"\033[?1049h\033[2J\033[5;7H\033[1;31mred\033[0m\302\265\033[?1049l"
    with shell(f"stty -opost; printf '{screen}'") as session:
        assert session.end() == (0, "\033[?1049h\033[2J\033[5;7H\033[1;31mred\033[0mµ\033[?1049l")


def test_the_callers_terminal_is_raw_meanwhile_and_restored():
    with shell("echo ready; read line; exit 0") as session:
        session.wait_for("ready")
        meanwhile = session.settings()
        assert not meanwhile[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        session.type("\r")
        assert session.end()[0] == 0
        assert session.settings()[3] & (termios.ICANON | termios.ECHO | termios.ISIG) == \
            termios.ICANON | termios.ECHO | termios.ISIG


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_the_callers_terminal_is_restored_whatever_ends_caisson(number):
    with shell("echo ready; exec sleep 1000") as session:
        before = session.settings()
        session.wait_for("ready")
        assert session.settings() != before
        os.kill(session.pid, number)
        session.end()
        end = time.monotonic() + 5
        while session.settings() != before and time.monotonic() < end:
            time.sleep(0.01)
        assert session.settings() == before


def test_a_mode_that_somebody_else_set_is_left_alone():
    """A shell that takes the terminal back for its line editing does not find it changed under its hands."""
    with shell("echo ready; exec sleep 1000") as session:
        session.wait_for("ready")
        chosen = session.settings()
        chosen[3] |= termios.ECHO
        termios.tcsetattr(session.slave, termios.TCSANOW, chosen)
        os.kill(session.pid, signal.SIGKILL)
        session.end()
        time.sleep(0.5)
        assert session.settings() == chosen


def test_output_only():
    """-t without -i: a terminal for the command, the caller's stays as it is and its keys are its own."""
    with shell("stty size; read line; echo end-of-input", options=("--rm", "-t")) as session:
        session.wait_for(f"{ROWS} {COLUMNS}")
        assert session.settings()[3] & termios.ICANON
        session.type("\x03")
        assert session.end()[0] == 130


def test_without_a_terminal_it_says_so():
    for options, which in ((("-it",), "standard input"), (("-t",), "standard output")):
        refused = caisson("run", "--rm", *options, BASE, "true", input=b"")
        assert refused.code == 2 and which in refused.said and "-t" in refused.said, refused


def boxes():
    return {box["name"]: box["state"] for box in caisson("ls", "--all", "--format", "json").json()}


@pytest.mark.parametrize("kept", [False, True])
def test_a_box_that_is_left_goes_on(kept):
    """Its command is not held up by output that nobody takes, and --force ends it."""
    name = f"left-{kept}"
    options = ("-it", "--name", name) + (() if kept else ("--rm",))
    with shell("echo ready; while :; do yes | head -c 100000; sleep 0.05; done", options=options) as session:
        before = session.settings()
        session.wait_for("ready")
        session.type("\x10\x11")
        code, said = session.end()
        assert code == 0 and name in said and f"attach {name}" in said
        assert session.settings() == before
    time.sleep(1)
    assert boxes()[name] == "running"
    assert caisson("rm", name).code == 125
    assert caisson("rm", "--force", name).ok().text == name + "\n"
    assert name not in boxes()


def test_a_box_that_is_left_ends_with_its_command():
    with shell("echo ready; sleep 2", options=("--rm", "-it", "--name", "left-alone")) as session:
        session.wait_for("ready")
        session.type("\x10\x11")
        assert session.end()[0] == 0
    assert boxes().get("left-alone") == "running"
    end = time.monotonic() + 20
    while "left-alone" in boxes():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_detach_keys_can_be_chosen_and_switched_off():
    with shell("echo ready; cat", options=("--rm", "-it", "--detach-keys", "")) as session:
        session.wait_for("ready")
        session.type("\x10\x11x\r\x04")
        code, said = session.end()
        assert code == 0 and "x" in said
    with shell("echo ready; exec sleep 1000", options=("--rm", "-it", "--name", "left-by-a", "--detach-keys", "ctrl-],a")) as session:
        session.wait_for("ready")
        session.type("\x1da")
        assert session.end()[0] == 0
    caisson("rm", "-f", "left-by-a").ok()
    refused = caisson("run", "--rm", "-i", "--detach-keys", "nonsense", BASE, "true")
    assert refused.code == 2 and "nonsense" in refused.said
