"""--net-learn and caisson net suggest: a box is watched, and the policy that comes of it lets the same through and no more."""
import json

import boxes
import internet
import pytest
from internet import METADATA, OTHER, PRIVATE, WEB
from networks import Inside, all_events, box, events

pytestmark = pytest.mark.skipif(bool(internet.unavailable()), reason=internet.unavailable())
# What the box does: a name that it asks for, one that it only shows, one behind which there is no protocol with names, an address.
WANTED = ("http example.test 80 example.test", f"tls {WEB} 443 www.example.test", "probe_echo deep.www.example.test 7", f"udp {OTHER} 7 10", f"tls {OTHER} 443 ")
POLICY = {"version": 1, "mode": "rules",
          "allow": ["deep.www.example.test:7", "example.test", "www.example.test", f"{OTHER}:443", f"{OTHER}:7/udp"]}


def suggestion(ask):
    return ask.inside.caisson("net", "suggest", "--format", "json", ask.name).ok().json()


def until_told(ask, wanted):
    boxes.until(lambda: {rule["rule"] for rule in suggestion(ask)["rules"]} >= set(wanted), 5, wanted)
    return suggestion(ask)


def test_what_was_learnt_is_enough_and_no_more(world):
    with box(world, "--net-learn") as ask:
        assert all(result["ok"] for result in ask(*WANTED))
        assert not any(result["ok"] for result in ask(f"connect {METADATA} 80", f"connect {PRIVATE} 5432", "resolve inside.test"))
        told = until_told(ask, POLICY["allow"])
        assert told["policy"] == POLICY and told["left_out"] == 0, told
        refused = {each["target"]: each["reason"] for each in told["refused"]}
        assert set(refused) == {f"{METADATA}:80/tcp", f"{PRIVATE}:5432/tcp", f"inside.test at {PRIVATE}"}, refused
        assert "metadata" in refused[f"{METADATA}:80/tcp"]
        plain = ask.inside.caisson("net", "suggest", ask.name).ok()
        assert json.loads(plain.text) == POLICY
        assert all(f"not suggested: {target}" in plain.said for target in refused), plain.said
        (world.place / "learnt.json").write_text(plain.text)
    with box(world, "--net-policy", world.place / "learnt.json") as ask:
        assert all(result["ok"] for result in ask(*WANTED))
        refused = ask(f"tls {WEB} 443 other.test", f"connect {WEB} 25", "resolve other.test", f"connect {OTHER} 25", f"connect {METADATA} 80")
        assert [result["ok"] for result in refused] == [False] * 5, refused


def test_each_target_is_kept_however_many_there_are(world):
    """More than the journal takes of other boxes at once."""
    with box(world, "--net-learn", "--net-limit", "connects=10000") as ask:
        ask(f"sweep {OTHER} 20000 700", timeout=300)
        told = until_told(ask, [f"{OTHER}:20000-20699"])
        assert told["left_out"] == 0, told
        seen = len(events(ask.name, "connection_failed"))
        # Again: nothing new, and the usual limit holds for what is told again.
        ask(f"sweep {OTHER} 20000 700", timeout=300)
        assert boxes.until(lambda: len(events(ask.name, "connection_failed")) > seen, 5)
        assert len(events(ask.name, "connection_failed")) < 2 * 700
        assert suggestion(ask)["policy"]["allow"] == [f"{OTHER}:20000-20699"]


def test_a_box_that_does_not_learn_says_what_was_left_out(world):
    with box(world, "--net", "public", "--net-limit", "connects=10000") as ask:
        ask(f"sweep {OTHER} 20000 700", timeout=300)
        # How many there were is told with the next entry that is taken.
        boxes.until(lambda: ask("resolve example.test") and [kind for kind, _ in all_events(ask.name) if kind == "network_events_left_out"], 10)
        ended = ask.inside.caisson("net", "suggest", ask.name).ok()
        assert "left out" in ended.said and "--net-learn" in ended.said, ended


def test_an_allow_list_learns_what_it_refused(world):
    with box(world, "--net-learn", "--allow-net", "example.test", "--deny-net", "other.test") as ask:
        ask("http example.test 80 example.test", f"tls {WEB} 443 www.example.test", "resolve badexample.test", "resolve other.test")
        told = until_told(ask, ["badexample.test"])
        assert told["policy"]["allow"] == ["badexample.test", "example.test", "www.example.test"], told
        assert told["refused"] == [{"target": "other.test", "reason": 'the rule "deny other.test" stands against it'}], told


def test_a_server_that_speaks_first_is_not_kept_waiting(world):
    with box(world, "--net-learn") as ask:
        result = ask(f"greeted {WEB} 25")
        assert result["ok"] and result["greeting"] == "220 hello" and result["seconds"] < 3, result


def test_what_cannot_be_learnt(world):
    inside = Inside(world)
    ended = inside.caisson("create", "--pull", "never", "--net", "none", "--net-learn", boxes.BASE, "true")
    assert ended.code == 2 and "network" in ended.said, ended
    name = inside.caisson("create", "--pull", "never", boxes.BASE, "true").ok().text.strip()
    try:
        ended = inside.caisson("net", "suggest", name)
        assert ended.code == 125 and "no network" in ended.said, ended
    finally:
        inside.caisson("rm", name).ok()
    assert inside.caisson("net", "suggest", "nobody").code == 125
