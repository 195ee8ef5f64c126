#!/usr/bin/env python3
"""Writes the seed corpora of net_rule and net_policy: usage: fuzz/net_policy_corpus.py"""
import ipaddress
import json
import os
import struct

here = os.path.dirname(os.path.abspath(__file__))


def write(target, name, data):
    directory = os.path.join(here, "corpus", target)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data)


RULES = {
    "name": "api.example.com", "dot": "API.example.com.", "below": "*.example.com:22", "star": "*", "top": "*.com", "ports": "a.b:80-90/udp",
    "all-ports": "a.b:*", "port-zero": "a.b:0", "quic": "a.b:443/udp", "address": "9.9.9.9:53/udp", "range": "10.0.0.0/8:80", "host-bits": "10.0.0.1/8",
    "six": "2620:fe::fe", "six-range": "2620:fe::/48/udp", "brackets": "[2620:fe::/48]:53/udp", "mapped": "[::ffff:9.9.9.0/120]:80", "loose": "0x7f.1",
    "host": "host.caisson.internal:8080", "url": "https://a.b/c", "list": "a.b:80,443", "zone": "fe80::1%eth0", "part": "a" * 64 + ".b",
}
for rule_name, rule in RULES.items():
    write("net_rule", rule_name, rule.encode())


def judged(policy, address, port, protocol, name):
    packed = ipaddress.ip_address(address).packed
    packed = packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed
    return json.dumps(policy).encode() + b"\0" + packed + struct.pack(">HB", port, protocol) + name.encode()


def policy(mode, allow=(), deny=()):
    return {"version": 1, "mode": mode, "allow": list(allow), "deny": list(deny)}


POLICIES = {
    "public": judged(policy("public"), "9.9.9.9", 443, 0, "example.com"),
    "open": judged(policy("open", ["127.0.0.0/8"]), "64:ff9b::10.0.0.1", 80, 0, "a.b"),
    "none": judged(policy("none"), "9.9.9.9", 53, 1, "a.b"),
    "names": judged(policy("rules", ["*.example.com", "git.example.com:22"], ["bad.example.com"]), "9.9.9.9", 22, 0, "git.example.com"),
    "quic": judged(policy("rules", ["a.b:*"]), "9.9.9.9", 443, 1, "a.b"),
    "ranges": judged(policy("rules", ["0.0.0.0/0", "::/0"], ["9.9.9.0/24:80"]), "2002:a00:1::1", 80, 0, "a.b"),
    "host": judged(policy("public", ["host.caisson.internal:1-100"]), "::1", 80, 0, "host.caisson.internal"),
    "no-version": b'{"mode":"public"}', "twice": b'{"version":1,"version":1,"mode":"open"}', "unknown": b'{"version":1,"mode":"open","x":[]}',
    "deep": b'{"version":1,"mode":"rules","allow":[[[[', "escape": b'{"version":1,"mode":"rules","allow":["a\\u0000.b"]}', "empty": b"{}",
}
for policy_name, data in POLICIES.items():
    write("net_policy", policy_name, data)
