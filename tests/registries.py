"""Real registries for the black-box tests: docker-registry on loopback, plain or with TLS, open, with passwords or
behind a token server; certificates by openssl; images made on the spot and pushed with skopeo."""
import base64
import contextlib
import ctypes
import ctypes.util
import hashlib
import http.server
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import urllib.parse

import boxes
from boxes import TINY_ARCHIVE, WORK

USER, PASSWORD = "robot", "correct horse: battery"


def tool(*arguments, **more):
    done = subprocess.run([str(word) for word in arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, timeout=120, **more)
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    return done.stdout


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def bcrypt(password):
    library = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    return library.crypt(password.encode(), b"$2y$05$abcdefghijklmnopqrstuu").decode()


class Authority:
    """A certificate authority, and a certificate of it for 127.0.0.1 and further names."""

    def __init__(self, place, name, names=()):
        place.mkdir()
        self.pem, self.key, self.certificate = place / "ca.pem", place / "key.pem", place / "cert.pem"
        tool("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", place / "ca.key",
             "-out", self.pem, "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,digitalSignature")
        (place / "ext").write_text("subjectAltName=" + ",".join(["IP:127.0.0.1", "DNS:localhost"] + [f"DNS:{other}" for other in names]) + "\nextendedKeyUsage=serverAuth\n")
        tool("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", self.key, "-out", place / "csr")
        tool("openssl", "x509", "-req", "-in", place / "csr", "-CA", self.pem, "-CAkey", place / "ca.key", "-CAcreateserial",
             "-days", "2", "-extfile", place / "ext", "-out", self.certificate)

    def server_context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Registry:
    """A docker-registry process with its own storage. It may be stopped and started again on the same port."""

    def __init__(self, place, authority=None, password=False, tokens=None, storage=None):
        self.place, self.port = place, free_port()
        place.mkdir()
        self.name = f"127.0.0.1:{self.port}"
        self.tls = authority is not None
        config = {"version": "0.1", "log": {"level": "info", "accesslog": {"disabled": False}},
                  "storage": {"filesystem": {"rootdirectory": str(storage or place / "data")}, "delete": {"enabled": True}},
                  "http": {"addr": self.name, "secret": "x"}}
        if authority:
            config["http"]["tls"] = {"certificate": str(authority.certificate), "key": str(authority.key)}
        if password:
            (place / "htpasswd").write_text(f"{USER}:{bcrypt(PASSWORD)}\n")
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(place / "htpasswd")}}
        if tokens:
            config["auth"] = {"token": {"realm": tokens.realm, "service": "test-registry", "issuer": "test-issuer",
                                        "rootcertbundle": str(tokens.authority.pem)}}
        (place / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        self.process = None
        self.start()

    def start(self):
        self.log = open(self.place / "log", "ab")
        self.process = subprocess.Popen(["docker-registry", "serve", self.place / "config.yml"], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log, cwd="/")
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None and time.monotonic() < deadline, (self.place / "log").read_text()
            time.sleep(0.02)

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.log.close()
            self.process = None

    def push(self, source, name, *options):
        login = ["--dest-creds", f"{USER}:{PASSWORD}"] if (self.place / "htpasswd").exists() else []
        tool("skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", *login, *options, source,
             f"docker://{self.name}/{name}")

    def requests(self, text):
        """How many requests of the access log hold `text`."""
        return sum(text in line for line in (self.place / "log").read_text(errors="replace").splitlines() if '"GET ' in line)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server:
    """An HTTP server in this process, for what no real registry would do. `get(handler)` answers; every request's
    path and headers are kept in `seen`."""

    def __init__(self, get, authority=None):
        self.seen = []

        class Own(Handler):
            def do_GET(handler):
                self.seen.append((handler.path, dict(handler.headers.items())))
                with contextlib.suppress(ConnectionError):
                    get(handler)
            do_POST = do_GET

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own)
        self.server.daemon_threads = True
        if authority:
            self.server.socket = authority.server_context().wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.name = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class TokenServer(Server):
    """Gives out the tokens that docker-registry accepts (RS256), to USER with PASSWORD, or to anybody for `public/`."""

    def __init__(self, authority):
        self.authority = authority
        super().__init__(self.token, authority)
        self.realm = f"https://{self.name}/token"

    def token(self, handler):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(handler.path).query)
        given = handler.headers.get("Authorization", "")
        known = given == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if given and not known:
            return handler.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}')
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            if known or name.startswith("public/"):
                access.append({"type": kind, "name": name, "actions": actions.split(",")})

        def part(value):
            return base64.urlsafe_b64encode(value).rstrip(b"=")
        der = tool("openssl", "x509", "-in", self.authority.certificate, "-outform", "DER")
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {"iss": "test-issuer", "sub": USER if known else "", "aud": "test-registry", "exp": now + 300, "nbf": now - 10,
                  "iat": now, "jti": str(time.monotonic_ns()), "access": access}
        text = part(json.dumps(head).encode()) + b"." + part(json.dumps(claims).encode())
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.authority.key], input=text, stdout=subprocess.PIPE, check=True).stdout
        handler.answer(200, json.dumps({"token": (text + b"." + part(signature)).decode(), "expires_in": 300}).encode())


