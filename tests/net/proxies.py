"""A proxy that carries TCP: proxies.py PLACE http|socks5 PORT, at the loopback. It says "ready" when it listens.

What it is asked for is written down. As long as there is a file PLACE/refuse, its number is the answer: a status of HTTP, or a
reply of SOCKS5.
"""
import contextlib
import pathlib
import socket
import socketserver
import sys
import threading

PLACE, KIND, PORT = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
LOCK = threading.Lock()


def note(*words):
    with LOCK, open(PLACE / "requests", "a") as file:
        file.write(" ".join(map(str, ("proxy", KIND, *words))) + "\n")


def refusal():
    with contextlib.suppress(FileNotFoundError):
        return int((PLACE / "refuse").read_text())


def carry(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def carry_both(client, target):
    way_in = threading.Thread(target=carry, args=(target, client), daemon=True)
    way_in.start()
    carry(client, target)
    way_in.join()


class Proxy(socketserver.StreamRequestHandler):
    # So that it reads nothing that belongs to the connection.
    rbufsize = 0

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.request.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def handle(self):
        with contextlib.suppress(EOFError, OSError):
            self.http() if KIND == "http" else self.socks5()

    def http(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.exactly(1)
        first, *headers = head.decode().split("\r\n")[:-2]
        method, target, _ = first.split()
        note(method, target, *(header.replace(" ", "") for header in headers))
        if method != "CONNECT" or refusal():
            self.request.sendall(b"HTTP/1.1 %d No\r\nConnection: close\r\n\r\n" % (refusal() or 405))
            return
        host, _, port = target.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), 15) as reached:
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            carry_both(self.request, reached)

    def socks5(self):
        version, methods = self.exactly(2)
        offered = self.exactly(methods)
        self.request.sendall(b"\5\0")
        _, command, _, kind = self.exactly(4)
        family, size = {1: (socket.AF_INET, 4), 4: (socket.AF_INET6, 16)}[kind]
        address = socket.inet_ntop(family, self.exactly(size))
        port = int.from_bytes(self.exactly(2), "big")
        note(version, command, f"[{address}]:{port}" if kind == 4 else f"{address}:{port}", offered.hex())
        if refusal():
            self.request.sendall(bytes([5, refusal(), 0, 1]) + bytes(6))
            return
        with socket.create_connection((address, port), 15) as reached:
            self.request.sendall(b"\5\0\0\1" + bytes(6))
            carry_both(self.request, reached)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, request_queue_size = True, True, 100


server = Server(("127.0.0.1", PORT), Proxy)
print("ready", flush=True)
server.serve_forever()
