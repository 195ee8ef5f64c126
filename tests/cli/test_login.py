"""caisson registry login asks for the password on a terminal: unseen, and the terminal is as before, whatever happens."""
import base64
import json
import os
import signal
import termios
import time

import pytest
import registries
from registries import PASSWORD, USER, Registry
from terminals import Session

SILENT = termios.ICANON | termios.ECHO | termios.ISIG


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    registries.check_tools()
    registry = Registry(tmp_path_factory.mktemp("login") / "registry", password=True)
    yield registry
    registry.stop()


@pytest.fixture
def fresh():
    with registries.fresh_home() as home:
        yield home


def log_in(fresh, registry, *options):
    return Session("registry", "login", *options, registry.name, env=fresh.environment())


def stored(fresh, registry):
    config = json.loads((fresh.user / ".docker/config.json").read_text())
    return base64.b64decode(config["auths"][registry.name]["auth"]).decode()


def test_the_password_is_asked_for_and_not_shown(registry, fresh):
    with log_in(fresh, registry, "-u", USER) as session:
        before = session.settings()
        assert before[3] & SILENT == SILENT
        session.wait_for(f"Password of {USER}: ")
        assert not session.settings()[3] & termios.ECHO
        session.type(PASSWORD + "\r")
        code, said = session.end()
        assert code == 0 and f"logged in to {registry.name}" in said, said
        assert said.startswith("\r\n") and PASSWORD not in said, said
        assert session.settings() == before
    assert stored(fresh, registry) == f"{USER}:{PASSWORD}"


def test_the_user_is_asked_for_and_shown(registry, fresh):
    with log_in(fresh, registry) as session:
        session.wait_for(f"User for {registry.name}: ")
        session.type(USER + "\r")
        assert USER in session.wait_for(f"Password of {USER}: ")
        session.type(PASSWORD + "\r")
        code, said = session.end()
        assert code == 0 and PASSWORD not in said, said
    assert stored(fresh, registry) == f"{USER}:{PASSWORD}"


def test_a_typing_error_can_be_mended(registry, fresh):
    with log_in(fresh, registry, "-u", USER) as session:
        session.wait_for(": ")
        session.type("nonsense\x15" + PASSWORD + "xy\x7f\x08\r")
        assert session.end()[0] == 0
    assert stored(fresh, registry) == f"{USER}:{PASSWORD}"


def test_a_wrong_password_is_not_repeated(registry, fresh):
    with log_in(fresh, registry, "-u", USER) as session:
        before = session.settings()
        session.wait_for(": ")
        session.type("something wrong\r")
        code, said = session.end()
        assert code == 125 and f"user {USER}" in said and "something" not in said, said
        assert session.settings() == before
    assert not (fresh.user / ".docker").exists()


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_giving_up(registry, fresh, key):
    with log_in(fresh, registry, "-u", USER) as session:
        before = session.settings()
        session.wait_for(": ")
        session.type("half" + key)
        code, said = session.end()
        assert code == 125 and "cancelled" in said and "half" not in said, said
        assert session.settings() == before
    assert not (fresh.user / ".docker").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_terminal_is_restored_whatever_ends_it(registry, fresh, number):
    with log_in(fresh, registry, "-u", USER) as session:
        before = session.settings()
        session.wait_for(": ")
        session.type("half")
        os.kill(session.pid, number)
        code, said = session.end()
        assert code == -number and "half" not in said, said
        end = time.monotonic() + 5
        while session.settings() != before and time.monotonic() < end:
            time.sleep(0.01)
        assert session.settings() == before


def test_without_a_terminal_it_says_what_to_do(registry, fresh):
    for options, words in ((["-u", USER], "--password-stdin"), (["--password-stdin"], "-u")):
        refused = fresh("registry", "login", *options, registry.name, input=PASSWORD.encode())
        assert refused.code == 2 and words in refused.said and PASSWORD not in refused.said, refused
