"""run -it as people have it: below a shell, in a terminal emulator that shows what is on the screen (tmux)."""
import os
import shlex
import shutil
import signal
import subprocess
import time

import boxes
import pytest
from boxes import BASE, BIN, caisson

ROWS, COLUMNS = 33, 99


class Tmux:
    """A shell of the host in a window of its own."""

    def __init__(self, place):
        assert shutil.which("tmux"), "tmux is missing: sudo apt-get install tmux"
        self.socket = str(place / "tmux")
        shell = "exec env -i TERM=screen PS1='host> ' " + " ".join(shlex.quote(f"{key}={value}") for key, value in boxes.environment().items())
        self("-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), shell + " bash --norc --noprofile -i")
        self.wait_for("host> ")

    def __call__(self, *arguments):
        return subprocess.run(["tmux", "-S", self.socket, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, timeout=20,
                              env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}).stdout.decode()

    def screen(self):
        return self("capture-pane", "-p").rstrip("\n").split("\n")

    def wait_for(self, *lines, seconds=30):
        """Until the screen ends with these lines; a line that ends with a blank may be followed by a cursor."""
        wanted = [line.rstrip() for line in lines]
        end = time.monotonic() + seconds
        while [line.rstrip() for line in self.screen()[-len(wanted):]] != wanted:
            assert time.monotonic() < end, (wanted, self.screen())
            time.sleep(0.05)

    def type(self, text):
        self("send-keys", "-l", text)
        self("send-keys", "Enter")

    def key(self, *keys):
        self("send-keys", *keys)

    def close(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], stderr=subprocess.DEVNULL)


@pytest.fixture
def tmux(tmp_path):
    tmux = Tmux(tmp_path)
    yield tmux
    tmux.close()


def start(tmux, *options):
    tmux.type(" ".join([BIN, "run", "--rm", "-it", "-e", "'PS1=box> '", *options, BASE, "bash", "--norc"]))
    tmux.wait_for("box> ")


def is_sane(tmux):
    """The shell echoes, edits lines and begins each at the left, without anybody having called reset."""
    tmux.key("C-l")
    tmux.wait_for("host> ")
    tmux.type("echo sane-$((40+2))")
    tmux.wait_for("host> echo sane-$((40+2))", "sane-42", "host> ")


def test_a_shell_in_a_box(tmux):
    start(tmux, "--name", "in-tmux")
    tmux.type("stty size")
    tmux.wait_for("box> stty size", f"{ROWS} {COLUMNS}", "box> ")
    tmux("resize-window", "-x", "120", "-y", "40")
    time.sleep(0.5)
    tmux.type("stty size")
    tmux.wait_for("box> stty size", "40 120", "box> ")
    # A program that takes the whole screen, and gives it back.
    tmux.type(r"printf '\033[?1049h\033[2J\033[5;10Hfull\033[7;1H'; read; printf '\033[?1049l'")
    tmux.wait_for("         full")
    assert "".join(tmux.screen()).strip() == "full"
    tmux.key("Enter")
    tmux.wait_for("box> ")
    assert "40 120" in tmux.screen()
    tmux.type("cat")
    tmux.wait_for("box> cat")
    tmux.type("read")  # only now it surely runs, and the key is for it
    tmux.wait_for("read", "read")
    tmux.key("C-c")
    tmux.wait_for("read", "read", "^C", "box> ")
    tmux.key("C-p", "C-q")
    tmux.wait_for("  to end it: caisson stop in-tmux", "host> ")
    is_sane(tmux)
    caisson("rm", "--force", "in-tmux").ok()


def test_the_shell_is_sane_after_caisson_was_killed(tmux):
    start(tmux)
    one, = [process for process in boxes.of_role("cli") if b"run" in process.arguments]
    os.kill(one.pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while "Killed" not in "".join(tmux.screen()):
        assert time.monotonic() < end, tmux.screen()
        time.sleep(0.05)
    is_sane(tmux)
