"""Best settings of sweeps: the vertex of a quadratic near the lowest loss, refused at an end, and its law in N and D."""

import itertools

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import __main__ as command
from lm.scaling import runs, sweeps
from lm.scaling.results import Estimate, Refusal, from_json
from tests.scaling.test_table_analysis import write

RATE, BATCH = (40.0, -0.5, 0.15), (0.3, 0.0, 0.55)  # c, a, b of x* = c N^a D^b
SIZES = list(itertools.product((1e7, 4e7, 2e8), (5e8, 4e9, 2e10)))


def optimum(law, n, d):
    c, a, b = law
    return c * n**a * d**b


def table(noise=0.0, batch=True, steps=5, shift=1.0, seed=0, curvature=0.004):
    """Sweeps by factors of 2 about the best values, `shift` off centre; log loss is a quadratic with a product of the two settings."""
    random = np.random.default_rng(seed)
    rows = []
    for n, d in SIZES:
        grid = 2.0 ** (np.arange(steps) - steps // 2)
        for f, g in itertools.product(grid, grid if batch else (1.0,)):
            u, v = np.log(f * shift), np.log(g * shift) if batch else 0.0
            log_loss = np.log(2 + 300 / n**0.3 + 300 / d**0.3) + curvature * (u * u + v * v - 0.9 * u * v)
            rows.append(
                (n, d, f * shift * optimum(RATE, n, d), g * shift * optimum(BATCH, n, d), log_loss + noise * random.standard_normal())
            )
    columns = dict(zip(("N", "D", "lr", "bs"), np.array(rows).T, strict=False))
    return columns | {"loss": np.exp([row[4] for row in rows])}


def read(frame, *names):
    return runs.from_frame(frame, runs.Columns(inputs={name: name for name in names}))


def test_quadratic_sweeps_give_the_best_values_and_their_law_exactly():
    made = sweeps.analyse(read(table(shift=1.3), "lr", "bs"), ["lr", "bs"], sweeps.SweepSettings(within=0.2, terms={"bs": ("D",)}))
    for cell in made.cells:
        assert cell.rows == 25
        assert cell.best["lr"].value == pytest.approx(optimum(RATE, cell.n, cell.d), rel=1e-7)
        assert cell.best["bs"].value == pytest.approx(optimum(BATCH, cell.n, cell.d), rel=1e-7)
        assert cell.loss == pytest.approx(2 + 300 / cell.n**0.3 + 300 / cell.d**0.3, rel=1e-9)
    rate, batch = made.laws["lr"], made.laws["bs"]
    assert [rate.c.value, *(one.value for one in rate.exponents.values())] == pytest.approx(RATE, rel=1e-6)
    assert list(batch.exponents) == ["D"]
    assert batch.exponents["D"].value == pytest.approx(BATCH[2], rel=1e-6)
    assert rate.caution is None


def test_units_of_a_setting_and_the_order_of_rows_change_nothing_but_c():
    frame = table(noise=1e-4)
    order = np.random.default_rng(1).permutation(len(frame["N"]))
    other = {name: column[order] for name, column in frame.items()} | {"bs": frame["bs"][order] / 2048}
    settings = sweeps.SweepSettings(draws=20)
    one, two = (sweeps.analyse(read(at, "lr", "bs"), ["lr", "bs"], settings).laws["bs"] for at in (frame, other))
    assert two.c.value == pytest.approx(one.c.value / 2048)
    for term, answer in one.exponents.items():
        assert two.exponents[term].value == pytest.approx(answer.value, abs=1e-9)


def test_intervals_of_values_and_exponents_hold_the_truth_as_often_as_they_say():
    """60 studies at 80%: a share of 80% has a standard deviation of 5.2%; 9 cells a study make the values' share steadier."""
    values = exponents = 0
    for seed in range(60):
        made = sweeps.analyse(read(table(noise=5e-4, batch=False, seed=seed), "lr"), ["lr"], sweeps.SweepSettings(draws=100, seed=seed))
        values += sum(cell.best["lr"].covers(optimum(RATE, cell.n, cell.d)) for cell in made.cells)
        exponents += made.laws["lr"].exponents["N"].covers(RATE[1])
        assert made.noise == pytest.approx(5e-4, rel=0.6)
    assert 0.72 < values / (60 * len(SIZES)) < 0.88
    assert 0.66 < exponents / 60 < 0.94


@pytest.mark.parametrize(
    ("shift", "curvature", "kind", "names"),
    [(40.0, 0.004, "edge", ("lower", "lr")), (1 / 40, 0.004, "edge", ("higher", "lr")), (1.0, -0.004, "concave", ("lr",))],
)
def test_a_sweep_without_a_minimum_inside_is_refused_with_what_to_add(shift, curvature, kind, names):
    made = sweeps.analyse(read(table(batch=False, shift=shift, curvature=curvature), "lr"), ["lr"], sweeps.SweepSettings(within=1.0))
    for cell in made.cells:
        answer = cell.best["lr"]
        assert isinstance(answer, Refusal)
        assert answer.kind == kind
        assert all(name in answer.reason for name in names)
    assert made.laws["lr"].kind == "too_few_points"


def test_rows_near_the_lowest_are_fitted_and_its_neighbours_at_least():
    log_x = np.log([1.0, 2.0, 4.0, 8.0, 16.0])[:, None]
    log_loss = np.array([0.9, 0.05, 0.0, 0.4, 0.9])
    assert sweeps.near_lowest(log_x, log_loss, 0.01).tolist() == [False, True, True, True, False]
    assert sweeps.near_lowest(log_x, log_loss, 0.6).tolist() == [False, True, True, True, False]
    assert sweeps.near_lowest(log_x[:3], log_loss[:3], 0.01).tolist() == [False, True, True]


def test_the_command_prints_laws_and_values_and_ends_as_documented(tmp_path, capsys):
    path = tmp_path / "sweep.csv"
    write(path, table(noise=2e-4))
    where = [str(path), "--sweep", "lr", "batch=bs", "--terms", "batch=D", "--draws=50"]
    assert command.main(["tune", *where, "--at", "N=1e9", "D=2e10", "--json"]) == 0
    made = from_json(capsys.readouterr().out)
    assert made.laws["lr"].exponents["N"].value == pytest.approx(RATE[1], abs=0.03)
    (rate, batch) = made.at
    assert (rate.name, batch.name) == ("lr", "batch")
    assert isinstance(rate.value, Estimate)
    assert rate.value.value == pytest.approx(optimum(RATE, 1e9, 2e10), rel=0.3)
    assert command.main(["tune", *where, "--at", "N=1e9", "D=2e10"]) == 0
    out = capsys.readouterr().out
    assert "lr = c N^a D^b" in out
    assert max(map(len, out.splitlines())) < 200
    write(path, table(batch=False, shift=60.0))
    assert command.main(["tune", str(path), "--sweep", "lr"]) == 1
    for wrong, named in (
        (["--sweep", "D"], "D"),
        (["--sweep", "width"], "width"),
        (["--sweep", "lr", "--terms", "batch=D"], "batch"),
        (["--sweep", "lr", "--terms", "lr=U"], "U"),
        (["--sweep", "lr", "--within=0"], "--within"),
        (["--sweep", "bs"], "bs"),
    ):
        with pytest.raises(UserError, match=named) as caught:
            command.main(["tune", str(path), *wrong])
        assert "\n" not in str(caught.value)
