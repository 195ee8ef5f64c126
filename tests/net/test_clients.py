"""What programs that people use make of a box's network: curl, with HTTP/1.1 and HTTP/2, and nc."""
import shutil

import boxes
import internet
import pytest
from internet import OTHER, SILENT, WEB
from networks import box, denied

pytestmark = pytest.mark.skipif(bool(internet.unavailable()), reason=internet.unavailable())
NOT_RESOLVED, TLS_FAILED, CLOSED = 6, 35, (16, 52, 55, 56)  # curl(1); which of the last depends on how far it came


def in_box(world, *options):
    return box(world, "--copy", f"{world.place / 'cert.pem'}:/cert.pem", "--copy", f"{shutil.which('busybox')}:/busybox", *options)


def curl(ask, *words):
    """Its code, and what it says: the body, the version of HTTP, the status."""
    return ask.inside.caisson("exec", ask.name, "curl", "-s", "--max-time", "20", "--cacert", "/cert.pem", "-w", "|%{http_version}|%{http_code}", *words)


def web_requests(world):
    return [request for request in world.requests() if request[0].startswith("http")]


def test_curl_reaches_allowed_names(world):
    with in_box(world, "--allow-net", "*.example.test", "--allow-net", "example.test") as ask:
        assert curl(ask, "http://example.test/").ok().text == "reached example.test|1.1|200"
        assert curl(ask, "--http1.1", "https://www.example.test/").ok().text == "reached www.example.test|1.1|200"
        assert curl(ask, "https://www.example.test/").ok().text == "reached by HTTP/2|2|200"  # agreed on by TLS (ALPN)


def test_curl_is_refused_other_names(world):
    with in_box(world, "--allow-net", "*.example.test", "--allow-net", "example.test") as ask:
        world.forget()
        for url in ("http://other.test/", "https://badexample.test/"):
            assert curl(ask, url).code == NOT_RESOLVED, url
        # A lie about where the name is.
        lies = ("--resolve", f"other.test:80:{WEB}", "--resolve", f"other.test:443:{WEB}")
        page = curl(ask, *lies, "http://other.test/").ok().text
        assert "network policy" in page and page.endswith("|1.1|403"), page
        for more in ((), ("--http1.1",)):
            assert curl(ask, *lies, *more, "https://other.test/").code == TLS_FAILED
        assert denied(ask.name, name="other.test", port=80) and denied(ask.name, name="other.test", port=443)
        assert not web_requests(world)


def test_http2_without_tls_shows_no_name(world):
    """Its names are compressed: refused where a name has to be shown, and let through where the address is pinned to one."""
    with in_box(world, "--allow-net", "example.test", "--allow-net", "example.test:8080") as ask:
        world.forget()
        assert curl(ask, "--http2-prior-knowledge", "http://example.test/").code in CLOSED
        assert not any(event.get("name") for event in denied(ask.name, port=80))
        assert not web_requests(world)
        assert curl(ask, "--http2-prior-knowledge", "http://example.test:8080/").ok().text == "reached by HTTP/2|2|200"
        assert curl(ask, "--http2-prior-knowledge", f"http://{OTHER}:8080/").code != 0
        assert denied(ask.name, address=OTHER, port=8080)


def test_nc_sees_what_a_connection_came_to(world):
    with in_box(world, "--net", "public") as ask:
        def nc(*words, said="true"):
            return ask.inside.caisson("exec", ask.name, "sh", "-c", f"{said} | timeout 20 /busybox nc {' '.join(map(str, words))} 2>&1; echo $?").ok().text

        assert nc(WEB, 80) == "0\n"
        for address, port in ((WEB, 81), (internet.PRIVATE, 80), (internet.METADATA, 80)):
            said = nc(address, port)
            assert "Connection refused" in said and said.endswith("1\n"), (address, port, said)
        assert "timed out" in nc("-w", 2, SILENT, 80)
        assert nc("-w", 3, WEB, 7, said="echo there and back").startswith("there and back\n")
