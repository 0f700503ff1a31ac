"""lm.scaling needs numpy, scipy, jax and matplotlib: the rest of what the project depends on may be missing."""

import importlib
import importlib.abc
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

NEEDED = {"numpy", "scipy", "jax", "matplotlib", "packaging"}  # the last is matplotlib's
NEEDED |= {"jaxtyping", "jinja2"}  # for annotations, and for the page of --report
MODULES = {
    "array-record": "array_record",
    "orbax-checkpoint": "orbax",
    "tensorflow-datasets": "tensorflow_datasets",
    "ml-collections": "ml_collections",
}


class Missing(importlib.abc.MetaPathFinder):
    """Finds nothing for packages of these names: importing them fails as where they are not installed."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}")


def missing():
    """Modules of the project's dependencies that lm.scaling has no need of."""
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    named = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.match(r"[\w-]+", line).group() for line in named}
    assert names >= NEEDED
    return {MODULES.get(name, name.replace("-", "_")) for name in names - NEEDED}


def forget(packages):
    """Takes what is imported of these packages out of Python's list, and returns it."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in packages}


@pytest.fixture
def alone(monkeypatch):
    """The module of the command, imported anew with everything of this project, where the rest cannot be imported."""
    names = missing()
    assert {"flax", "optax", "grain", "tensorflow_datasets", "orbax"} <= names
    before = forget({"lm", *names})
    monkeypatch.setattr(sys, "meta_path", [Missing(names), *sys.meta_path])
    yield importlib.import_module("lm.scaling.__main__")
    forget({"lm"})
    sys.modules.update(before)


def test_a_table_is_fitted_where_nothing_that_trains_is_installed(alone, tmp_path, capsys):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("flax")
    c = np.repeat([1e18, 1e19, 1e20], 7)
    n = np.tile(np.geomspace(0.3, 3, 7), 3) * np.sqrt(c / 120)
    d = c / 6 / n
    loss = 1.7 + 400 / c**0.15 * np.tile(1 + 0.05 * np.linspace(-1, 1, 7) ** 2, 3)
    table, page = tmp_path / "runs.csv", tmp_path / "page.html"
    np.savetxt(table, np.stack([n, d, c, loss], axis=1), delimiter=",", header="N,D,C,loss", comments="")
    arguments = ["fit", str(table), "--flops=C", "--budget=C", "--law=compute_power", "--objective=squared_log", "--draws=10"]
    assert alone.main([*arguments, "--approach", "1", "2", "3", f"--report={page}"]) == 0
    out = capsys.readouterr().out
    assert "approach 3: L = E + A / C^gamma" in out
    assert "approach 2 (IsoFLOP): a 0.500 " in out
    assert page.stat().st_size > 10_000
    assert (tmp_path / "page_files" / "curve.svg").stat().st_size > 5_000
