"""What the tests of networks share."""
import networks
import pytest


@pytest.fixture(scope="module")
def world():
    with networks.private_internet() as made:
        yield made
