"""Boxes by name: kept ones, listing, removing, names that are taken."""
import concurrent.futures
import time

import pytest
from boxes import BASE, HOME, Started, box_ids, caisson, run

pytestmark = pytest.mark.keeps


def listed():
    return {box["name"]: box for box in caisson("ls", "--all", "--format", "json").json()}


def test_without_rm_a_box_is_kept_until_it_is_removed(kept_boxes):
    before = int(time.time() * 1000)
    assert caisson("run", "--name", "kept-1", BASE, "sh", "-c", "echo data > /file; exit 3").code == 3
    assert caisson("run", BASE, "/no/such").code == 127
    boxes = listed()
    box = boxes["kept-1"]
    assert set(box) >= {"id", "name", "image", "command", "state", "reason", "created_ms", "finished_ms", "exit_code"}
    assert (box["state"], box["exit_code"]) == ("stopped", 3)
    assert before <= box["created_ms"] <= box["finished_ms"] <= time.time() * 1000
    assert box["command"][0] == "sh" and box["image"].startswith(BASE)
    assert box["id"] in box_ids() and (HOME / "boxes" / box["id"] / "disk.qcow2").exists()
    drawn = next(name for name in boxes if name != "kept-1")
    assert "-" in drawn, "a name that people can say"
    plan = caisson("run", "--dry-run", BASE, "true").ok().lines
    engine = next(line.split(maxsplit=1)[1] for line in plan if line.startswith("engine "))
    assert "TCG" in engine or "KVM" in engine
    log = (HOME / "boxes" / box["id"] / "shim.log").read_text().splitlines()
    assert log == ["caisson-shim: " + engine], "what runs the guest, and why; nothing else went wrong"
    text = caisson("ls", "-a").ok().text
    assert "kept-1" in text and "stopped" in text and drawn in text
    taken = caisson("run", "--rm", "--name", "kept-1", BASE, "true")
    assert taken.code == 125 and "kept-1" in taken.said
    # By name, and by the beginning of an id that is unique.
    assert caisson("rm", "kept-1").ok().text == "kept-1\n"
    caisson("rm", boxes[drawn]["id"][:24]).ok()
    assert not listed() and not box_ids()
    assert caisson("rm", "kept-1").code == 125
    assert run("--name", "kept-1", BASE, "true").code == 0, "the name is free again"


def test_a_running_box_is_listed_and_not_removed():
    with Started("run", "--rm", "--name", "busy", BASE, "sh", "-c", "echo ready; sleep 100") as box:
        box.line()
        assert listed()["busy"]["state"] == "running"
        refused = caisson("rm", "busy")
        assert refused.code == 125 and "running" in refused.said
        taken = run("--name", "busy", BASE, "true")
        assert taken.code == 125 and "busy" in taken.said
        assert box.process.poll() is None
    for _ in range(40):
        if not listed():
            break
        time.sleep(0.05)
    assert not listed() and not box_ids()


def test_of_many_with_one_name_one_wins():
    def attempt(_):
        return run("--name", "contested", BASE, "sleep", "1")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        codes = sorted(result.code for result in pool.map(attempt, range(4)))
    assert codes == [0, 125, 125, 125]
    assert not box_ids()
