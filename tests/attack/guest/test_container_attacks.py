"""What root of a container with Docker's capabilities tries against the agent, the kernel and the raw devices, and how
exactly each attempt is answered. container_attacks.py makes the attempts; the table in docs/guest-attacks.md says what
must come of each, so that page and program stay the same.

CAISSON_PRINT_ATTACKS=1 with pytest's -s prints the table as it is found."""
import json
import os
import pathlib

import pytest
from boxes import BASE, run

ATTACKS = pathlib.Path(__file__).with_name("container_attacks.py").read_text()
PAGE = pathlib.Path(__file__).parents[3] / "docs/guest-attacks.md"


def expected():
    rows = [line.strip("|").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ") and " | " in line]
    return {(cells[0].strip(), cells[1].strip()): cells[2].strip().strip("`") for cells in rows[1:]}  # behind the heading


EXPECTED = expected()


@pytest.fixture(scope="module")
def answers():
    # Limits below the machine's own, to be got around.
    ended = run("--memory", "300M", "--pids-limit", "60", "-i", BASE, "python3", "-", input=ATTACKS.encode(), timeout=120)
    assert ended.code == 0, ended  # the box outlived it all and ended by itself
    found = {(group, what): answer for group, what, answer in json.loads(ended.out)}
    if os.environ.get("CAISSON_PRINT_ATTACKS"):
        for (group, what), answer in found.items():
            print(f"| {group} | {what} | `{answer}` |")
    return found


@pytest.mark.parametrize("group, what", EXPECTED, ids=lambda text: text)
def test_it_is_answered_so(answers, group, what):
    assert answers[group, what] == EXPECTED[group, what]


def test_page_and_attempts_are_the_same(answers):
    assert set(answers) == set(EXPECTED)
