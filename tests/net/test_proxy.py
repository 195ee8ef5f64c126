"""A box behind a proxy: what its policy allows goes through it, by address, and nothing goes around it."""
import contextlib
import subprocess

import boxes
import internet
import pytest
from boxes import BASE
from internet import METADATA, OTHER, PRIVATE, WEB, WEB6
from networks import box, denied, events, network_process

pytestmark = pytest.mark.skipif(bool(internet.unavailable()), reason=internet.unavailable())
PORTS = {"http": 3128, "socks5": 1080}
HTTP = f"http://127.0.0.1:{PORTS['http']}"


@pytest.fixture(scope="module")
def proxies(world):
    return {kind: world.proxy(kind, port) for kind, port in PORTS.items()}


@contextlib.contextmanager
def refusing(world, number):
    file = world.place / "refuse"
    file.write_text(str(number))
    try:
        yield
    finally:
        file.unlink()


def asked(world):
    return [request[2:] for request in world.requests() if request[0] == "proxy"]


def question(kind, place):
    """What a proxy has to see of a connection, and all of it."""
    return ["CONNECT", place, f"Host:{place}"] if kind == "http" else ["5", "1", place, "00"]


@pytest.mark.parametrize("kind", PORTS)
def test_what_is_allowed_goes_through_it(world, proxies, kind):
    url = f"{kind}://localhost:{PORTS[kind]}"
    with box(world, "--net", "public", "--deny-net", "example.test", "--net-proxy", url) as ask:
        shown = boxes.inspect(ask.name)["network_proxy"]
        assert shown == f"{kind}://127.0.0.1:{PORTS[kind]}"
        world.forget()
        for line, place in ((f"http {WEB} 80 x", f"{WEB}:80"), (f"http {WEB6} 80 x", f"[{WEB6}]:80"), ("http other.test 8080 other.test", f"{OTHER}:8080"), (f"bulk {OTHER} 4", f"{OTHER}:80")):
            world.forget()
            assert ask(line)["ok"], line
            assert asked(world) == [question(kind, place)], line
        assert ask(f"greeted {WEB} 25")["greeting"] == "220 hello"
        told = [event for event in events(ask.name, "connection_allowed") if event["port"] == 25]
        assert [event["proxy"] for event in told] == [shown], told


@pytest.mark.parametrize("kind", PORTS)
def test_a_name_goes_through_it_as_the_address_that_was_judged(world, proxies, kind):
    with box(world, "--allow-net", "other.test", "--allow-net", "inside.test", "--net-proxy", f"{kind}://127.0.0.1:{PORTS[kind]}") as ask:
        world.forget()
        assert ask("tls other.test 443 other.test")["ok"]
        # A lie about an address, and a name that leads inside.
        assert ask(f"http {PRIVATE} 80 other.test")["error"] == "ECONNREFUSED"
        assert ask(f"http {WEB} 80 other.test")["body"] == "reached other.test"
        assert not ask(f"http {WEB} 80 inside.test")["ok"]
        assert ask(f"http {WEB} 80 example.test")["status"] == 403
        assert asked(world) == [question(kind, f"{OTHER}:443"), question(kind, f"{OTHER}:80")]


def test_what_is_denied_never_comes_to_it(world, proxies):
    with box(world, "--net", "public", "--deny-net", WEB, "--net-proxy", HTTP) as ask:
        world.forget()
        for address in (METADATA, PRIVATE, internet.HOST, WEB):
            assert ask(f"connect {address} 80")["error"] == "ECONNREFUSED", address
        # Nor does the box, by itself.
        for address in ("127.0.0.1", "host.caisson.internal"):
            assert not ask(f"connect {address} {PORTS['http']}")["ok"], address
        assert not asked(world)
        assert "proxy" not in denied(ask.name, address=PRIVATE)[0]


def test_the_host_is_not_asked_of_it(world, proxies):
    with box(world, "--allow-net", f"host.caisson.internal:{PORTS['http']}", "--net-proxy", HTTP) as ask:
        world.forget()
        # The host's server that answers is the proxy itself, asked by the box.
        assert ask(f"http host.caisson.internal {PORTS['http']} x")["status"] == 405
        assert [request[:2] for request in asked(world)] == [["GET", "/"]]


@pytest.mark.parametrize("kind, number, error", [("http", 403, "ECONNREFUSED"), ("http", 407, "ECONNREFUSED"), ("http", 502, "EHOSTUNREACH"), ("socks5", 2, "ECONNREFUSED"),
                                                 ("socks5", 3, "ENETUNREACH"), ("socks5", 4, "EHOSTUNREACH"), ("socks5", 5, "ECONNREFUSED")])
