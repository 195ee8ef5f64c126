"""What can be changed of a network while its box runs: its process, its policy, its limits and its ports."""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

import boxes
import internet
import pytest
from boxes import BASE
from internet import OTHER, WEB
from networks import box, denied, events, network_process

pytestmark = pytest.mark.skipif(bool(internet.unavailable()), reason=internet.unavailable())
# Connects, says so in a file, waits for the end, says that as well.
HOLD = """
import errno, socket, sys
address, port, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
connection = socket.create_connection((address, port), 15)
connection.settimeout(None)
open(file, "w").write("open")
try:
    said = "ended" if not connection.recv(1) else "data"
except OSError as error:
    said = errno.errorcode[error.errno]
open(file, "w").write(said)
"""
HTTP_SERVER = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=80, bind='0.0.0.0')"
ECHO = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7))\nwhile True:\n d,p=s.recvfrom(65535); s.sendto(d[::-1], p)"


def kill_network(ask):
    network_process().kill()
    boxes.until(lambda: boxes.inspect(ask.name)["reason"] == "network process died", 10)


def python(ask, *words):
    ask.inside.caisson("exec", "-d", ask.name, "python3", "-c", *words).ok()


def held(ask, address, port):
    """A connection of the guest's that is open until something ends it: what became of it, when it is asked."""
    file = f"/tmp/held-{address}-{port}-{time.monotonic_ns()}"
    python(ask, HOLD, address, port, file)

    def said():
        return ask.inside.caisson("exec", ask.name, "cat", file).text
    boxes.until(lambda: said() == "open", 15)
    return said


