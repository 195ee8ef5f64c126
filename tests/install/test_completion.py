"""The shells complete commands, options, files, and the names of boxes and images that are there."""
import os
import pathlib
import pty
import select
import subprocess
import time

import pytest

import boxes
from installed import BUILD

PAGES = BUILD / "generated/pages"
SHELLS = ["bash", "zsh", "fish"]


class Terminal:
    """An interactive shell. `key` completes the line; in bash it puts all matches into it, in zsh it lists several."""

    def __init__(self, arguments, set_up, key):
        self.key = key
        pid, self.fd = pty.fork()
        if pid == 0:
            os.chdir(boxes.WORK)
            environment = boxes.environment(TERM="dumb", PS1="$ ", INPUTRC="/dev/null", ZDOTDIR="/nonexistent")
            environment["PATH"] = f"{pathlib.Path(boxes.BIN).parent}:{environment['PATH']}"
            os.execvpe(arguments[0], arguments, environment)
        self.pid = pid
        for line in set_up:
            self.enter(line)

    def enter(self, text):
        """Types a line and reads until the shell has carried it out."""
        os.write(self.fd, text.encode() + b"\r")
        os.write(self.fd, b"printf 'do%s\\n' ne\r")
        return self.read_until("\ndone")

    def read_until(self, mark):
        seen, deadline = "", time.monotonic() + 30
        while mark not in seen.replace("\r", ""):
            assert time.monotonic() < deadline, f"no '{mark}' in: {seen!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                seen += os.read(self.fd, 65536).decode(errors="replace")
        return seen.replace("\r", "")

    def complete(self, line):
        """The words behind `caisson` that the line has then."""
        # A command put in front of the line prints its words.
        os.write(self.fd, line.encode() + self.key)
        os.write(self.fd, b"\x01" + b"printf '<%s>\\n' \r")
        os.write(self.fd, b"printf 'do%s\\n' ne\r")
        self.seen = self.read_until("\ndone")
        return [text[1:-1] for text in self.seen.split("\n") if text.startswith("<") and text.endswith(">")][1:]

    def offers(self, line):
        """What may follow: the words put into the line, and those listed below it."""
        words = self.complete(line)
        return set(words) | set(self.seen.partition("\n$ ")[0].split())

    def close(self):
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def bash():
    return Terminal(["bash", "--norc", "--noprofile", "-i"],
                    [f"source '{PAGES}/bash/caisson'", "bind 'set bell-style none'", "bind 'set enable-bracketed-paste off'",
                     "set +o history"], b"\x1b*")


def zsh():
    return Terminal(["zsh", "-f", "-i"],
                    ["unsetopt zle_bracketed_paste 2>/dev/null; unset zle_bracketed_paste; setopt no_beep no_list_beep",
                     f"fpath=('{PAGES}/zsh' $fpath)", "autoload -Uz compinit; compinit -u -D",
                     "bindkey -e; zstyle ':completion:*' verbose no; LISTMAX=1000; setopt no_always_last_prompt"],
                    b"\t")


class Fish:
    """Fish answers what it would offer, by itself."""

    def complete(self, line):
        environment = boxes.environment()
        environment["PATH"] = f"{pathlib.Path(boxes.BIN).parent}:{environment['PATH']}"
        ended = subprocess.run(["fish", "--no-config", "-c", f"source {PAGES}/fish/caisson.fish; complete -C \"$argv\"", line],
                               capture_output=True, text=True, env=environment, cwd=boxes.WORK)
        assert ended.returncode == 0 and not ended.stderr, ended.stderr
        before = line.split(" ")[1:-1]
        return before + [offer.split("\t")[0] for offer in ended.stdout.splitlines()]

    def offers(self, line):
        return set(self.complete(line))

    def close(self):
        pass


@pytest.fixture(scope="module", params=SHELLS)
def shell(request):
    started = {"bash": bash, "zsh": zsh, "fish": Fish}[request.param]()
    yield started
    started.close()


def test_commands(shell):
    assert {"run", "ls", "image", "doctor"} <= shell.offers("caisson ")
    assert shell.complete("caisson im") == ["image"]
    assert {"ls", "load", "rm"} <= shell.offers("caisson image ")


def test_options(shell):
    assert shell.complete("caisson run --read") == ["run", "--read-only"]
    assert {"--rm", "--memory", "--timeout"} <= shell.offers("caisson run --")
    assert shell.complete("caisson image ls --f") == ["image", "ls", "--format"]


def test_words_of_an_option(shell):
    assert {"json", "text"} <= shell.offers("caisson ls --format ")
    assert shell.complete("caisson ls --format j") == ["ls", "--format", "json"]


def test_options_end_at_the_image(shell):
    assert not {"--rm", "--read-only"} & shell.offers(f"caisson run {boxes.BASE} --r")


def test_values_are_no_commands(shell):
    assert shell.complete("caisson run --name image --read") == ["run", "--name", "image", "--read-only"]


def test_names_of_images(shell, tiny):
    names = [image["name"] for image in boxes.caisson("image", "ls", "--format", "json").json()]
    assert len(names) >= 2
    assert set(names) <= shell.offers("caisson run --rm -i ")
    for name in names:
        assert shell.complete(f"caisson image rm {name[:-3]}") == ["image", "rm", name]


@pytest.mark.keeps
def test_names_of_boxes(shell, tiny, kept_boxes):
    boxes.caisson("run", "--name", "first-kept", tiny, "true").ok()
    boxes.caisson("run", "--name", "other-kept", tiny, "true").ok()
    assert {"first-kept", "other-kept"} <= shell.offers("caisson rm ")
    assert shell.complete("caisson rm oth") == ["rm", "other-kept"]
    assert shell.complete("caisson rm first-kept oth") == ["rm", "first-kept", "other-kept"]


def test_files(shell, tiny):
    assert shell.complete("caisson image load tiny.t") == ["image", "load", "tiny.tar"]
