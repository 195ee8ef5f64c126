"""caisson net explain: the verdict, the rule that decides, and what is said to who got it wrong. The truth table itself is tried
by the unit tests; here a part of it goes through the whole command line."""
import json
import os
import pathlib
import re
import subprocess

import pytest
from boxes import BASE, WORK, caisson, environment, inspect, listed

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/network.md"
KEYS = ["target", "name", "address", "port", "protocol", "verdict", "rule", "reason", "dns", "notes", "policy"]


def explain(*words):
    found = caisson("net", "explain", "--format", "json", *words, env=environment(CAISSON_NET="")).ok().json()
    assert list(found) == KEYS
    return found


def rows():
    """Those of the truth table that are about one target without a history."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if len(cells) == 4 and re.fullmatch(r"connect \S+", cells[1]):
            yield cells


def policy_words(text):
    if not text.startswith("{"):
        return text.split()
    file = WORK / "policy.json"
    file.write_text(text)
    return ["--net-policy", str(file)]


def test_the_page_s_rows_as_the_command_tells_them():
    tried = list(rows())
    assert len(tried) > 80
    for policy, target, verdict, rule in tried:
        found = explain(*policy_words(policy), target.removeprefix("connect "))
        assert (found["verdict"].replace("_", " "), found["rule"]) == (verdict, rule), (policy, target, found)


def test_names_and_their_addresses():
    found = explain("--allow-net", "*.example.com", "API.example.com:443")
    assert found["name"] == "api.example.com" and found["address"] is None and found["verdict"] == "allow"
    assert found["dns"] == {"verdict": "allow", "rule": "allow *.example.com", "reason": "the rule covers api.example.com"}
    assert found["policy"] == {"version": 1, "mode": "rules", "allow": ["*.example.com"]} and found["target"] == "api.example.com:443/tcp"
    inside = explain("--allow-net", "*.example.com", "--resolved", "10.0.0.7", "api.example.com:443")
    assert inside["verdict"] == "deny" and "10.0.0.7 is a private network (10.0.0.0/8)" in inside["reason"]
    text = caisson("net", "explain", "--deny-net", "10.0.0.0/8", "[::ffff:10.0.0.7]:53/udp").ok().text
    assert text == "10.0.0.7:53/udp: deny\n  decided by: deny 10.0.0.0/8\n  because: the rule covers 10.0.0.7\n"


def test_a_policy_s_own_form_is_a_policy_file():
    words = ["--allow-net", "A.example.com.", "--allow-net", "9.9.9.0/24:80-90/tcp", "--deny-net", "b.example.com:1-65535"]
    first = explain(*words, "9.9.9.9:80")
    assert explain(*policy_words(json.dumps(first["policy"])), "9.9.9.9:80") == first


@pytest.mark.parametrize("words, message", [
    (["9.9.9.9"], "is no target"),
    (["9.9.9.9:0"], "is no target"),
    (["9.9.9.9:65536"], "is no target"),
    (["2620:fe::fe:53"], "[IPV6]:PORT"),
    (["[9.9.9.9]:53"], "is no target"),
    (["127.1:80"], "is no target"),
    (["a.b:80/sctp"], "is no target"),
    (["--net", "public", "--allow-net", "a.b", "a.b:80"], "could mean two things"),
    (["--net", "bridge", "a.b:80"], "use none, public or open"),
    (["--net-policy", "/dev/null", "--net", "open", "a.b:80"], "--net-policy says everything"),
    (["--net-policy", "/dev/null", "a.b:80"], "not valid JSON"),
    (["--allow-net", "10.0.0.1/8", "a.b:80"], "write 10.0.0.0/8 for the range"),
    (["--resolved", "10.0.0.1", "9.9.9.9:80"], "is an address"),
    (["--resolved", "10.0.0.1/8", "a.b:80"], "is no address"),
    (["--format", "yaml", "a.b:80"], "--format"),
    ([], "TARGET"),
])
def test_what_cannot_be_meant_is_refused(words, message):
    result = caisson("net", "explain", *words, env=environment(CAISSON_NET=""))
    assert result.code == 2 and message in result.said, result


@pytest.mark.parametrize("words, message", [
    (["--net", "public", "--dns", "9.9.9"], "'9.9.9' is no name server"),
    (["--net", "public", "--dns", "9.9.9.9:0"], "is no name server"),
    (["--net", "public", "--dns", "2620:fe::fe:x"], "takes brackets"),
    (["--add-host", "db:10.0.0.7"], "a box without a network"),
    (["--net", "none", "-p", "8080:80"], "a box without a network"),
    (["--net-policy", "{none}", "-p", "8080:80"], "a box without a network"),
    (["--net-policy", "{none}", "--add-host", "db:10.0.0.7"], "a box without a network"),
    (["--net", "public", *[word for number in range(3000) for word in ("--add-host", f"name-{number}.example.com:2620:fe::{number:x}")]], "say less"),
])
def test_a_network_that_cannot_be_is_refused_before_anything_is_made(words, message):
    policy = WORK / "none.json"
    policy.write_text('{"version": 1, "mode": "none"}')
    before = len(listed())
    result = caisson("create", *[word.replace("{none}", str(policy)) for word in words], BASE, "true")
    assert result.code == 2 and message in result.said, result
    assert len(listed()) == before


def test_the_host_s_own_addresses_are_not_the_internet():
    found = [word for word in subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split() if "." in word]
    if not found:
        pytest.skip("this host has no address but its loopback's")
    said = explain("--net", "open", f"{found[0]}:80")
    assert said["verdict"] == "deny" and "host" in said["reason"], said


def test_files_that_cannot_be_read():
    assert caisson("net", "explain", "--net-policy", "/no/such", "a.b:80").code == 125
    large = WORK / "large.json"
    large.write_text(" " * (1 << 20) + "{}")
    result = caisson("net", "explain", "--net-policy", str(large), "a.b:80")
    assert result.code == 125 and str(large) in result.said, result


@pytest.mark.parametrize("words, message", [
    (["--net", "bridge"], "use none, public or open"),
    (["--net", "public", "--allow-net", "a.b"], "could mean two things"),
    (["--allow-net", "*.com"], "*.com"),
    (["--net-policy", "/dev/null", "--net", "open"], "--net-policy says everything"),
    (["--net-policy", "/dev/null"], "not valid JSON"),
    (["--net-limit", "in"], "--net-limit"),
    (["--net-limit", "connections=0"], "1 to 100000"),
    (["--net", "public", "--net-limit", "connections=5000"], "at most 4096"),
    (["--publish", "80"], "--publish '80'"),
    (["--unpublish", "80"], "--unpublish '80'"),
    (["--publish", "8080:80"], "without a network"),
    (["--net-limit", "flows=3"], "without a network"),
    (["--net", "public", "--net-limit", "burst=1M"], "there is none"),
    (["--net", "public", "--net-limit", "in=1M", "--net-limit", "burst=1000"], "at least 65536"),
])
def test_what_cannot_be_meant_changes_no_box(words, message):
    name = "net-words"
    caisson("create", "--pull", "never", "--name", name, BASE, "true").ok()
    try:
        result = caisson("update", *words, name)
        assert result.code == 2 and message in result.said, result
        assert inspect(name)["network"] == "none"
    finally:
        caisson("rm", name)


def test_a_box_that_does_not_run_gets_its_network_at_its_next_start():
    caisson("create", "--pull", "never", "--name", "net-later", BASE, "true").ok()
    try:
        planned = caisson("update", "--dry-run", "--format", "json", "--net", "public", "-p", "0:80", "-p", "8080:81/udp", "net-later").ok().json()[0]["changes"]
        assert inspect("net-later")["network"] == "none"
        assert caisson("update", "--format", "json", "--net", "public", "-p", "0:80", "-p", "8080:81/udp", "net-later").ok().json()[0]["changes"] == planned
        assert [(change["what"], change["from"], change["to"], change["takes_effect"]) for change in planned] == [
            ("network_policy", "none", '{"version":1,"mode":"public"}', "next_start"), ("port", None, "127.0.0.1:0:80", "next_start"), ("port", None, "127.0.0.1:8080:81/udp", "next_start")]
        assert inspect("net-later")["network"] == "public"
        assert caisson("port", "net-later").ok().lines == ["80/tcp -> 127.0.0.1:(chosen at its start)", "81/udp -> 127.0.0.1:8080"]
        assert caisson("port", "--format", "json", "net-later", "80").ok().json() == [{"address": "127.0.0.1", "host_port": None, "guest_port": 80, "protocol": "tcp"}]
        refused = caisson("update", "--net", "none", "net-later")
        assert refused.code == 2 and "not reached" in refused.said, refused
        refused = caisson("update", "--unpublish", "8080:81", "net-later")
        assert refused.code == 125 and "127.0.0.1:8080:81 is not published" in refused.said, refused
        refused = caisson("update", "--net-restart", "net-later")
        assert refused.code == 125 and "does not run" in refused.said, refused
        caisson("update", "--net", "none", "--unpublish", "8080:81/udp", "--unpublish", "0:80", "net-later").ok()
        assert inspect("net-later")["ports"] == [] and inspect("net-later")["network"] == "none"
        policies = [event["details"]["policy"] for event in map(json.loads, caisson("audit", "net-later", "--kind", "network_policy_changed", "--format", "json").ok().lines)]
        assert policies == ['{"version":1,"mode":"public"}', "none"]
    finally:
        caisson("rm", "net-later")


@pytest.mark.parametrize("words", [["no-such"], ["--format", "yaml", "x"], ["x", "0"], ["x", "80/sctp"], ["x", "65536"], []])
def test_ports_that_cannot_be_meant(words):
    result = caisson("port", *words)
    assert result.code == (125 if words == ["no-such"] else 2), result


@pytest.mark.skipif(os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="this user can use the tun device")
def test_a_host_that_can_make_no_network_says_so_and_how_to_do_without():
    before = set(listed())
    refused = caisson("run", "--rm", "--pull", "never", BASE, "true", env=environment(CAISSON_NET=""))
    assert refused.code == 125 and "tun device" in refused.said and "--net none" in refused.said, refused
    assert set(listed()) == before
