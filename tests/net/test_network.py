"""A box's network, asked from inside: what it reaches, how it is refused, and what is recorded of it."""
import json
import os
import pathlib
import signal
import subprocess

import boxes
import internet
import pytest
from boxes import BASE
from internet import CGNAT, METADATA, OTHER, PRIVATE, WEB, WEB6
from networks import Inside, box, denied, events, network_process

pytestmark = pytest.mark.skipif(bool(internet.unavailable()), reason=internet.unavailable())
HERE = pathlib.Path(__file__).parent
# Each way: 1024 are a minute or two.
MEGABYTES = int(os.environ.get("CAISSON_TEST_MEGABYTES", "64"))


def test_none_has_only_loopback():
    ended = boxes.run("--net", "none", BASE, "ls", "/sys/class/net").ok()
    assert ended.lines == ["lo"]
    ended = boxes.run("--net", "none", "--copy", f"{HERE / 'guest.py'}:/guest.py", BASE, "python3", "/guest.py", f"connect {WEB} 80", "resolve example.test", f"udp {WEB} 7 10").ok()
    for line in ended.lines:
        result = json.loads(line)
        assert not result["ok"] and result["seconds"] < 1, result


def test_public_reaches_the_internet_and_nothing_else(world):
    with box(world, "--net", "public") as ask:
        results = ask(f"http {WEB} 80 x", f"http {WEB6} 80 x", "http example.test 80 example.test", "tls www.example.test 443 www.example.test", f"udp {WEB} 7 100",
                      f"udp {WEB6} 7 100")
        assert all(result["ok"] for result in results), results
        assert results[4]["same"] and results[5]["same"]
        forbidden = (METADATA, PRIVATE, CGNAT, internet.HOST, "127.0.0.1", "10.0.2.2", "0.0.0.0", "::ffff:10.20.30.40", "64:ff9b::a14:1e28", "2002:a14:1e28::1", "fe80::1", "224.0.0.1", "fd00::1")
        for result in ask(*(f"connect {address} 80" for address in forbidden)):
            assert not result["ok"] and result["seconds"] < 2, result
        world.forget()
        for result in ask(*(f"udp {address} 7 10" for address in (METADATA, PRIVATE, CGNAT))):
            assert result["error"] in ("ECONNREFUSED", "TimeoutError"), result
        # A name of the outside that leads inside.
        inner = ask("resolve inside.test", "resolve metadata.test", "resolve loopback.test")
        assert not any(result["ok"] for result in inner), inner
        assert ask("resolve mixed.test")["addresses"] == [WEB]
        assert denied(ask.name, address=METADATA, port=80)
        assert denied(ask.name, address=PRIVATE, port=80)
    assert not [request for request in world.requests() if request[0] == "http"]


def test_without_options_a_box_reaches_the_internet_and_nothing_else(world):
    environment = boxes.environment(CAISSON_NET="")
    inside, run = Inside(world), ("run", "--rm", "--pull", "never", "--copy", f"{HERE / 'guest.py'}:/guest.py")
    done = inside.caisson(*run, BASE, "python3", "/guest.py", f"http {WEB} 80 x", f"connect {PRIVATE} 80", f"connect {METADATA} 80", env=environment).ok()
    web, private, metadata = map(json.loads, done.lines)
    assert web["ok"] and private["error"] == metadata["error"] == "ECONNREFUSED", done
    for word, expected in (("none", ["lo"]), ("public", ["eth0", "lo"]), ("open", ["eth0", "lo"])):
        assert inside.caisson(*run, BASE, "ls", "/sys/class/net", env={**environment, "CAISSON_NET": word}).ok().lines == expected
    # What is said of a box is said of all of its network.
    assert inside.caisson(*run, "--allow-net", WEB, BASE, "ls", "/sys/class/net", env={**environment, "CAISSON_NET": "none"}).ok().lines == ["eth0", "lo"]
    refused = inside.caisson(*run, BASE, "true", env={**environment, "CAISSON_NET": "rules"})
    assert refused.code == 2 and "CAISSON_NET is 'rules'" in refused.said and "none, public or open" in refused.said, refused


def test_what_its_processes_run_under_is_shown(world):
    with box(world, "--net", "public") as ask:
        shown = boxes.until(lambda: [process for process in boxes.inspect(ask.name)["jail"] if process["kind"] == "network"], 10)
        assert len(shown) == 1 and shown[0]["pid"] == network_process().pid and shown[0]["filter"] == "netd" and int(shown[0]["capabilities"], 16) == 0, shown
        namespace, = [process for process in boxes.inspect(ask.name)["jail"] if process["kind"] == "network_namespace"]
        assert namespace["filter"] == "netns" and namespace["no_new_privileges"] and namespace["landlock"].startswith("version"), namespace


