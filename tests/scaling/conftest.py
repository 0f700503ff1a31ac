import pytest

from lm.scaling.laws import Chinchilla


@pytest.fixture
def few_starts(monkeypatch):
    """Every 31st of the 4,500 starts, for tests that fit the law many times."""
    _thin(monkeypatch)


@pytest.fixture(scope="module")
def few_starts_in_module():
    with pytest.MonkeyPatch.context() as patch:
        _thin(patch)
        yield


def _thin(patch):
    grid = Chinchilla.starts
    patch.setattr(Chinchilla, "starts", lambda self, centre: grid(self, centre)[::31])
