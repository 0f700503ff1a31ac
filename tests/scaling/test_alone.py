"""lm.scaling needs numpy, scipy, jax and matplotlib: the rest of what the project depends on may be missing."""

import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
NEEDED = {"numpy", "scipy", "jax", "matplotlib", "packaging"}  # the last is matplotlib's
NEEDED |= {"jaxtyping", "jinja2"}  # for annotations, and for the page of --report
MODULES = {
    "array-record": "array_record",
    "orbax-checkpoint": "orbax",
    "tensorflow-datasets": "tensorflow_datasets",
    "ml-collections": "ml_collections",
}
RUN = """
import importlib.abc
import sys


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")


sys.meta_path.insert(0, Missing())
import lm.scaling.__main__ as command

arguments = ["fit", {table!r}, "--flops=C", "--budget=C", "--law=compute_power", "--draws=10", "--approach", "1", "2", "3"]
arguments += ["--report=" + {page!r}]
sys.exit(command.main(arguments))
"""


def missing():
    """Modules of the project's dependencies that lm.scaling has no need of."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.match(r"[\w-]+", line).group() for line in named}
    assert names >= NEEDED
    return sorted(MODULES.get(name, name.replace("-", "_")) for name in names - NEEDED)


def test_a_table_is_fitted_where_nothing_that_trains_is_installed(tmp_path):
    assert {"flax", "optax", "grain", "tensorflow_datasets", "orbax"} <= set(missing())
    c = np.repeat([1e18, 1e19, 1e20], 7)
    n = np.tile(np.geomspace(0.3, 3, 7), 3) * np.sqrt(c / 120)
    d = c / 6 / n
    loss = 1.7 + 400 / c**0.15 * np.tile(1 + 0.05 * np.linspace(-1, 1, 7) ** 2, 3)
    table, page = tmp_path / "runs.csv", tmp_path / "page.html"
    np.savetxt(table, np.stack([n, d, c, loss], axis=1), delimiter=",", header="N,D,C,loss", comments="")
    code = textwrap.dedent(RUN).format(missing=missing(), table=str(table), page=str(page))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "approach 3: L = E + A / C^gamma" in done.stdout
    assert "approach 2 (IsoFLOP): a 0.500 " in done.stdout
    assert page.stat().st_size > 10_000