def on_host(world, code):
    """What this says, run in the place of the host."""
    done = subprocess.run(["nsenter", f"--net=/proc/{world.host}/ns/net", "python3", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30)
    return done.stdout.decode().strip()


def fetched(world, port, address="127.0.0.1"):
    """An HTTP status, or the error's name."""
    return on_host(world, "import urllib.request as r, errno\ntry: print(r.urlopen(%r, timeout=10).status)\n"
                          "except OSError as e: e = getattr(e, 'reason', e); print(errno.errorcode.get(getattr(e, 'errno', None) or 0, type(e).__name__))" % f"http://{address}:{port}/")


def answered_late(world, port):
    """The same of who says nothing at first."""
    return on_host(world, f"import socket, time; s=socket.create_connection(('127.0.0.1', {port}), 10); time.sleep(0.5)\n"
                          "try: s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); print(s.recv(100).decode().split()[1])\nexcept (OSError, IndexError) as e: print(repr(e))")


def asked(world, port):
    """Of a datagram to the box: the answer."""
    return on_host(world, f"import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3); s.connect(('127.0.0.1', {port})); s.send(b'abc'); print(s.recv(9).decode())")


def effects(ended):
    return {change["what"]: (change["from"], change["to"], change["takes_effect"]) for change in ended.ok().json()[0]["changes"]}


def update(ask, *words):
    return ask.inside.caisson("update", "--format", "json", *words, ask.name)


def ports_of(ask, *words):
    return {(port["guest_port"], port["protocol"]): port["host_port"] for port in ask.inside.caisson("port", "--format", "json", ask.name, *words).ok().json()}


@contextlib.contextmanager
def listening(world, port):
    taken = subprocess.Popen(["nsenter", f"--net=/proc/{world.host}/ns/net", "python3", "-c",
                              f"import socket; s=socket.create_server(('127.0.0.1', {port})); print('there', flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert taken.stdout.readline() == b"there\n"
        yield
    finally:
        taken.send_signal(signal.SIGKILL)
        taken.wait()


# ---- another network process ----

def test_a_network_that_died_is_given_another_process(world):
    with box(world, "--net", "public", "-p", "8101:80", "-p", "8102:7/udp") as ask:
        python(ask, HTTP_SERVER)
        python(ask, ECHO)
        boxes.until(lambda: fetched(world, 8101) == "200", 20)
        connection = held(ask, WEB, 7)
        kill_network(ask)
        assert boxes.inspect(ask.name)["state"] == "running"
        assert "network process died" in boxes.caisson("ls").ok().text
        assert "died" in events(ask.name, "network_ended")[0]["reason"]
        boxes.until(lambda: connection() not in ("open", ""), 10)
        assert not ask(f"connect {WEB} 80", timeout=60)["ok"]
        assert fetched(world, 8101) == "ECONNREFUSED"
        # What would need it says so, and changes nothing.
        for _ in range(2):
            refused = update(ask, "--deny-net", OTHER)
            assert refused.code == 125 and "network process died" in refused.said and "--net-restart" in refused.said, refused
        assert boxes.inspect(ask.name)["network_policy"] == {"version": 1, "mode": "public"}

        assert effects(update(ask, "--net-restart")) == {"network_process": ("died", "a new one", "now")}
        assert boxes.inspect(ask.name)["reason"] == ""
        results = ask(f"connect {WEB} 80", "http example.test 80 example.test", f"udp {WEB} 7 100")
        assert all(result["ok"] for result in results), results
        assert answered_late(world, 8101) == "200" and fetched(world, 8101) == "200" and asked(world, 8102) == "cba"
        assert len(boxes.until(lambda: events(ask.name, "network_restarted"), 5)) == 1
        # And once more.
        kill_network(ask)
        update(ask, "--net-restart").ok()
        assert ask("http example.test 80 example.test")["ok"] and fetched(world, 8101) == "200"


def test_a_network_that_runs_is_replaced(world):
    with box(world, "--net", "public") as ask:
        connection, before = held(ask, WEB, 7), network_process().pid
        assert effects(update(ask, "--net-restart", "--deny-net", OTHER)) == {
            "network_process": ("running", "a new one", "now"),
            "network_policy": ('{"version":1,"mode":"public"}', '{"version":1,"mode":"public","deny":["%s"]}' % OTHER, "now")}
        boxes.until(lambda: [process.pid for process in boxes.of_role("netd")] not in ([], [before]), 10)
        boxes.until(lambda: connection() not in ("open", ""), 10)
        assert ask("http example.test 80 example.test")["ok"] and ask(f"connect {OTHER} 80")["error"] == "ECONNREFUSED"
        assert boxes.inspect(ask.name)["reason"] == "" and not events(ask.name, "network_ended")


# ---- another policy ----

def unsettled():
    found = json.loads(boxes.caisson("check", "--format", "json").out)["findings"]
    return [finding for finding in found if finding["code"] == "network_unsettled"]


def test_who_is_killed_over_a_change_leaves_word_of_it(world):
    with box(world, "--net", "public") as ask:
        launcher = boxes.of_role("launcher")[0]
        os.kill(launcher.pid, signal.SIGSTOP)
        changing = ask.inside.start("update", ask.name, "--deny-net", WEB)
        boxes.until(lambda: "deny" in boxes.inspect(ask.name)["network_policy"], 10, "the change was not recorded")
        assert not unsettled(), "somebody is at it"
        changing.kill()
        changing.communicate(timeout=10)
        assert boxes.caisson("ls").ok() and len(unsettled()) == 1
        os.kill(launcher.pid, signal.SIGCONT)
        # Whatever has become of it, the same again makes it so.
        update(ask, "--deny-net", WEB).ok()
        assert not unsettled() and ask(f"connect {WEB} 80")["error"] == "ECONNREFUSED" and ask(f"http {OTHER} 80 x")["ok"]


def test_another_policy_holds_for_what_is_open(world):
    with box(world, "--net", "public") as ask:
        stays, goes = held(ask, OTHER, 7), held(ask, WEB, 7)
        planned = effects(update(ask, "--dry-run", "--deny-net", WEB))
        assert goes() == "open" and boxes.inspect(ask.name)["network_policy"] == {"version": 1, "mode": "public"}
        assert effects(update(ask, "--deny-net", WEB)) == planned == {
            "network_policy": ('{"version":1,"mode":"public"}', '{"version":1,"mode":"public","deny":["%s"]}' % WEB, "now")}
        # When the command returns, it is so.
        assert ask(f"connect {WEB} 80")["error"] == "ECONNREFUSED"
        boxes.until(lambda: goes() == "ECONNRESET", 10, "a connection that the new policy denies is open")
        assert stays() == "open" and ask(f"http {OTHER} 80 x")["ok"]
        assert any("the policy was changed" in event["reason"] for event in denied(ask.name, address=WEB, port=7))
        changed = boxes.until(lambda: [event for event in map(json.loads, boxes.caisson("audit", ask.name, "--kind", "network_policy_changed", "--format", "json").ok().lines)], 5)
        assert len(changed) == 1 and changed[0]["pid"] > 0 and changed[0]["pid"] != boxes.inspect(ask.name)["supervisor_pid"]
        assert json.loads(changed[0]["details"]["policy"])["deny"] == [WEB] and "deny" not in json.loads(changed[0]["details"]["before"])
        assert boxes.inspect(ask.name)["network_policy"]["deny"] == [WEB]
        assert "deny" in boxes.caisson("net", "explain", ask.name, f"{WEB}:80").ok().text

        # As a whole: what was denied is allowed again, and nothing else.
        update(ask, "--allow-net", "example.test").ok()
        assert ask("http example.test 80 example.test")["ok"]
        assert not ask("resolve other.test")["ok"] and ask(f"connect {OTHER} 7")["error"] == "ECONNREFUSED"
        boxes.until(lambda: stays() == "ECONNRESET", 10)
        assert update(ask, "--allow-net", "example.test").ok().json()[0]["changes"] == []
        # It is the box's from now on.
        ask.inside.caisson("restart", ask.name).ok()
        assert boxes.inspect(ask.name)["network_policy"] == {"version": 1, "mode": "rules", "allow": ["example.test"]}
        assert ask("http example.test 80 example.test")["ok"] and ask(f"connect {OTHER} 7")["error"] == "ECONNREFUSED"


def test_other_limits_hold_at_once(world):
    with box(world, "--net", "public") as ask:
        assert effects(update(ask, "--net-limit", "connections=16", "--net-limit", "in=1M")) == {"network_limits": ("default", "connections=16 in=1048576", "now")}
        result = ask(f"many {WEB} 7 40")
        assert result["open"] == result["works"] == 16, result
        result = ask(f"bulk {WEB} 4", timeout=60)
        assert result["ok"] and 2.5 <= result["seconds"] <= 7, result
        assert effects(update(ask, "--net-limit", "connections=32")) == {"network_limits": ("connections=16 in=1048576", "connections=32", "now")}
        assert ask(f"many {WEB} 7 40")["open"] == 32
        result = ask(f"bulk {WEB} 4", timeout=60)
        assert result["ok"] and result["seconds"] < 2, result


def test_the_machine_keeps_its_card_or_has_none(world):
    with box(world, "--net", "public") as ask:
        refused = update(ask, "--net", "none")
        assert refused.code == 125 and "keeps its network card" in refused.said and "--net-policy" in refused.said, refused
        assert ask(f"connect {WEB} 80")["ok"]
        ask.inside.caisson("stop", "-t", "0", ask.name).ok()
        assert effects(update(ask, "--net", "none"))["network_policy"][1:] == ("none", "next_start")
        ask.inside.caisson("start", ask.name).ok()
        refused = update(ask, "--net", "public")
        assert refused.code == 125 and "without a network card" in refused.said, refused
        refused = update(ask, "-p", "8103:80")
        assert refused.code == 2 and "without a network" in refused.said, refused
        refused = update(ask, "--net-restart")
        assert refused.code == 2 and "no network" in refused.said, refused
        assert ask.inside.caisson("exec", ask.name, "ls", "/sys/class/net").ok().lines == ["lo"]
        ask.inside.caisson("stop", "-t", "0", ask.name).ok()
        refused = update(ask, "--net-restart", "--net", "public")
        assert refused.code == 125 and "does not run" in refused.said, refused
        update(ask, "--net", "public").ok()
        ask.inside.caisson("start", ask.name).ok()
        # With the host's own name servers, of which this place has none.
        assert ask(f"connect {WEB} 80")["ok"]
        assert len(events(ask.name, "network_policy_changed")) == 2


# ---- other ports ----

def test_ports_come_and_go(world):
    with box(world, "--net", "public", "-p", "0:80", "-p", "127.0.0.1:0:7/udp") as ask:
        python(ask, HTTP_SERVER)
        python(ask, ECHO)
        ports = ports_of(ask)
        chosen = ports[(80, "tcp")]
        assert set(ports) == {(80, "tcp"), (7, "udp")} and chosen > 0 and ports[(7, "udp")] > 0
        assert ask.inside.caisson("port", ask.name).ok().lines == [f"7/udp -> 127.0.0.1:{ports[(7, 'udp')]}", f"80/tcp -> 127.0.0.1:{chosen}"]
        assert ask.inside.caisson("port", ask.name, "80").ok().lines == [f"127.0.0.1:{chosen}"]
        boxes.until(lambda: fetched(world, chosen) == "200", 20)
        assert asked(world, ports[(7, "udp")]) == "cba"
        missing = ask.inside.caisson("port", ask.name, "81")
        assert missing.code == 125 and "81/tcp" in missing.said and "not published" in missing.said, missing

        assert effects(update(ask, "--publish", "8104:80", "--publish", "8105:7/udp"))["port"][0] is None
        assert fetched(world, 8104) == "200" and asked(world, 8105) == "cba" and fetched(world, 8104, internet.HOST) != "200"
        assert {event["port"] for event in boxes.until(lambda: [event for event in events(ask.name, "port_published") if event["port"] in (8104, 8105)][1:], 5) or ()} <= {8104, 8105}

        # Elsewhere in the box, at the same place of the host.
        update(ask, "--unpublish", "8104:80", "--publish", "8104:81").ok()
        assert ports_of(ask)[(81, "tcp")] == 8104 and fetched(world, 8104) != "200"
        update(ask, "--unpublish", "8104:81", "--unpublish", f"{chosen}:80", "--unpublish", "8105:7/udp").ok()
        assert ports_of(ask) == {(7, "udp"): ports[(7, "udp")]}
        assert fetched(world, 8104) == fetched(world, chosen) == "ECONNREFUSED" and asked(world, 8105) == "" and asked(world, ports[(7, "udp")]) == "cba"
        missing = update(ask, "--unpublish", "8104:81")
        assert missing.code == 125 and "127.0.0.1:8104:81 is not published" in missing.said, missing
        assert boxes.until(lambda: [event for event in events(ask.name, "port_unpublished") if event["port"] == chosen], 5)
        # The host's port is free again, at once.
        with listening(world, 8104):
            pass
        update(ask, "--publish", "8104:80").ok()
        assert fetched(world, 8104) == "200"


def test_what_comes_through_a_port_ends_with_it(world):
    with box(world, "--net", "public", "-p", "8106:5000") as ask:
        python(ask, "import socket, time\ns = socket.create_server(('0.0.0.0', 5000))\nwhile True:\n c, _ = s.accept(); c.send(b'hello'); keep = c")
        code = """
import socket, sys, errno
s = socket.create_connection(('127.0.0.1', 8106), 10)
s.settimeout(30)
print(s.recv(5).decode(), flush=True)
try: print(repr(s.recv(5)), flush=True)
except OSError as error: print(errno.errorcode.get(error.errno, 'timeout'), flush=True)
"""
        boxes.until(lambda: on_host(world, "import socket; s = socket.create_connection(('127.0.0.1', 8106), 5); print(s.recv(5).decode())") == "hello", 20)
        client = subprocess.Popen(["nsenter", f"--net=/proc/{world.host}/ns/net", "python3", "-c", code], stdout=subprocess.PIPE)
        try:
            assert client.stdout.readline() == b"hello\n"
            update(ask, "--unpublish", "8106:5000").ok()
            assert client.stdout.readline() == b"ECONNRESET\n"
        finally:
            client.kill()
            client.wait()


def test_a_port_in_use_changes_nothing(world):
    with listening(world, 8107), box(world, "--net", "public", "-p", "8108:80") as ask:
        python(ask, HTTP_SERVER)
        boxes.until(lambda: fetched(world, 8108) == "200", 20)
        before = boxes.inspect(ask.name)
        refused = update(ask, "--publish", "8109:80", "--publish", "8107:80", "--unpublish", "8108:80", "--deny-net", WEB, "--label", "x=y")
        assert refused.code == 125 and "127.0.0.1:8107" in refused.said and "in use" in refused.said, refused
        after = boxes.inspect(ask.name)
        assert [after[key] for key in ("ports", "network_policy", "labels")] == [before[key] for key in ("ports", "network_policy", "labels")]
        assert fetched(world, 8108) == "200" and fetched(world, 8109) == "ECONNREFUSED" and ask(f"connect {WEB} 80")["ok"]
        assert not list(pathlib.Path(boxes.environment()["CAISSON_HOME"]).glob("boxes/*.network"))


def test_two_at_once(world):
    """Each is done or refused as a whole, and the record is what the network does."""
    with box(world, "--net", "public") as ask:
        asking = [subprocess.Popen(["nsenter", f"--net=/proc/{world.host}/ns/net", boxes.BIN, "update", "--publish", f"81{number}:80", ask.name], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=boxes.environment(), cwd="/") for number in range(10, 14)]
        done = []
        for number, process in zip(range(10, 14), asking):
            _, said = process.communicate(timeout=60)
            assert process.returncode in (0, 125), said
            assert process.returncode == 0 or b"somebody else" in said or b"in use" in said, said
            done += [8100 + number] if process.returncode == 0 else []
        assert done and sorted(port["host_port"] for port in boxes.inspect(ask.name)["ports"]) == sorted(done)
        python(ask, HTTP_SERVER)
        boxes.until(lambda: fetched(world, done[0]) == "200", 20)
        assert [fetched(world, 8100 + number) == "200" for number in range(10, 14)] == [8100 + number in done for number in range(10, 14)]
