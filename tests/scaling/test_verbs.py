"""Every verb that reads a table: seeds are runs of their own, values are checked, and what cannot be answered is one line."""

import dataclasses

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import __main__ as command
from lm.scaling import prediction, saved
from lm.scaling.fits import solver
from lm.scaling.laws.law import Chinchilla
from lm.scaling.planning import predicting
from lm.scaling.results import from_json
from tests.scaling.test_table_analysis import TRUTH, table, write

SIGMA = 0.01
SEEDS = 4


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    return status, capsys.readouterr()


def measured(random, n, d):
    return solver.loss(Chinchilla(), TRUTH, np.stack([n, d], axis=1)) * np.exp(SIGMA * random.standard_normal(len(n)))


@pytest.fixture(scope="module")
def seeded(tmp_path_factory, few_starts_in_module):
    """Thirty-six cells of four seeds, and the fit that `fit --save` keeps of them."""
    folder = tmp_path_factory.mktemp("seeded")
    n, d = (grid.ravel().repeat(SEEDS) for grid in np.meshgrid(np.geomspace(1e8, 3e9, 6), np.geomspace(2e9, 6e10, 6)))
    columns = {"N": n, "D": d, "loss": measured(np.random.default_rng(0), n, d), "seed": np.arange(len(n)) % SEEDS}
    path = folder / "fit.json"
    arguments = ["fit", str(write(folder / "runs.csv", columns)), "--seed-column=seed", "--draws=100", f"--save={path}"]
    assert command.main(arguments) == 0
    return path


def test_intervals_hold_runs_of_a_seed_where_cells_are_means_of_four(seeded, tmp_path, capsys):
    """The mean of four seeds has half the noise of a run. With it, 26, 45 and 66% of these runs would lie within 50, 80 and 95%.

    Shares of 400 runs are known to 2.5%, and shift with the one fit that all are held against.
    """
    random = np.random.default_rng(1)
    n, d = np.exp(random.uniform(np.log([[1e8], [2e9]]), np.log([[3e9], [6e10]]), (2, 400)))
    new = write(tmp_path / "new.csv", {"N": n, "D": d, "loss": measured(random, n, d)})
    made = from_json(run(capsys, "score", seeded, new, "--json")[1].out)
    for one in made.levels:
        assert one.held / one.rows == pytest.approx(one.level, abs=0.08)


def test_a_table_without_seeds_is_read_by_the_columns_of_a_fit_with_them(seeded, tmp_path, capsys):
    planned = write(tmp_path / "planned.csv", {"N": [1e9, 2e9], "D": [2e10, 4e10]})
    status, text = run(capsys, "predict", seeded, "--table", planned, "--json")
    made = from_json(text.out)
    assert status == 0
    assert len(made.table) == 2
    # Both places hold a run of one seed, whose noise is not that of a cell's mean.
    assert made.table[0].parts["noise"] == pytest.approx(SIGMA, rel=0.25)


@pytest.mark.parametrize(
    "arguments",
    [
        ("backtest", "{table}"),
        ("chain", "{table}", "--metric=error", "--at", "N=1e9", "D=1e10"),
        ("predict", "{fit}", "--table", "{table}"),
        ("score", "{fit}", "{table}"),
        ("tune", "{table}", "--sweep=lr"),
    ],
)
def test_no_verb_answers_for_parameters_in_millions(arguments, seeded, tmp_path):
    """`fit`, `plan` and `compare` refuse them in their results: see test_cautions."""
    columns = {"N": table()["N"] / 1e6, "D": table()["D"], "loss": table()["loss"], "error": table()["loss"] / 4, "lr": table()["loss"]}
    path = write(tmp_path / "runs.csv", columns)
    with pytest.raises(UserError, match="million"):
        command.main([one.format(table=path, fit=seeded) for one in arguments])


def test_runs_of_one_request_may_name_other_inputs(tmp_path, capsys, few_starts):
    """A law of C is asked for a run of N and D, and for one of C alone."""
    path = tmp_path / "fit.json"
    csv = write(tmp_path / "runs.csv", table() | {"loss": 2 + 1e3 * table()["C"] ** -0.15})
    assert run(capsys, "fit", csv, "--law=compute_power", f"--save={path}")[0] == 0
    status, text = run(capsys, "predict", path, "--at", "N=1e9", "D=2e10", "--at", "C=1e20")
    assert status == 0
    assert any(line.split()[:2] == ["-", "-"] for line in text.out.splitlines())


def test_a_place_without_a_loss_is_refused_beside_one_that_has_it(seeded):
    asked = predicting.forecaster(saved.read(seeded), {}, 0)
    made = asked.predict({"N": [1e9, 2e9], "D": [2e10, 2e10]})
    made = dataclasses.replace(made, log_loss=np.array([np.nan, made.log_loss[1]]))
    first, second = prediction.forecasts(asked.judged, made, 0.8)
    assert first.loss.kind == "extrapolation"
    assert second.loss.low < second.loss.value < second.loss.high
