"""Compute multipliers: known ones come back, intervals cover, pairing narrows them, and what cannot be compared is refused."""

import dataclasses
import json

import numpy as np
import pytest

from lm.scaling import multiplier, runs
from lm.scaling.__main__ import main
from lm.scaling.fits import solver
from lm.scaling.fits.objectives import SquaredLog
from lm.scaling.laws.law import Chinchilla
from lm.scaling.laws.loss_laws import ComputePower
from lm.scaling.results import Refusal, from_json, to_json
from tests.scaling import known

LAW, TRUTH = ComputePower(), np.array([1.7, 30.0, 0.1])  # E, A, gamma
BUDGETS, SEEDS = np.geomspace(1e17, 1e20, 6), 3
X = 0.83


def tables(random=None, sigma=0.004, shared=0.9):
    """Two recipes at the same cells, B needing X times A's compute; `shared` is the correlation of their noise within a pair."""
    c = np.repeat(BUDGETS, SEEDS)
    n = np.sqrt(c / 120)
    noise = np.zeros((2, len(c)))
    if random is not None:
        common, own = random.standard_normal(len(c)), random.standard_normal((2, len(c)))
        noise = sigma * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
    loss = [solver.loss(LAW, TRUTH, (c / factor)[:, None]) for factor in (1.0, X)]
    frames = [
        {"N": n, "D": 20 * n, "loss": each * np.exp(e), "seed": list("012") * len(BUDGETS)} for each, e in zip(loss, noise, strict=True)
    ]
    return [runs.from_frame(frame, runs.Columns(seed="seed")) for frame in frames]


def measured(pair, **changes):
    return multiplier.multiplier(*pair, **({"law": LAW, "objective": SquaredLog(), "draws": 19} | changes))


def test_a_known_multiplier_comes_back_without_noise():
    made = measured(tables(), flops=(1e18, 1e19))
    for answer in made.compute:
        assert answer.value == pytest.approx(X, rel=1e-3)
    assert made.loss[0].value == pytest.approx(solver.loss(LAW, TRUTH, np.array([[1e18]]))[0])
    assert (made.pairs, made.paired_by, made.cautions) == (18, "seed, N and D", ())
    assert made.sentence().startswith("B reaches A's loss with 0.83 times the compute")
    assert from_json(to_json(made)) == made


@pytest.mark.usefixtures("few_starts")
def test_a_law_of_n_and_d_is_compared_along_its_frontier():
    """B at (N, D) is A at (N sqrt k, D sqrt k), so that its frontier at C is A's at k C: X = 1 / k."""
    design = known.own_design()
    a = design.exact()
    x = np.stack([a.n, a.d], axis=1) * np.sqrt(1.25)
    b = dataclasses.replace(a, loss=solver.loss(Chinchilla(), design.values, x))
    made = multiplier.multiplier(a, b, (float(a.c.max()),), draws=19)
    assert made.compute[0].value == pytest.approx(0.8, rel=1e-3)


def test_intervals_cover_and_pairing_narrows_them(monkeypatch):
    """40 studies, nominal 80%: a standard error of 6.3%. Noise that is shared to .9 leaves about sqrt(.1) of the width."""
    grid = ComputePower.starts
    monkeypatch.setattr(ComputePower, "starts", lambda self, centre: grid(self, centre)[::8])  # an eighth, over 50 comparisons
    random, covered, apart, ratios = np.random.default_rng(0), [], [], []
    for study in range(40):
        pair = tables(random)
        paired = measured(pair, seed=study).compute[0]
        covered.append(paired.covers(X))
        if study % 4 == 0:
            alone = measured(pair, paired=False, seed=study).compute[0]
            apart.append(alone.covers(X))
            ratios.append((paired.high - paired.low) / (alone.high - alone.low))
    assert abs(np.mean(covered) - 0.8) < 0.19
    assert all(apart)  # what is shared was counted twice: .9 of the variance, so that 80% intervals hold more than 99.9%
    assert np.median(ratios) == pytest.approx(np.sqrt(0.1), abs=0.12)


def test_the_correlation_is_that_of_paired_residuals():
    """The correlation of 18 pairs has an sd of (1 - .81) / sqrt(18) = .045, and the two fits take some away."""
    made = measured(tables(np.random.default_rng(1)))
    assert made.correlation == pytest.approx(0.9, abs=0.2)
    a, b = tables(np.random.default_rng(1))
    other = dataclasses.replace(b, seed=tuple(f"other {s}" for s in b.seed))
    alone = measured((a, other))
    assert (alone.correlation, alone.pairs, alone.difference) == (None, 0, None)
    assert [caution.kind for caution in alone.cautions] == ["unpaired"]


def test_rows_pair_by_run_then_by_cell_then_by_rank():
    a, b = tables()
    named = [dataclasses.replace(one, run=tuple(f"r{i}" for i in order)) for one, order in ((a, range(18)), (b, range(17, -1, -1)))]
    pairs, by = multiplier.matched(*named)
    assert by == "run"
    assert pairs == [(i, 17 - i) for i in range(18)]
    other = dataclasses.replace(b, inputs={**b.inputs, "N": b.n * 1.1}, budget=np.repeat(BUDGETS, 3))
    pairs, by = multiplier.matched(dataclasses.replace(a, budget=np.repeat(BUDGETS, 3)), other)
    assert by == "seed, budget and rank of size"
    assert pairs == [(i, i) for i in range(18)]


def test_what_cannot_be_compared_is_refused():
    a, b = tables()
    counted = multiplier.multiplier(a, dataclasses.replace(b, counted=True), law=LAW)
    assert counted.kind == "conventions"
    mixed = dataclasses.replace(b, decayed=np.arange(len(b)) > 0)
    assert multiplier.multiplier(a, mixed, law=LAW).kind == "mid_schedule"
    far = dataclasses.replace(b, inputs={**b.inputs, "C": b.c * 1e6})
    assert "share no range of compute" in multiplier.multiplier(a, far, law=LAW).reason
    worse = dataclasses.replace(b, loss=b.loss + 1.0)
    never = measured((a, worse)).compute[0]
    assert isinstance(never, Refusal)
    assert "compare them at another C" in never.reason
    marked = measured((a, b), flops=(1e22,)).cautions
    assert [caution.kind for caution in marked] == ["extreme_extrapolation"]


def test_the_command_says_the_multiplier(tmp_path, capsys):
    for name, table in zip("ab", tables(np.random.default_rng(2)), strict=True):
        rows = ["N,D,loss,seed"] + [f"{n},{d},{loss},{s}" for n, d, loss, s in zip(table.n, table.d, table.loss, table.seed, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    command = ["compare", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--seed-column=seed"]
    assert main([*command, "--law=compute_power", "--objective=squared_log", "--draws=19", "--at", "1e19", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"] == 18
    answer = found["compute"][0]
    assert answer["low"] < answer["value"] < answer["high"]
    assert abs(answer["value"] - X) < 0.1
