"""The servers of the private internet, in one process: servers.py PLACE [TCP_PORTS UDP_PORTS]. It says "ready" when all listen.

Names are answered as the file PLACE/zone says at that moment. With ports (as 80,443): at each address that there is what
comes to them is sent back as it came, and written down.
"""
import json
import pathlib
import socket
import socketserver
import struct
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import internet  # noqa: E402

PLACE = pathlib.Path(sys.argv[1])
LOCK = threading.Lock()
BULK = 1 << 20


def note(*words):
    with LOCK, open(PLACE / "requests", "a") as file:
        file.write(" ".join(map(str, words)) + "\n")


class Threaded(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address, daemon_threads, request_queue_size = True, True, 2000


class Threaded6(Threaded):
    address_family = socket.AF_INET6


class Http(socketserver.StreamRequestHandler):
    def handle(self):
        secure = getattr(self.server, "context", None)
        if secure:
            try:
                self.request = secure.wrap_socket(self.request, server_side=True)
            except OSError:
                return
            self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb")
        first = self.rfile.readline().decode(errors="replace").split()
        if len(first) < 2:
            return
        if first[0] == "PRI":
            return self.http2()
        headers = {}
        while (line := self.rfile.readline().decode(errors="replace").strip()):
            key, _, value = line.partition(":")
            headers[key.lower()] = value.strip()
        note("http", self.server.server_address[0], first[1], headers.get("host", "-"))
        if first[1].startswith("/bulk/"):
            return self.bulk(int(first[1].split("/")[2]))
        if first[1] == "/sink":
            return self.sink(int(headers["content-length"]))
        body = b"reached " + headers.get("host", "-").encode()
        self.answer(body)

    def answer(self, body):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.wfile.flush()

    def http2(self):
        """The rest of the preface, then frames (RFC 9113): each request is answered in the same words, whatever it asks for."""
        if self.rfile.read(8) != b"\r\nSM\r\n\r\n":
            return
        note("http2", self.server.server_address[0], self.server.server_address[1])

        def frame(kind, flags, stream, payload=b""):
            self.wfile.write(len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)
            self.wfile.flush()
        headers, settings, data = 1, 4, 0
        acknowledged, end_of_stream, end_of_headers = 1, 1, 4
        status_200 = b"\x88"
        frame(settings, 0, 0)
        while len(head := self.rfile.read(9)) == 9:
            self.rfile.read(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == settings and not flags & acknowledged:
                frame(settings, acknowledged, 0)
            if kind == headers:
                frame(headers, end_of_headers, stream, status_200)
                frame(data, end_of_stream, stream, b"reached by HTTP/2")

    def bulk(self, megabytes):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (megabytes * BULK))
        for number in range(megabytes):
            self.wfile.write(struct.pack("<Q", number) * (BULK // 8))
        self.wfile.flush()

    def sink(self, length):
        import hashlib
        digest = hashlib.sha256()
        while length > 0:
            data = self.rfile.read(min(length, BULK))
            if not data:
                return
            digest.update(data)
            length -= len(data)
        self.answer(digest.hexdigest().encode())


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)


def names(data):
    """One question's answer, as an honest server of these zones gives it."""
    at, labels = 12, []
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode())
        at += 1 + data[at]
    kind = struct.unpack(">H", data[at + 1:at + 3])[0]
    question, name = data[12:at + 5], ".".join(labels).lower()
    note("dns", name, kind)
    zone = json.loads((PLACE / "zone").read_text())
    family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
    found = []
    for address in zone.get(name, ()):
        if family and (":" in address) == (family == socket.AF_INET6):
            packed = socket.inet_pton(family, address)
            found.append(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(packed)) + packed)
    code = 0 if name in zone else 3
    return data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0) + question + b"".join(found)


def serve_datagrams(address, port, answer):
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, port))

    def loop():
        while True:
            data, peer = server.recvfrom(65535)
            try:
                server.sendto(answer(data), peer)
            except (OSError, IndexError, struct.error):
                pass
    threading.Thread(target=loop, daemon=True).start()


def serve(address, port, handler, context=None):
    server = (Threaded6 if ":" in address else Threaded)((address, port), handler)
    server.context = context
    threading.Thread(target=server.serve_forever, daemon=True).start()


class Greeting(socketserver.BaseRequestHandler):
    """Speaks first, as servers of mail do."""

    def handle(self):
        self.request.sendall(b"220 hello\r\n")
        self.request.recv(65536)


class Back(socketserver.BaseRequestHandler):
    """A connection that says nothing is none: somebody may have looked whether it can be made, and then refused."""

    def handle(self):
        address, port = self.request.getsockname()[:2]
        data = self.request.recv(65536)
        if data:
            note("tcp", address.removeprefix("::ffff:"), port)
            self.request.sendall(data)
            self.request.recv(65536)


def send_back_datagrams(port):
    """From the address that they came to."""
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    server.bind(("::", port))

    def loop():
        while True:
            data, ancillary, _, peer = server.recvmsg(65535, 128)
            address = next(socket.inet_ntop(socket.AF_INET6, value[:16]) for level, kind, value in ancillary if kind == socket.IPV6_PKTINFO)
            is_question = port == 53 and not data.startswith(b"probe")
            if not is_question:
                note("udp", address.removeprefix("::ffff:"), port)
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as answer:
                answer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                answer.bind((address, port))
                answer.sendto(names(data) if is_question else data, peer)
    threading.Thread(target=loop, daemon=True).start()


def send_back(tcp, udp):
    for port in tcp:
        server = Threaded6(("::", port), Back, bind_and_activate=False)
        server.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.server_bind()
        server.server_activate()
        threading.Thread(target=server.serve_forever, daemon=True).start()
    for port in udp:
        send_back_datagrams(port)


def serve_all():
    secure = internet.server_context(PLACE)
    for address in (internet.WEB, internet.OTHER, internet.METADATA, internet.PRIVATE, internet.CGNAT, internet.WEB6):
        serve(address, 80, Http)
        serve(address, 7, Echo)
        serve(address, 443, Http, secure)
        serve(address, 8080, Http)
        serve(address, 25, Greeting)
        serve_datagrams(address, 7, lambda data: data)
    serve_datagrams(internet.DNS, 53, names)


if len(sys.argv) > 2:
    send_back(*([int(port) for port in ports.split(",")] for ports in sys.argv[2:]))
else:
    serve_all()
print("ready", flush=True)
threading.Event().wait()