def test_what_it_refuses_is_an_error_of_connecting(world, proxies, kind, number, error):
    with box(world, "--net", "public", "--net-proxy", f"{kind}://127.0.0.1:{PORTS[kind]}") as ask, refusing(world, number):
        world.forget()
        assert ask(f"connect {WEB} 80")["error"] == error
        assert asked(world) == [question(kind, f"{WEB}:80")]
        told, = boxes.until(lambda: events(ask.name, "connection_failed"), 5)
        assert told["reason"].startswith("the proxy answered ") and str(number) in told["reason"] and told["proxy"].startswith(kind), told


def test_without_it_nothing_is_reached(world):
    """Nobody listens there. Never directly: nothing of it arrives."""
    with box(world, "--net", "public", "--deny-net", "other.test", "--net-proxy", "http://127.0.0.1:3999") as ask:
        world.forget()
        assert ask(f"http {WEB} 80 x")["error"] == "ECONNREFUSED"
        assert not ask("http example.test 80 example.test")["ok"]
        told = boxes.until(lambda: events(ask.name, "connection_failed"), 5)
        assert {event["reason"] for event in told} == {"the proxy is not reached: Connection refused"}, told
        assert not [request for request in world.requests() if request[0] == "http"], "it went around the proxy"


def test_datagrams_do_not_go_around_it(world, proxies):
    with box(world, "--net", "public", "--net-proxy", HTTP) as ask:
        for address in (WEB, WEB6):
            result = ask(f"udp {address} 7 10")
            assert result.get("error") == "ECONNREFUSED", f"a datagram went around the proxy: {result}"
        told, = denied(ask.name, address=WEB, protocol="udp")
        assert told["rule"] == "network proxy" and told["reason"] == "a proxy carries TCP only"
        # Names are looked up by caisson itself.
        assert ask("resolve other.test")["addresses"] == [OTHER]


def test_it_stays_while_the_box_changes(world, proxies):
    with box(world, "--net", "public", "--net-proxy", HTTP) as ask:
        def goes_through():
            world.forget()
            assert ask(f"http {WEB} 80 x")["ok"]
            assert asked(world) == [question("http", f"{WEB}:80")]
            assert boxes.inspect(ask.name)["network_proxy"] == HTTP
        ask.inside.caisson("update", "--deny-net", OTHER, ask.name).ok()
        goes_through()
        network_process().kill()
        boxes.until(lambda: events(ask.name, "network_ended"), 10)
        ask.inside.caisson("update", "--net-restart", ask.name).ok()
        goes_through()
        ask.inside.caisson("stop", "--timeout", "0s", ask.name).ok()
        refused = ask.inside.caisson("update", "--net", "none", ask.name)
        assert refused.code == 2 and "would forget" in refused.said, refused
        ask.inside.caisson("start", ask.name).ok()
        goes_through()


def test_published_ports_have_nothing_to_do_with_it(world, proxies):
    with box(world, "--net", "public", "-p", "8083:80", "--net-proxy", HTTP) as ask:
        ask.inside.caisson("exec", "-d", ask.name, "python3", "-c", "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=80, bind='0.0.0.0')").ok()
        world.forget()
        fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8083/', timeout=10).status)"
        words = ["nsenter", f"--net=/proc/{world.host}/ns/net", "python3", "-c", fetch]
        boxes.until(lambda: subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout == b"200\n", 20)
        assert not asked(world)


@pytest.mark.parametrize("url, words", [("ftp://192.0.2.1:21", "neither of HTTP nor of SOCKS5"), ("http://192.0.2.1", "names no port"), ("http://192.0.2.1:80/x", "behind the port"),
                                        ("socks5://proxy.test:1080", "not looked up"), ("http://me:sesame@192.0.2.1:80", "cannot log in")])
def test_what_cannot_be_meant_is_refused(url, words):
    refused = boxes.caisson("create", "--pull", "never", "--net", "public", "--net-proxy", url, BASE, "true")
    assert refused.code == 2 and words in refused.said and "write" in refused.said and "sesame" not in refused.said, refused


def test_it_needs_a_network():
    refused = boxes.caisson("create", "--pull", "never", "--net", "none", "--net-proxy", HTTP, BASE, "true")
    assert refused.code == 2 and "without a network has no proxy" in refused.said, refused
