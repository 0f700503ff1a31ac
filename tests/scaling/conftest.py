import pytest

from lm.scaling.laws import Chinchilla


@pytest.fixture
def few_starts(monkeypatch):
    """Every 31st of the 4,500 starts, for tests that fit the law many times."""
    grid = Chinchilla.starts
    monkeypatch.setattr(Chinchilla, "starts", lambda self, centre: grid(self, centre)[::31])