def test_traffic_is_counted(world):
    with box(world, "--net", "public") as ask:
        def traffic():
            told, = boxes.caisson("stats", "--no-stream", "--format", "json", ask.name).ok().json()
            return told["network_received_bytes"], told["network_sent_bytes"]
        before = traffic()
        assert ask(f"bulk {WEB} 4")["ok"]
        received, sent = (after - early for after, early in zip(traffic(), before))
        assert 4 << 20 <= received < 6 << 20 and 0 < sent < 1 << 20, (before, received, sent)


def test_open_adds_private_networks(world):
    with box(world, "--net", "open") as ask:
        results = ask(f"http {PRIVATE} 80 x", f"http {CGNAT} 80 x", f"http {WEB} 80 x")
        assert all(result["ok"] for result in results), results
        assert ask(f"connect {METADATA} 80")["error"] == "ECONNREFUSED"
        assert ask(f"connect {internet.HOST} 80")["error"] == "ECONNREFUSED"


def test_only_allowed_names(world):
    with box(world, "--allow-net", "*.example.test", "--allow-net", "example.test") as ask:
        results = ask("http example.test 80 example.test", "tls www.example.test 443 www.example.test", "tls deep.www.example.test 443 deep.www.example.test")
        assert all(result["ok"] and result["status"] == 200 for result in results), results
        world.forget()
        # The same address with another name, without one, and a name that only looks like it.
        for line in (f"tls {WEB} 443 other.test", f"tls {WEB} 443 badexample.test", f"tls {WEB} 443 ", f"udp {WEB} 443 20", f"connect {WEB} 22"):
            result = ask(line)
            assert not result["ok"], result
        lie = ask(f"http {WEB} 80 other.test", f"http {WEB} 80 badexample.test", f"http {WEB} 80 {WEB}")
        assert [result["status"] for result in lie] == [403, 403, 403], lie
        assert "policy" in lie[0]["body"]
        assert [ask(f"resolve {name}")["ok"] for name in ("other.test", "badexample.test", "test")] == [False] * 3
        assert denied(ask.name, name="other.test", port=443)
        assert denied(ask.name, name="badexample.test", port=80)
        assert denied(ask.name, address=WEB, port=22)
        assert not [request for request in world.requests() if request[0] == "http"]


def test_a_lie_about_an_address_leads_to_the_name(world):
    """What the guest believes where a name is, is not asked: /etc/hosts, or a connection to another address."""
    with box(world, "--allow-net", "example.test") as ask:
        world.forget()
        assert ask(f"tls {OTHER} 443 example.test")["ok"]
        assert ask(f"http {OTHER} 80 example.test")["body"] == "reached example.test"
        reached = {request[1] for request in world.requests() if request[0] == "http"}
        assert reached <= {WEB, WEB6} and reached, reached


def test_what_is_denied_beats_what_is_allowed(world):
    with box(world, "--net", "public", "--deny-net", "other.test", "--deny-net", f"{WEB}:7") as ask:
        assert ask("http example.test 80 example.test")["ok"]
        assert not ask("resolve other.test")["ok"]
        assert ask(f"connect {WEB} 7")["error"] == "ECONNREFUSED"
        assert ask(f"http {OTHER} 80 other.test")["status"] == 403


def test_a_connection_fails_as_the_real_one(world):
    with box(world, "--net", "public") as ask:
        assert ask(f"connect {WEB} 81")["error"] == "ECONNREFUSED"
        result = ask("connect 93.184.216.77 80")
        assert result["error"] in ("EHOSTUNREACH", "ENETUNREACH") and result["seconds"] < 5, result
        boxes.until(lambda: [event for event in events(ask.name, "connection_failed") if event["address"] == "93.184.216.77"], 5)


def test_large_datagrams(world):
    with box(world, "--net", "public") as ask:
        for size in (1, 1472, 1473, 9000, 60000):
            assert ask(f"udp {WEB} 7 {size}").get("same"), size


def test_many_bytes_arrive_as_they_were(world):
    with box(world, "--net", "public") as ask:
        assert ask(f"bulk {WEB} {MEGABYTES}", timeout=900)["ok"]
        assert ask(f"upload {WEB} {MEGABYTES}", timeout=900)["same"]
        ended = boxes.until(lambda: [event for event in events(ask.name, "connection_ended") if event["bytes_in"] > MEGABYTES << 20], 5)
        assert ended[0]["duration_ms"] > 0


def test_limits(world):
    with box(world, "--net", "public", "--net-limit", "connections=256", "--net-limit", "in=1M") as ask:
        result = ask(f"many {WEB} 7 1000", timeout=300)
        assert result["open"] == result["works"] == 256, result
        assert result["errors"] == {"ECONNREFUSED": 744}, result
        assert denied(ask.name, rule="limit connections")
        result = ask(f"bulk {WEB} 5", timeout=60)
        assert result["ok"] and 4 <= result["seconds"] <= 6.5, result
        # A burst passes at once, and what comes after it at the rate.
        ask.inside.caisson("update", "--net-limit", "in=1M", "--net-limit", "burst=4M", ask.name).ok()
        result = ask(f"bulk {WEB} 5", timeout=60)
        assert result["ok"] and 0.5 <= result["seconds"] <= 3.5, result


