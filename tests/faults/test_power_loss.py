"""Some of the homes that power failures leave; `make test-faults` makes 2000."""
import os
import pathlib
import shutil
import tempfile

import boxes
import power
import pytest

pytestmark = [pytest.mark.keeps, pytest.mark.skipif(
    not boxes.IS_ROOT, reason="recording needs root: others may not look into processes that hide what they hold")]
IMAGES = int(os.environ.get("CAISSON_POWER_FAILURES", "40"))
SEED = int(os.environ.get("CAISSON_SEED", "1"))


@pytest.fixture
def place():
    place = pathlib.Path(tempfile.mkdtemp(prefix="power-", dir=boxes.WORK))
    os.chmod(place, 0o711)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("scenario, share", (("first", 0.6), ("machines", 0.4)))
def test_power_failures(place, scenario, share):
    made = power.in_an_empty_home(place) if scenario == "first" else power.with_machines(place, boxes.HOME)
    log = made.record()
    replays = power.Replays(place, SEED)
    replays.run(made, log, int(IMAGES * share))
    print(f"{len(log.acts)} acts, homes: {dict(replays.counts)}, seed {SEED}")
    assert not replays.bad, "\n\n".join(replays.bad)
