"""Every verb ends with 0 where it has an answer, 1 where all that was asked for is refused, 2 where the input has to be mended."""

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import __main__ as command
from tests.scaling.test_table_analysis import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables of C alone along L = 1.7 + 60 / C^.12: `runs`, `other` (a tenth better), `far` (no compute in common), `few` (three rows)."""
    place = tmp_path_factory.mktemp("tables")
    random = np.random.default_rng(3)

    def table(name, c, factor=1.0, also=None):
        n = np.sqrt(c / 120)
        loss = (1.7 + 60 / c**0.12) * factor * np.exp(0.002 * random.standard_normal(len(c)))
        write(place / f"{name}.csv", {"N": n, "D": c / 6 / n, "loss": loss} | (also or {}))

    table("runs", np.geomspace(1e16, 1e21, 16))
    table("other", np.geomspace(1e16, 1e21, 16), 0.99)
    table("far", np.geomspace(1e23, 1e25, 16))
    table("few", np.array([1e16, 1e18, 1e20]))
    table("one", np.full(30, 1e19) * np.linspace(1, 1.001, 30))
    return place


def status(*arguments):
    try:
        return command.main([*map(str, arguments)])
    except UserError as error:
        return 2 if "\n" not in str(error) else 3
    except SystemExit as end:  # of --help
        return end.code


LAW = ("--law=compute_power", "--objective=squared_log")


def test_fit_predict_and_score(folder):
    saved = folder / "fit.json"
    assert status("fit", folder / "runs.csv", *LAW, "--draws=20", f"--save={saved}") == 0
    assert status("fit", folder / "few.csv", *LAW, "--draws=20") == 1
    assert status("fit", folder / "few.csv", *LAW, "--draws=20", f"--save={folder / 'none.json'}") == 1
    assert not (folder / "none.json").exists()
    assert status("fit", folder / "runs.csv", "--loss=L") == 2
    assert status("fit", folder / "runs.csv", "--approach", "1", f"--save={saved}") == 2
    assert status("predict", saved, "--at", "C=1e20") == 0
    assert status("predict", saved, "--target", "1e20") == 2
    assert status("predict", folder / "runs.csv", "--at", "C=1e20") == 2
    assert status("score", saved, folder / "far.csv") == 0
    assert status("score", saved, folder / "nowhere.csv") == 2


def test_a_fit_is_not_saved_over_the_table(folder):
    rows = (folder / "few.csv").read_bytes()
    held = folder / "few.json"
    held.write_text('[{"N": 1e7, "D": 1e9, "loss": 3.0}]')
    for path in (folder / "few.csv", held):
        before = path.read_bytes()
        assert status("fit", path, *LAW, f"--save={path}") == 2
        assert path.read_bytes() == before
    assert status("fit", folder / "runs.csv", *LAW, f"--save={folder / 'few.csv'}") == 2
    assert status("fit", folder / "runs.csv", *LAW, f"--save={folder}") == 2
    assert (folder / "few.csv").read_bytes() == rows


def test_seeds_are_not_negative(folder):
    for arguments in (("fit", folder / "runs.csv", *LAW), ("power", "--budgets", "1e17", "1e18"), ("backtest", folder / "runs.csv")):
        assert status(*arguments, "--seed=-1") == 2


def test_compare(folder):
    assert status("compare", folder / "runs.csv", folder / "other.csv", *LAW, "--draws=20") == 0
    assert status("compare", folder / "runs.csv", folder / "far.csv", *LAW, "--draws=20") == 1
    assert status("compare", folder / "runs.csv", folder / "nowhere.csv", *LAW) == 2


def test_plan(folder):
    assert status("plan", folder / "one.csv", "--target", "1e20") == 1
    assert status("plan", folder / "runs.csv", "--target", "1e20", *LAW) == 2
    assert status("plan", folder / "runs.csv") == 2


def test_power(folder):
    assert status("power", "--budgets", "1e17", "1e18", "1e19", "--sigma=.003", "--studies=100") == 0
    assert status("power", folder / "few.csv", "--studies=100") == 1
    assert status("power", "--budgets", "1e18", "--studies=100") == 2


def test_options_that_no_verb_has(capsys):
    for verb in command.VERBS:
        assert status(verb, "--frob") == 2
        assert status(verb, "--help") == 0
    assert status("frob") == 2
