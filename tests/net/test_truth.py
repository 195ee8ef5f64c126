"""docs/network.md's truth table, row by row, from inside of boxes. src/net/policy/truth_test.cc asks the same rows of the
policy's code; here they are asked of a box, whose targets all exist and would answer, so that a refusal is the policy's.

A row holds when the guest sees the verdict, when a server was reached or was not, and when the journal has the rule that
decided."""
import collections
import ipaddress
import pathlib

import boxes
import internet
import pytest
from networks import all_events, box, private_internet

pytestmark = pytest.mark.skipif(bool(internet.unavailable()), reason=internet.unavailable())
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "network.md"
HEADER = "| policy | target | verdict | decided by |"
NAME_SERVER = "149.112.112.112"
ELSEWHERE = "93.184.216.34"  # where no row's policy has a rule
GATEWAY, HOST_NAME = "10.0.2.2", "host.caisson.internal"

Row = collections.namedtuple("Row", "policy words verdict rule")
Where = collections.namedtuple("Where", "address port protocol")


def rows_of(text):
    rows, inside = [], False
    for line in text.splitlines():
        if line == HEADER:
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            policy, target, verdict, rule = (cell.strip().strip("`") for cell in line[1:-1].split("|"))
            rows.append(Row(policy, tuple(target.split(" ")), verdict, rule))
    return rows


ROWS = rows_of(PAGE.read_text())


def where(text):
    place, _, protocol = text.partition("/")
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    return Where(GATEWAY if host == HOST_NAME else host, int(port), protocol or "tcp")


def after(row, word):
    return row.words[row.words.index(word) + 1] if word in row.words else ""


def group(row):
    """Rows that one box can be asked: with a policy of their own, and with what they have been told before."""
    return row.policy, after(row, "given"), " ".join(row.words) if row.words[0] == "dial" else ""


def groups():
    # Without any word there is a policy for whoever explains one, but no network for a box: test_network.py has that.
    told = collections.defaultdict(list)
    for row in ROWS:
        if row.policy:
            told[group(row)].append(row)
    return list(told.values())


def ports(protocol):
    of_rows = {where(row.words[-1] if row.words[0] == "dial" else row.words[1]) for row in ROWS if row.words[0] in ("connect", "dial")}
    return {place.port for place in of_rows if place.protocol == protocol}


@pytest.fixture(scope="module")
def world():
    with private_internet((sorted(ports("tcp")), sorted(ports("udp") | {53}))) as made:
        yield made


def zone_of(rows):
    """Every name of the table is there outside: at the address that a row wants for it, else at 9.9.9.9."""
    names = {word.lower().rstrip(".") for row in ROWS for word in (after(row, "given"), after(row, "showing"), row.words[1]) if word and ":" not in word}
    zone = {name: [] for name in names}
    for row in rows:
        if row.words[0] == "answer":
            zone[row.words[1]].append(row.words[2])
        if row.words[0] == "dial":
            zone[row.words[1]].append(where(row.words[2]).address)
        if after(row, "given"):
            zone[after(row, "given")].append(where(row.words[1]).address)
    return {name: addresses or ["9.9.9.9"] for name, addresses in zone.items()}


def options_of(policy, place):
    if not policy.startswith("{"):
        return policy.split(" ")
    file = place / "policy.json"
    file.write_text(policy)
    return ["--net-policy", str(file)]


def lines_of(row):
    kind = row.words[0]
    if kind in ("ask", "answer"):
        return [f"resolve {row.words[1]}"]
    if kind == "dial":
        place = where(row.words[2])
        return [f"probe {ELSEWHERE} {place.port} {row.words[1]}", f"probe {row.words[1]} {place.port} {row.words[1]}"]
    place, name = where(row.words[1]), after(row, "showing")
    given = [f"resolve {after(row, 'given')}"] if after(row, "given") else []
    if place.protocol == "udp":
        return [*given, f"probe_udp {place.address} {place.port}"]
    return [*given, f"probe {place.address} {place.port}" + (f" {name}" if name else "")]


def same_address(one, other):
    return ipaddress.ip_address(one) == ipaddress.ip_address(other)


