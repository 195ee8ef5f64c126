"""Registries behind a forward proxy, as HTTPS_PROXY, HTTP_PROXY and NO_PROXY name it. The registry's name is known to the proxy alone,
so nothing else can have reached it."""
import base64
import json
import select
import socket
import threading

import pytest
import registries
from registries import PASSWORD, USER, Authority, Registry

HOST = "registry.test"


class Proxy:
    """Forwards requests and CONNECT tunnels; `seen` has the first line and the headers of each. Knows where HOST is."""

    def __init__(self, user=None):
        self.seen, self.user = [], user
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client:
            data = b""
            while b"\r\n\r\n" not in data:
                more = client.recv(65536)
                if not more:
                    return
                data += more
            head, rest = data.split(b"\r\n\r\n", 1)
            first, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            self.seen.append((first, headers))
            if self.user and headers.get("proxy-authorization") != "Basic " + base64.b64encode(self.user.encode()).decode():
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")
                return
            method, target, version = first.split()
            if method == "CONNECT":
                authority, answer, data = target, b"HTTP/1.1 200 fine\r\n\r\n", rest
            else:  # one request for each connection
                authority, slash, path = target.removeprefix("http://").partition("/")
                kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
                answer = b""
                data = "\r\n".join([f"{method} {slash}{path} {version}", *kept, "Connection: close", "", ""]).encode() + rest
            host, _, port = authority.rpartition(":")
            if host != HOST:
                client.sendall(b"HTTP/1.1 502 unknown\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", int(port))) as server:
                client.sendall(answer)
                server.sendall(data)
                self.pump(client, server)

    @staticmethod
    def pump(one, other):
        while True:
            for source in select.select([one, other], [], [])[0]:
                try:
                    data = source.recv(65536)
                    if not data:
                        return
                    (other if source is one else one).sendall(data)
                except OSError:
                    return

    def stop(self):
        self.listener.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    registries.check_tools()
    return tmp_path_factory.mktemp("proxy")


@pytest.fixture(scope="module")
def plain(place):
    registry = Registry(place / "plain")
    registry.push(registries.tiny_layout(place), "test/tiny:1")
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def authority(place):
    return Authority(place / "authority", "caisson test", names=[HOST])


@pytest.fixture(scope="module")
def secure(place, plain, authority):
    registry = Registry(place / "secure", authority=authority, password=True, storage=place / "plain/data")
    yield registry
    registry.stop()


@pytest.fixture
def fresh():
    with registries.fresh_home() as home:
        yield home


@pytest.fixture
def proxy():
    proxy = Proxy()
    yield proxy
    proxy.stop()


def test_plain_http(plain, proxy, fresh):
    name = f"{HOST}:{plain.port}/test/tiny:1"
    assert fresh("image", "pull", "--plain-http", name).code == 125  # nobody else knows that host
    fresh.more["http_proxy"] = proxy.name
    fresh("image", "pull", "--plain-http", name).ok()
    assert any(first.startswith(f"GET http://{HOST}:{plain.port}/v2/test/tiny/blobs/") for first, _ in proxy.seen), proxy.seen


def test_tls_goes_through_a_tunnel(secure, authority, proxy, fresh):
    """The proxy sees where, and neither what nor the registry's password."""
    fresh.more.update(HTTPS_PROXY=f"http://{proxy.name}/", HTTP_PROXY="http://127.0.0.1:9")
    name = f"{HOST}:{secure.port}"
    fresh("registry", "login", "-u", USER, "--password-stdin", "--tls-ca", authority.pem, name, input=PASSWORD.encode()).ok()
    fresh("image", "pull", "--tls-ca", authority.pem, f"{name}/test/tiny:1").ok()
    assert proxy.seen and {first for first, _ in proxy.seen} == {f"CONNECT {name} HTTP/1.1"}, proxy.seen
    assert all("authorization" not in headers for _, headers in proxy.seen), proxy.seen


def test_a_proxy_with_a_password(secure, authority, plain, fresh):
    proxy = Proxy(user="me:p@ss word")
    try:
        login = {"auths": {f"{HOST}:{secure.port}": {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}}
        (fresh.user / ".docker").mkdir()
        (fresh.user / ".docker/config.json").write_text(json.dumps(login))
        name = f"{HOST}:{secure.port}/test/tiny:1"
        fresh.more["HTTPS_PROXY"] = f"http://me:wrong@{proxy.name}"
        refused = fresh("image", "pull", "--tls-ca", authority.pem, name)
        assert refused.code == 125 and "407" in refused.said and "wrong" not in refused.said, refused
        fresh.more["HTTPS_PROXY"] = f"http://me:p%40ss%20word@{proxy.name}"
        fresh("image", "pull", "--tls-ca", authority.pem, name).ok()
    finally:
        proxy.stop()


@pytest.mark.parametrize("listed", [HOST, ".test", "other,registry.test", "*"])
def test_no_proxy(plain, proxy, fresh, listed):
    fresh.more.update(HTTP_PROXY=proxy.name, NO_PROXY=listed)
    result = fresh("image", "pull", "--plain-http", f"{HOST}:{plain.port}/test/tiny:1")
    assert result.code == 125 and f"{HOST} cannot be resolved" in result.said, result
    assert proxy.seen == []


def test_loopback_is_asked_directly(plain, proxy, fresh):
    fresh.more.update(HTTP_PROXY=proxy.name, HTTPS_PROXY=proxy.name)
    fresh("image", "pull", f"{plain.name}/test/tiny:1").ok()
    assert proxy.seen == []


@pytest.mark.parametrize("value, words", [
    ("socks5://127.0.0.1:1", "only http:// and https://"), ("http://", "no host"), ("http://u:secret@host/path", "path"),
    ("http://u:se cret@host", "%XX"), ("http://host:99999", "host and port"), ("x" * 5000, "longer than")])
def test_what_is_no_proxy(plain, fresh, value, words):
    fresh.more["HTTPS_PROXY"] = value
    refused = fresh("image", "pull", "--plain-http", f"{plain.name}/test/tiny:1")
    assert refused.code == 2 and "HTTPS_PROXY" in refused.said and words in refused.said and "cret" not in refused.said, refused
    del fresh.more["HTTPS_PROXY"]
    fresh.more["NO_PROXY"] = "a\nb"
    refused = fresh("image", "pull", f"{plain.name}/test/tiny:1")
    assert refused.code == 2 and "NO_PROXY" in refused.said, refused


def test_a_proxy_that_is_not_there(plain, fresh):
    fresh.more["HTTP_PROXY"] = "no-such-proxy.invalid:3128"
    refused = fresh("image", "pull", "--plain-http", f"{HOST}:{plain.port}/test/tiny:1")
    assert refused.code == 125 and "no-such-proxy.invalid:3128" in refused.said and "HTTP_PROXY" in refused.said, refused
