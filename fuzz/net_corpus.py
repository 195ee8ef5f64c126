#!/usr/bin/env python3
"""Writes the seed corpora of net_tls, net_http, net_dns_query, net_dns_answer and net_proxy below fuzz/corpus."""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"


def write(target, seeds):
    place = CORPUS / target
    place.mkdir(parents=True, exist_ok=True)
    for name, data in seeds.items():
        (place / name).write_bytes(data)


# ---- TLS ----
def counted(data, width):
    return len(data).to_bytes(width, "big") + data


def extension(kind, data=b""):
    return struct.pack(">H", kind) + counted(data, 2)


def server_name(*names, kind=0):
    return extension(0, counted(b"".join(bytes([kind]) + counted(name, 2) for name in names), 2))


def alpn(*names):
    return extension(16, counted(b"".join(counted(name, 1) for name in names), 2))


def message(extensions, session=32):
    body = b"\x03\x03" + bytes(range(32)) + counted(bytes(session), 1) + counted(bytes.fromhex("130113021303c02bc02f"), 2) + b"\1\0"
    return b"\1" + counted(body + counted(extensions, 2), 3)


def records(handshake, piece=16384):
    return b"".join(b"\x16\3\1" + counted(handshake[at:at + piece], 2) for at in range(0, len(handshake), piece))


USUAL = (extension(0x0A0A) + server_name(b"www.example.test") + extension(23) + extension(0xFF01, b"\0") + extension(10, counted(bytes.fromhex("11ec001d0017"), 2))
         + extension(11, b"\1\0") + extension(35) + alpn(b"h2", b"http/1.1") + extension(5, b"\1\0\0\0\0") + extension(13, counted(bytes.fromhex("040308040401"), 2))
         + extension(51, counted(b"\0\x1d" + counted(bytes(32), 2), 2)) + extension(45, b"\1\1") + extension(43, b"\4\3\4\3\3"))
TLS = {
    "usual": records(message(USUAL)),
    "cut": records(message(USUAL), 20),
    "cut-by-bytes": records(message(server_name(b"a.test"), 0), 1)[:400],
    "no-name": records(message(alpn(b"h2"))),
    "two-names": records(message(server_name(b"a.test", b"b.test"))),
    "two-extensions": records(message(server_name(b"a.test") + server_name(b"b.test"))),
    "other-kind": records(message(server_name(b"a.test", kind=1))),
    "nul": records(message(server_name(b"good.test\0.evil.test"))),
    "address": records(message(server_name(b"127.0.0.1"))),
    "ech": records(message(server_name(b"front.test") + extension(0xFE0D, bytes(60)))),
    "old": records(b"\1" + counted(b"\3\1" + bytes(32) + b"\0" + counted(b"\0\x2f", 2) + b"\1\0", 3)),
    "followed": records(message(USUAL)) + b"\x14\3\3\0\1\1",
    "other-message": records(b"\2" + counted(bytes(40), 3)),
    "too-long": b"\x16\3\1\x40\0\1\0\x40\0" + bytes(100),
    "empty-record": b"\x16\3\1\0\0",
    "ssl-2": bytes.fromhex("802e0103010015000000100100800300800700c0"),
}

# ---- HTTP ----
HTTP = {
    "get": b"GET / HTTP/1.1\r\nHost: www.example.test\r\nUser-Agent: x\r\n\r\n",
    "post": b"POST /a?b HTTP/1.1\r\nhost:a.test:8080\r\nContent-Length: 2\r\n\r\nhi",
    "old": b"GET / HTTP/1.0\r\n\r\n",
    "address": b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n",
    "connect": b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
    "absolute": b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "disagree": b"GET http://a.test/x HTTP/1.1\r\nHost: b.test\r\n\r\n",
    "two-hosts": b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nX: y\r\n Host: b.test\r\nHost: a.test\r\n\r\n",
    "space": b"GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
    "bare-return": b"GET / HTTP/1.1\r\nX: y\rHost: b.test\r\nHost: a.test\r\n\r\n",
    "bare-newline": b"GET / HTTP/1.1\nHost: a.test\n\n",
    "nul": b"GET / HTTP/1.1\r\nHost: a.test\0b\r\n\r\n",
    "options": b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "smtp": b"EHLO a.test\r\n",
    "version": b"GET / HTTP/9.9\r\n\r\n",
}


# ---- DNS ----
def name(text):
    return b"".join(counted(label, 1) for label in text.split(b".")) + b"\0"


def header(bits, questions=1, answers=0, additionals=0):
    return struct.pack(">6H", 0x1234, bits, questions, answers, 0, additionals)


def question(text, kind=1, of_class=1):
    return name(text) + struct.pack(">2H", kind, of_class)


def edns(size, options=b""):
    return b"\0" + struct.pack(">2HI", 41, size, 0) + counted(options, 2)


def record(owner, kind, data, ttl=60):
    return owner + struct.pack(">2HI", kind, 1, ttl) + counted(data, 2)