def arrives_as(address):
    """What the guest's kernel makes of it: a mapped IPv4 address is sent as such."""
    parsed = ipaddress.ip_address(address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def stays_inside(address):
    parsed = ipaddress.ip_address(arrives_as(address))
    return parsed.is_loopback or parsed.is_multicast


def reached(world, place):
    # A connection to the host itself ends at its loopback.
    address = "127.0.0.1" if place.address == GATEWAY else arrives_as(place.address)
    return [request for request in world.requests() if request[0] == place.protocol and same_address(request[1], address) and int(request[2]) == place.port]


def recorded(box_name, kinds, /, **wanted):
    def found():
        return [details for kind, details in all_events(box_name) if kind in kinds and all(matches(key, details.get(key), value) for key, value in wanted.items())]
    return boxes.until(found, 5, (kinds, wanted))


def matches(key, told, wanted):
    return same_address(told, wanted) if key == "address" else told == wanted


def check_connection(world, name, row, results):
    result = results[-1]
    place, shown = where(row.words[1]), after(row, "showing")
    address = arrives_as(place.address)
    if row.verdict == "allow":
        assert result["ok"] and result["answered"], (row, result)
        # By its name it goes where that leads, which is 9.9.9.9 in all zones here that have such a row.
        assert reached(world, place), (row, world.requests())
        assert recorded(name, ("connection_allowed",), address=address, port=place.port, protocol=place.protocol, rule=row.rule)
        return
    assert not result.get("answered"), (row, result)
    assert not reached(world, place), (row, world.requests())
    if row.policy == "--net none" or stays_inside(place.address):
        assert not result["ok"], (row, result)
        return
    if row.verdict == "needs name" or (shown and result["ok"]):
        assert result["ok"] and place.protocol == "tcp", (row, result)
    else:
        assert result["error"] == "ECONNREFUSED" and result["seconds"] < 2, (row, result)
    wanted = {"name": shown} if shown and result["ok"] else {}
    # A box is never given an address for a name that it may not ask for: then it is refused as one without a name.
    rule = "mode rules" if after(row, "given") and not results[0]["ok"] else row.rule
    assert recorded(name, ("connection_denied",), address=address, port=place.port, protocol=place.protocol, rule=rule, **wanted)


def check_dial(world, name, row, results):
    place = where(row.words[2])
    if row.verdict == "allow":
        assert results[0]["answered"], (row, results)
        assert reached(world, place), (row, world.requests())
        assert recorded(name, ("connection_allowed",), name=row.words[1], port=place.port, rule=row.rule)
    else:
        assert not reached(world, place), (row, world.requests())
        assert not results[1].get("answered"), (row, results)


def check_name(world, name, row, result):
    asked = row.words[1].lower().rstrip(".")
    if row.words[0] == "answer":
        is_there = any(same_address(address, row.words[2]) for address in result.get("addresses", ()))
        assert is_there == (row.verdict == "allow"), (row, result)
        return
    assert result["ok"] == (row.verdict == "allow"), (row, result)
    if row.policy == "--net none":
        return
    assert recorded(name, ("name_asked",), name=asked, verdict="answered" if row.verdict == "allow" else "denied")
    if row.verdict == "deny":
        # The question itself carries nothing out.
        assert not [request for request in world.requests() if request[:2] == ["dns", asked]], row


def check(world, name, row, results):
    if row.words[0] == "connect":
        check_connection(world, name, row, results)
    elif row.words[0] == "dial":
        check_dial(world, name, row, results)
    else:
        check_name(world, name, row, results[0])


def test_every_row_is_asked():
    assert len(ROWS) > 100
    asked = [row for rows in groups() for row in rows]
    assert [row for row in ROWS if row not in asked] == [Row("", ("connect", "9.9.9.9:443"), "allow", "mode public")]


@pytest.mark.parametrize("rows", groups(), ids=lambda rows: " ".join(word for word in group(rows[0]) if word))
def test_from_the_guest(world, rows):
    world.names(zone_of(rows))
    # A name that was asked for may be an address's from then on.
    rows = sorted(rows, key=lambda row: row.words[0] in ("ask", "answer"))
    has_network = rows[0].policy != "--net none"
    with box(world, *options_of(rows[0].policy, world.place), dns=("--dns", NAME_SERVER) if has_network else ()) as ask:
        for row in rows:
            world.forget()
            results = ask(*lines_of(row))
            check(world, ask.name, row, results if isinstance(results, list) else [results])