class Image:
    """An image as its blobs, for servers of our own: layers (tar bytes), lowest first."""

    def __init__(self, layers, architecture="amd64", **config):
        self.blobs = {}
        self.layer_digests = [self.add(layer) for layer in layers]
        self.config = {"architecture": architecture, "os": "linux", "config": config,
                       "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}}
        self.build()

    def add(self, data):
        self.blobs[digest_of(data)] = data
        return digest_of(data)

    def build(self):
        text = json.dumps(self.config).encode()
        self.manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                         "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": self.add(text), "size": len(text)},
                         "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(self.blobs[digest])}
                                    for digest in self.layer_digests]}

    def text(self):
        return json.dumps(self.manifest).encode()

    def serve(self, handler):
        """As a registry without authentication serves it, under any name and tag."""
        kind, _, which = handler.path.rpartition("/")
        if kind.endswith("/manifests"):
            text = self.text()
            return handler.answer(200, text, [("Content-Type", self.manifest["mediaType"])])
        if kind.endswith("/blobs") and which in self.blobs:
            return handler.answer(200, self.blobs[which])
        return handler.answer(404, b"{}")


def write_layout(image, directory):
    """An image as an OCI layout, with the tag `x`."""
    (directory / "blobs/sha256").mkdir(parents=True)
    text = image.text()
    image.add(text)
    for digest, data in image.blobs.items():
        (directory / "blobs/sha256" / digest[7:]).write_bytes(data)
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": image.manifest["mediaType"], "digest": digest_of(text), "size": len(text),
         "annotations": {"org.opencontainers.image.ref.name": "x"}}]}))


def push_image(registry, image, name, directory):
    write_layout(image, directory)
    registry.push(f"oci:{directory}:x", name)


def tar_of(entries):
    """entries: (name, type, extra) with type one of file, dir, link, hard, or a TarInfo ready made."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            name, kind, extra = entry
            info = tarfile.TarInfo(name)
            if kind == "file":
                info.size = len(extra)
                tar.addfile(info, io.BytesIO(extra))
                continue
            info.type = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}[kind]
            info.mode = 0o755
            info.linkname = extra or ""
            tar.addfile(info)
    return buffer.getvalue()


def tiny_layout(place):
    """The tiny image as an OCI layout with the tag `latest`."""
    if not (place / "tiny").exists():
        with tarfile.open(TINY_ARCHIVE) as archive:
            archive.extractall(place / "tiny")
    return f"oci:{place}/tiny:latest"


def check_tools():
    for program, package in (("docker-registry", "docker-registry"), ("skopeo", "skopeo"), ("openssl", "openssl")):
        assert shutil.which(program), f"{program} is missing: sudo apt-get install {package}"


def snapshot(home):
    """Everything below a home but the database and its files, with sizes and contents' digests."""
    found = {}
    for directory, names, files in os.walk(home):
        for name in names:
            if name != "tmp":  # where writers work; what they leave in it is seen
                found[os.path.join(directory, name)] = "directory"
        for name in files:
            path = pathlib.Path(directory, name)
            if path.name.startswith("caisson.db") or path.suffix == ".lock":
                continue
            found[str(path)] = (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest() if path.stat().st_size < 1 << 20 else "")
    return found


class Home:
    """A home of its own for each test, so that nothing is there already. HOME (for logins) is its `user` directory."""

    def __init__(self, base):
        self.base, self.home, self.user = base, base / "home", base / "user"
        self.home.mkdir(mode=0o711)
        self.user.mkdir()
        self.more = {}

    def environment(self):
        return boxes.environment(CAISSON_HOME=str(self.home), HOME=str(self.user), **self.more)

    def __call__(self, *arguments, **more):
        return boxes.caisson(*arguments, env=self.environment(), **more)

    def start(self, *arguments, **more):
        return boxes.Started(*arguments, env=self.environment(), **more)

    def images(self):
        return {image["name"]: image for image in self("image", "ls", "--format", "json").json()}

    def downloads(self):
        try:
            return sorted(os.listdir(self.home / "images/downloads"))
        except FileNotFoundError:
            return []

    def partial_bytes(self):
        total = 0
        for name in self.downloads():
            with contextlib.suppress(FileNotFoundError):  # complete since
                total += (self.home / "images/downloads" / name).stat().st_size if name.endswith(".part") else 0
        return total


@contextlib.contextmanager
def fresh_home():
    base = WORK / f"registry-{os.getpid()}-{time.monotonic_ns()}"
    base.mkdir(mode=0o711)
    try:
        yield Home(base)
    finally:
        shutil.rmtree(base)


class SlowRelay:
    """Passes TCP connections on to a registry, at a few MiB a second."""

    def __init__(self, registry, bytes_per_second=3 << 20):
        self.registry, self.rate = registry, bytes_per_second
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.name = f"127.0.0.1:{self.port}"
        self.sockets = []
        self.open = True
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.registry.port))
            except OSError:
                client.close()
                continue
            self.sockets += [client, server]
            threading.Thread(target=self.copy, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, self.rate), daemon=True).start()

    @staticmethod
    def copy(source, target, rate):
        try:
            while data := source.recv(32 << 10):
                target.sendall(data)
                if rate:
                    time.sleep(len(data) / rate)
        except OSError:
            pass
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        for one in self.sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.sockets = []

    def stop(self):
        self.listener.close()
        self.cut()