QUERIES = {
    "a": header(0x100) + question(b"www.example.test"),
    "aaaa-edns": header(0x120, additionals=1) + question(b"WWW.Example.Test", 28) + edns(4096, bytes.fromhex("000a0008") + bytes(8)),
    "https": header(0x100) + question(b"a.test", 65),
    "ptr": header(0x100) + question(b"1.2.0.192.in-addr.arpa", 12),
    "root": header(0x100) + b"\0" + struct.pack(">2H", 2, 1),
    "odd-name": header(0x100) + question(b"a b\0.test"),
    "chaos": header(0x100) + question(b"version.bind", 16, 3),
    "update": header(0x2800) + question(b"a.test", 6),
    "two": header(0x100, questions=2) + question(b"a.test") + question(b"b.test"),
    "pointer": header(0x100) + b"\1a\xc0\x0c" + struct.pack(">2H", 1, 1),
    "long": header(0x100) + question(b".".join([b"a" * 63] * 3 + [b"b" * 61])),
    "response": header(0x8180) + question(b"a.test"),
    "short": b"\x12\x34\1",
}
OWNER = b"\xc0\x0c"
FOUR, SIX = bytes([192, 0, 2, 1]), bytes.fromhex("20010db8000000000000000000000001")


def answer(records_, count, kind=1, bits=0x8180):
    return bytes([kind == 28]) + header(bits, answers=count) + question(b"a.test", kind) + records_


ANSWERS = {
    "a": answer(record(OWNER, 1, FOUR), 1),
    "aaaa": answer(record(OWNER, 28, SIX), 1, 28),
    "mapped": answer(record(OWNER, 28, bytes(10) + b"\xff\xff" + FOUR), 1, 28),
    "chain": answer(record(OWNER, 5, b"\1b\xc0\x0e") + record(b"\1b\xc0\x0e", 5, name(b"c.test"), 7) + record(name(b"c.test"), 1, FOUR), 3),
    "loop": answer(record(OWNER, 5, b"\xc0\x0c"), 1),
    "loop-of-two": answer(record(OWNER, 5, name(b"b.test")) + record(name(b"b.test"), 5, OWNER), 2),
    "pointer-to-itself": answer(record(b"\xc0\x18", 1, FOUR), 1),
    "pointer-chain": answer(record(b"\0", 99, b"\xc0\x0c\xc0\x23\xc0\x25") + record(b"\xc0\x27", 1, FOUR), 2),
    "private": answer(record(OWNER, 1, bytes([10, 0, 0, 1])), 1),
    "several": answer(b"".join(record(OWNER, 1, bytes([192, 0, 2, i])) for i in range(20)), 20),
    "other-types": answer(record(OWNER, 46, bytes(30)) + record(OWNER, 65, b"\0\1\0") + record(OWNER, 1, FOUR), 3),
    "no-such-name": answer(b"", 0, bits=0x8183),
    "failed": answer(b"", 0, bits=0x8182),
    "truncated": answer(b"", 0, bits=0x8380),
    "no-question": b"\0" + header(0x8181, questions=0),
    "wrong-size": answer(record(OWNER, 1, FOUR[:3]), 1),
    "more-than-there-is": answer(record(OWNER, 1, FOUR), 200),
}


# ---- a proxy's answers; the first byte says to which question ----
PROXY = {
    "http": b"\0HTTP/1.1 200 Connection established\r\n\r\n",
    "http-followed": b"\0HTTP/1.0 200 OK\r\nVia: x\r\nContent-Length: 3\r\n\r\n220 hello\r\n",
    "http-403": b"\0HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
    "http-504": b"\0HTTP/1.1 504 \r\n\r\n",
    "http-100": b"\0HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "http-newlines": b"\0HTTP/1.1 200 OK\n\n",
    "http-nul": b"\0HTTP/1.1 200 a\0b\r\n\r\n",
    "http-return": b"\0HTTP/1.1 200 a\rb\r\n\r\n",
    "http-status": b"\0HTTP/1.1 2000 OK\r\n\r\n",
    "http-long": b"\0HTTP/1.1 200 " + b"x" * 8190 + b"\r\n\r\n",
    "http-largest": b"\0HTTP/1.1 200 " + b"x" * (8192 - 17) + b"\r\n\r\n",
    "http-ssh": b"\0SSH-2.0-OpenSSH_9.2\r\n",
    "method": b"\1\5\0",
    "method-none": b"\1\5\xff",
    "method-password": b"\1\5\2",
    "reply-four": b"\2\5\0\0\1" + FOUR + b"\0\x50hello",
    "reply-six": b"\2\5\0\0\4" + SIX + b"\0\x50",
    "reply-name": b"\2\5\0\0\3" + counted(b"a.test", 1) + b"\0\x50",
    "reply-refused": b"\2\5\5\0\1" + bytes(6),
    "reply-other": b"\2\5\0\0\2" + bytes(6),
    "reply-old": b"\2\4\x5a" + bytes(6),
}

write("net_proxy", PROXY)
write("net_tls", TLS)
write("net_http", HTTP)
write("net_dns_query", QUERIES)
write("net_dns_answer", ANSWERS)