def test_published_ports(world):
    with box(world, "--net", "public", "-p", "8081:80", "-p", "8082:7/udp") as ask:
        server = ("import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=80, bind='0.0.0.0')")
        ask.inside.caisson("exec", "-d", ask.name, "python3", "-c", server).ok()
        udp = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7))\nwhile True:\n d,p=s.recvfrom(65535); s.sendto(d[::-1], p)"
        ask.inside.caisson("exec", "-d", ask.name, "python3", "-c", udp).ok()
        def fetched(url):
            fetch = f"import urllib.request as r; print(r.urlopen('{url}', timeout=10).status)"
            return subprocess.run(["nsenter", f"--net=/proc/{world.host}/ns/net", "python3", "-c", fetch], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout

        boxes.until(lambda: fetched("http://127.0.0.1:8081/") == b"200\n", 20)
        # Nobody else's address leads there.
        assert fetched(f"http://{internet.HOST}:8081/") == b""
        client = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.sendto(b'abc', ('127.0.0.1', 8082)); print(s.recv(100))"
        ended = subprocess.run(["nsenter", f"--net=/proc/{world.host}/ns/net", "python3", "-c", client], stdout=subprocess.PIPE, timeout=20)
        assert ended.stdout == b"b'cba'\n"


def test_a_port_in_use_leaves_nothing(world):
    taken = subprocess.Popen(["nsenter", f"--net=/proc/{world.host}/ns/net", "python3", "-c",
                              "import socket; s=socket.create_server(('127.0.0.1', 8090)); print('there', flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert taken.stdout.readline() == b"there\n"
        before = boxes.box_ids()
        ended = Inside(world).caisson("run", "--rm", "--pull", "never", "--net", "public", "-p", "8090:80", BASE, "true")
        assert ended.code == 125 and "127.0.0.1:8090" in ended.said and "in use" in ended.said, ended
        assert boxes.box_ids() == before
    finally:
        taken.send_signal(signal.SIGKILL)
        taken.wait()


def test_the_network_dies_and_the_box_runs_on(world):
    with box(world, "--net", "public") as ask:
        assert ask(f"connect {WEB} 80")["ok"]
        network_process().kill()
        reasons = boxes.until(lambda: events(ask.name, "network_ended"), 10)
        assert "network process" in reasons[0]["reason"]
        assert not ask(f"connect {WEB} 80", timeout=60)["ok"]
        assert ask.inside.caisson("exec", ask.name, "true").code == 0


def test_what_a_network_does_has_a_chain_of_its_own(world):
    """However much of it there is, nothing else of the box is pushed out, and no entry of it can be altered unnoticed."""
    with box(world, "--net", "public") as ask:
        ask(*[f"connect {METADATA} {port}" for port in range(1000, 1700)])
        assert denied(ask.name, address=METADATA, port=1000)
        everything = [json.loads(line) for line in boxes.caisson("audit", ask.name, "--format", "json").ok().lines]
        identity = boxes.inspect(ask.name)["id"]
        chains = {event["kind"]: event["chain"] for event in everything}
        assert chains["connection_denied"] == f"{identity}.network" and chains["execution_started"] == chains["box_created"] == identity
        assert boxes.caisson("audit", "verify", ask.name).ok().text.startswith(f"{len(everything)} entries in 2 journals")
    closed = [event for event in map(json.loads, boxes.caisson("audit", "--kind", "chain_closed", "--format", "json").ok().lines) if event["box"] == identity]
    assert [event["details"].get("of") for event in closed] == [None, "network"]
    assert boxes.caisson("audit", "verify").code == 0
    chain = boxes.HOME / "audit/networks" / identity / "00000000000000000001.jsonl"
    text = chain.read_text()
    try:
        chain.write_text(text.replace('"port":1000', '"port":1001', 1))
        found = boxes.caisson("audit", "verify")
        assert found.code == 1 and f"{identity}.network" in found.text, found
    finally:
        chain.write_text(text)
    assert boxes.caisson("audit", "verify").code == 0


def test_bad_words(world):
    for options, words in ((("--net", "nothing"), "nothing"), (("--net", "public", "--allow-net", "a.test"), "allow"), (("--allow-net", "*.com"), "*.com"),
                           (("-p", "80"), "80"), (("-p", "8080:80"), "network"), (("--net", "public", "-p", "8080-8082:80"), "8080-8082"),
                           (("--net", "public", "--add-host", "a.test"), "a.test")):
        ended = boxes.caisson("create", "--pull", "never", *options, BASE, "true")
        assert ended.code == 2 and words in ended.said, ended
