"""The servers of the private internet, in one process: servers.py PLACE ZONE. It says "ready" when all listen."""
import json
import pathlib
import socket
import socketserver
import struct
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import internet  # noqa: E402

PLACE, ZONE = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
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
    family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
    found = []
    for address in ZONE.get(name, ()):
        if family and (":" in address) == (family == socket.AF_INET6):
            packed = socket.inet_pton(family, address)
            found.append(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(packed)) + packed)
    code = 0 if name in ZONE else 3
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


def main():
    secure = internet.server_context(PLACE)
    for address in (internet.WEB, internet.OTHER, internet.METADATA, internet.PRIVATE, internet.CGNAT, internet.WEB6):
        serve(address, 80, Http)
        serve(address, 7, Echo)
        serve(address, 443, Http, secure)
        serve_datagrams(address, 7, lambda data: data)
    serve_datagrams(internet.DNS, 53, names)
    print("ready", flush=True)
    threading.Event().wait()


main()
