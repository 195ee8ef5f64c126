"""What the tests do inside of a box: guest.py "WHAT ARGUMENT..."..., or the same as lines of standard input. A line of JSON for
each thing that was done."""
import contextlib
import errno
import hashlib
import json
import socket
import ssl
import struct
import sys
import time

PATIENCE = 15


def told(**what):
    print(json.dumps(what), flush=True)


def outcome(action):
    begun = time.monotonic()
    try:
        return {"ok": True, **(action() or {}), "seconds": time.monotonic() - begun}
    except (OSError, EOFError) as error:
        number = getattr(error, "errno", None)
        name = errno.errorcode.get(number, "") if number and number > 0 else ""
        return {"ok": False, "error": name or type(error).__name__, "text": str(error), "seconds": time.monotonic() - begun}


def connect(host, port):
    connection = socket.create_connection((host, int(port)), PATIENCE)
    connection.close()


def http(address, port, host):
    connection = socket.create_connection((address, int(port)), PATIENCE)
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while data := connection.recv(65536):
        answer += data
    if not answer:
        raise EOFError("closed without an answer")
    return {"status": int(answer.split()[1]), "body": answer.partition(b"\r\n\r\n")[2].decode()}


def tls(address, port, name, host=""):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = context.wrap_socket(socket.create_connection((address, int(port)), PATIENCE), server_hostname=name or None)
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host or name or address}\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while data := connection.recv(65536):
        answer += data
    return {"status": int(answer.split()[1]), "body": answer.partition(b"\r\n\r\n")[2].decode()}


def udp(address, port, size):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.settimeout(3)
    sender.connect((address, int(port)))
    data = bytes(index * 7 & 255 for index in range(int(size)))
    sender.send(data)
    return {"same": sender.recv(65535) == data}


def first_bytes(port, name):
    """What a client says first: of its name, or nothing that shows one."""
    if not name:
        return b"\0probe\n"
    if port == 80:
        return f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
    context, said = ssl.create_default_context(), ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return said.read()


def probe(address, port, name=""):
    """A connection to a server that sends back what comes. A failure is one of connecting."""
    connection = socket.create_connection((address, int(port)), PATIENCE)
    said, answer = first_bytes(int(port), name), b""
    try:
        connection.sendall(said)
        while len(answer) < len(said) and (data := connection.recv(65536)):
            answer += data
    except OSError as error:
        return {"answered": False, "end": str(error)}
    return {"answered": answer == said, "end": answer[:200].decode(errors="replace")}


def probe_udp(address, port):
    sender = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sender.settimeout(1.5)
    sender.connect((address, int(port)))
    sender.send(b"probe")
    return {"answered": sender.recv(100) == b"probe"}


def resolve(name):
    return {"addresses": sorted({entry[4][0] for entry in socket.getaddrinfo(name, 80, proto=socket.IPPROTO_TCP)})}


def probe_echo(address, port):
    connection = socket.create_connection((address, int(port)), PATIENCE)
    connection.sendall(b"there and back")
    return {"same": connection.recv(100) == b"there and back"}


def greeted(address, port):
    return {"greeting": socket.create_connection((address, int(port)), PATIENCE).recv(100).decode().strip()}


def sweep(address, first, count):
    for port in range(int(first), int(first) + int(count)):
        with contextlib.suppress(OSError):
            socket.create_connection((address, port), PATIENCE).close()


def bulk(address, megabytes):
    connection = socket.create_connection((address, 80), PATIENCE)
    connection.sendall(f"GET /bulk/{megabytes} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    stream = connection.makefile("rb")
    while stream.readline().strip():
        pass
    for number in range(int(megabytes)):
        data = stream.read(1 << 20)
        if data != struct.pack("<Q", number) * (1 << 17):
            raise EOFError(f"megabyte {number} is not what was sent")


def upload(address, megabytes):
    connection = socket.create_connection((address, 80), PATIENCE)
    length, digest = int(megabytes) << 20, hashlib.sha256()
    connection.sendall(f"POST /sink HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n".encode())
    for number in range(int(megabytes)):
        data = struct.pack("<Q", number) * (1 << 17)
        digest.update(data)
        connection.sendall(data)
    answer = b""
    while data := connection.recv(65536):
        answer += data
    return {"same": answer.partition(b"\r\n\r\n")[2].decode() == digest.hexdigest()}


def many(address, port, count):
    """Connections that are open at once: how many there are, and whether each of them still works."""
    there, errors = [], {}
    for _ in range(int(count)):
        try:
            there.append(socket.create_connection((address, int(port)), PATIENCE))
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, type(error).__name__)
            errors[name] = errors.get(name, 0) + 1
    works = 0
    for number, connection in enumerate(there):
        connection.sendall(b"%06d" % number)
        works += connection.recv(6) == b"%06d" % number
    return {"open": len(there), "works": works, "errors": errors}


for line in sys.argv[1:] or sys.stdin:
    line = line.rstrip("\n")
    words = line.split(" ")
    told(line=line, **outcome(lambda: globals()[words[0]](*words[1:])))
