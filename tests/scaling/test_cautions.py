"""Cautions about what rows are and what answers hang on: each comes on its fault and stays away from a table that follows a true law."""

import dataclasses

import numpy as np
import pytest

from lm.scaling import coverage, diagnostics
from lm.scaling import runs as runs_lib
from lm.scaling.approaches import parametric, profiles
from lm.scaling.diagnostics import agreement, cells, estimates, influence, plausibility, trend
from lm.scaling.diagnostics import kinds as kinds_of_rows
from lm.scaling.fits import fit
from lm.scaling.intervals import resampling
from lm.scaling.laws.law import Chinchilla
from lm.scaling.laws.loss_laws import Downstream
from lm.scaling.results import Caution, Estimate, Refusal
from lm.scaling.runs import Selection
from tests.scaling import known

LAW = Chinchilla()
DESIGN = known.own_design()
GOOD = DESIGN.exact()
NOISY = dataclasses.replace(GOOD, loss=np.exp(DESIGN.simulate(1, 0)[0]))


def repeated(times, losses, **changes):
    """The study with each row `times` over; `losses` [times] multiply the copies' losses."""
    runs = NOISY.take(np.tile(np.arange(len(NOISY)), times))
    named = tuple(f"row {i + 2}" for i in range(len(runs)))
    return dataclasses.replace(runs, loss=runs.loss * np.repeat(losses, len(NOISY)), run=named, **changes)


def scaled(**factors):
    return dataclasses.replace(GOOD, inputs={name: column * factors.get(name, 1.0) for name, column in GOOD.inputs.items()})


def text_of(found):
    return found.reason if isinstance(found, Refusal) else found.message


def kinds(found):
    return [one.kind for one in found]


def test_two_corpora_and_a_sweep_are_no_seeds():
    """Losses of one corpus are .6 times the other's: a refusal that names a pair of rows. A further column that varies is named."""
    found = cells.repeats(repeated(2, [1.0, 0.6]))
    assert isinstance(found, Refusal)
    assert all(word in found.reason for word in ("56 rows", "28 cells", "--where", "--best", "--seed-column"))
    one = next(i for i in range(28) if f"row {i + 2} " in found.reason)
    assert f"row {one + 30} " in found.reason
    rates = tuple(np.repeat(["1e-4", "1e-3", "1e-2"], 28).tolist())
    swept = repeated(3, [1.0, 1.03, 1.1], other={"lr": rates, "host": tuple(str(i) for i in range(84))})
    assert "lr varies" in cells.repeats(swept).reason
    assert "--input" in cells.repeats(swept).reason


def test_a_named_column_of_seeds_leaves_a_caution_and_one_seed_twice_a_refusal():
    corpora = tuple(np.repeat(["0", "1"], 28).tolist())
    found = cells.repeats(repeated(2, [1.0, 0.6], seed=corpora))
    assert isinstance(found, Caution)
    twice = cells.twice(repeated(2, [1.0, 0.99], seed=("0",) * 56))
    assert isinstance(twice, Refusal)
    assert "row 2 and row 30" in twice.reason
    assert cells.twice(repeated(2, [1.0, 0.99], seed=corpora)) is None


def test_repeats_that_are_noise_pass():
    """Two seeds a cell that no column names: 1 of 10,000 tables is refused by chance, none of 100 here."""
    twice = GOOD.take(np.tile(np.arange(28), 2))
    losses = dataclasses.replace(DESIGN, runs=twice).simulate(100, 3)
    assert not any(cells.repeats(dataclasses.replace(twice, loss=np.exp(each))) for each in losses)
    assert diagnostics.conditions(NOISY) == ()


def test_rows_that_are_there_twice_are_counted_and_resampled_as_one():
    rounded = np.round(NOISY.loss, 3)
    runs = dataclasses.replace(repeated(2, [1.0, 1.0]), loss=np.concatenate([NOISY.loss, rounded]))
    found = cells.duplicates(runs)
    assert "28 rows" in found.message
    assert "row 2 and row 30" in found.message
    chosen = resampling.Measured().resolve(runs, Refusal("no_replicas", ""))
    assert isinstance(chosen, resampling.ByCell)
    np.testing.assert_array_equal(chosen.units(runs)[:28], chosen.units(runs)[28:])
    assert type(resampling.Measured().resolve(NOISY, Refusal("no_replicas", ""))) is resampling.Rows


def test_the_best_of_a_sweep_whose_optimum_lies_beyond_it():
    """Losses rise with the learning rate in every cell: the best of each is the smallest. Seeds of no effect are at no end."""
    rates = np.repeat([1e-4, 1e-3, 1e-2], 28)
    columns = {name: np.tile(getattr(NOISY, name.lower()), 3) for name in ("N", "D", "loss")}
    random = np.random.default_rng(0)
    up = columns | {"loss": columns["loss"] * (1 + 0.01 * np.log(rates / 1e-4)), "lr": rates}
    best = runs_lib.from_frame(up, select=Selection(best=True))
    (found,) = diagnostics.conditions(best)
    assert found.kind == "edge"
    assert all(word in found.message for word in ("28 of 28", "smallest", "lr"))
    noise = columns | {"loss": columns["loss"] * (1 + 0.001 * random.standard_normal(84)), "trial": np.repeat([0, 1, 2], 28)}
    assert runs_lib.from_frame(noise, select=Selection(best=True)).cautions == ()


def test_rounded_repeats_are_left_out_with_the_others():
    columns = {"N": [1e7, 1e7, 2e7, 2e7], "D": [1e9, 1e9, 1e9, 1e9], "loss": [3.45439, 3.454, 3.2, 3.3]}
    assert len(runs_lib.from_frame(columns, select=Selection(drop_duplicates=True))) == 3


def test_cells_are_equal_inputs_whatever_the_order_and_points_of_a_curve_are_none():
    d = np.array([1e9, 1.004e9, 1e9, 3e9])
    columns = {"N": [1e7] * 4, "D": d, "loss": [3.0, 3.1, 3.2, 2.9], "budget": [6e16] * 3 + [18e16]}
    assert len(set(runs_lib.from_frame(columns).repeats().tolist())) == 3
    assert len(set(runs_lib.from_frame(columns, runs_lib.Columns(budget="budget")).repeats().tolist())) == 2
    curve = {"N": [1e7] * 50, "D": np.geomspace(1e9, 1.5e9, 50), "loss": np.linspace(3, 2.9, 50), "budget": [1e17] * 50}
    assert len(set(runs_lib.from_frame(curve, runs_lib.Columns(budget="budget")).repeats().tolist())) == 50


def test_rows_of_one_budget_and_size_whose_tokens_differ():
    runs = repeated(2, [1.0, 1.0])
    d = runs.d * np.repeat([1.0, 1.2], 28)
    found = cells.tokens(dataclasses.replace(runs, inputs=runs.inputs | {"D": d}))
    assert "56 rows" in found.message
    assert cells.tokens(runs) is None


@pytest.mark.parametrize(
    ("factors", "word"),
    [
        ({"N": 1e-6, "D": 1e-9}, "parameters"),  # N in millions, D in billions: D / N looks right
        ({"N": 1e-6}, "parameters"),
        ({"D": 1e-9}, "tokens"),
        ({"D": 1e-6}, "tokens"),
        ({"D": 1e6}, "D / N"),
    ],
)
def test_counts_in_other_units_are_refused(factors, word):
    (found,) = plausibility.values(scaled(**factors), LAW)
    assert isinstance(found, Refusal)
    assert found.kind == "units"
    assert word in found.reason


def test_flops_in_other_units_and_counts():
    by = runs_lib.Runs.c.fget(GOOD)
    budget = lambda factor: dataclasses.replace(GOOD, budget=by * factor)  # noqa: E731
    assert plausibility.counted(budget(1e-15), by * 1e-15, "--budget").kind == "units"
    for factor, said in ((3.0, "3 times"), (1 / 3, "forward pass"), (0.5, "encoder-decoder")):
        (found,) = plausibility.values(budget(factor), LAW)
        assert found.kind == "budget"
        assert said in found.message
    for factor in (0.8, 1.0, 1.3):
        assert plausibility.values(budget(factor), LAW) == []


def test_exchanged_columns_and_perplexity():
    swapped = dataclasses.replace(GOOD, inputs=GOOD.inputs | {"N": GOOD.d * 5, "D": GOOD.n, "M": GOOD.n / GOOD.d / 5}, budget=None)
    assert kinds(plausibility.values(swapped, LAW)) == ["swapped"]
    loss = dataclasses.replace(GOOD, loss=np.exp(GOOD.loss * 3))
    (found,) = plausibility.values(loss, LAW)
    assert found.kind == "perplexity"
    assert f"{3 * GOOD.loss.min():.3g}" in found.message
    assert plausibility.values(loss, Downstream()) == []
    diverged = dataclasses.replace(GOOD, loss=np.where(np.arange(28) == 4, 20.0, GOOD.loss))
    (found,) = plausibility.values(diverged, LAW)
    assert GOOD.run[4] in found.message


def test_small_models_bits_per_byte_and_repeated_data_pass():
    tiny = runs_lib.from_frame({"N": [1e3, 3e3, 1e4], "D": [2e4, 6e4, 2e5], "loss": [0.9, 0.8, 0.7]})
    few = runs_lib.from_frame({"N": [1e7, 3e7, 1e9], "D": [1e7, 1e8, 1e8], "loss": [4.0, 3.5, 3.6]})
    computed = runs_lib.from_frame({"N": np.geomspace(1e7, 1e9, 5) + 0.123, "D": [1e9] * 5, "loss": [3, 2.9, 2.8, 2.7, 2.6]})
    for runs in (tiny, few, computed):
        assert plausibility.values(runs, LAW) == []
    odd = runs_lib.from_frame({"N": [1e7, 1e7, 1e9], "D": [1e8, 1e9, 5e7], "loss": [4.0, 3.5, 3.6]})
    (found,) = plausibility.values(odd, LAW)
    assert found.kind == "ratio"
    assert "row 2" in found.message


@pytest.fixture(scope="module")
def studies():
    """Forty studies of a true law, fitted."""
    base = coverage.fitted(DESIGN)
    return [
        coverage._fitted(one, DESIGN, resampling.Rows(), 19, i) for i, one in enumerate(coverage.studies_of(base, DESIGN.simulate(40, 0)))
    ]


def runs_of(made):
    return dataclasses.replace(GOOD, loss=np.exp(made.fit.points.log_loss))


def refitted(studies, change, count):
    """The first studies again, of losses that are off by `change` [n] in the logarithm."""
    ends = coverage.studies_of(studies[0].fit, np.array([made.fit.points.log_loss + change for made in studies[:count]]))
    values = [LAW.natural(made.theta, made.points.centre) for made in ends]
    return [dataclasses.replace(old, fit=new, values=v) for old, new, v in zip(studies[:count], ends, values, strict=True)]


def test_lack_of_fit_is_a_trend_and_noise_is_none(studies):
    """1% of studies get the caution where the law is true: 3 of 40 or more would come once in 130. A bend of 2% along C is seen."""
    assert sum(trend.lack(made, runs_of(made)) is not None for made in studies) <= 2
    x = (GOOD.log_c - GOOD.log_c.mean()) / GOOD.log_c.std()
    bent = refitted(studies, 0.02 * x**2, 20)
    assert sum(trend.lack(made, GOOD) is not None for made in bent) >= 18
    assert trend.lack(bent[0], dataclasses.replace(GOOD, run=("one",) * 28)) is None


def test_outliers_are_named_together_with_what_a_would_be_without_them(studies):
    """Two losses of small D / N are 28% too high."""
    bad = np.argsort(GOOD.d / GOOD.n)[:2]
    (worse,) = refitted(studies, 0.25 * np.isin(np.arange(28), bad), 1)
    a = parametric.path_exponents(worse, GOOD)[0]
    found = next(one for one in influence.checks(worse, GOOD, a) if one.kind == "outliers")
    assert "2 of 28" in found.message
    assert all(GOOD.run[i] in found.message for i in bad)
    without = influence.exponents(worse, GOOD, [tuple(bad)])[0]
    assert f"{without:.3f}" in found.message


def test_leaving_out_a_row_is_a_fit_without_it(studies):
    made = studies[1]
    kept = np.arange(28) != 3
    alone = influence.exponents(made, GOOD, [(3,)])[0]
    points = dataclasses.replace(made.fit.points, weights=kept.astype(float))
    theta = fit.refit(dataclasses.replace(made.fit, points=points), points.log_loss).theta
    again = dataclasses.replace(made, draws=LAW.natural(theta, points.centre))
    assert alone == pytest.approx(parametric.path_slopes(again, GOOD)[0][1], abs=2e-3)


def test_single_rows_and_outliers_are_seldom_named_where_the_law_is_true(studies):
    found = [influence.checks(made, runs_of(made), parametric.path_exponents(made, runs_of(made))[0]) for made in studies[:20]]
    assert sum(bool(one) for one in found) <= 2


def test_approaches_that_disagree_beyond_their_joint_interval():
    one, other = (Estimate(value, value - 0.01, value + 0.01, 0.8, "draws") for value in (0.46, 0.53))
    found = agreement.approaches(one, other)
    assert all(number in found.message for number in ("0.46", "0.53"))
    assert agreement.approaches(one, dataclasses.replace(other, value=0.475)) is None
    assert agreement.approaches(one, Refusal("edge", "")) is None
    assert agreement.approaches(one, dataclasses.replace(other, low=None, high=None)) is None


def test_curves_that_disagree():
    """Profiles with a third-order term that turns with the budget: a cubic finds other minima than a parabola."""
    log_n, budgets = GOOD.log_n, sorted(set(GOOD.budget.tolist()))
    u = log_n - np.array([log_n[GOOD.budget == b].mean() for b in GOOD.budget])
    turn = np.array([budgets.index(b) - 1.5 for b in GOOD.budget])
    random = 1e-4 * np.random.default_rng(0).standard_normal(28)
    a = Estimate(0.5, 0.49, 0.51, 0.8, "draws")
    for bend, expected in ((0.0, False), (0.01, True)):
        runs = dataclasses.replace(GOOD, loss=3 + 0.05 * u**2 + bend * turn * u**3 + random)
        found = agreement.curves(profiles.by_budget(runs), runs, a, "parabola")
        assert (found is not None) == expected
    assert "by cubic" in found.message


def test_a_further_column_that_splits_the_residuals(studies):
    """Two corpora, no cell of which is the other's: losses of one lie 20% lower. The name of a host, or a batch by size, splits nothing."""
    corpus = np.arange(28) % 2
    (made,) = refitted(studies, -0.22 * corpus, 1)
    other = {"corpus": tuple(np.where(corpus, "code", "web")), "host": tuple(f"h{i % 3}" for i in range(28)), "id": NOISY.run}
    found = kinds_of_rows.split(made, dataclasses.replace(GOOD, other=other))
    assert found.kind == "mixed"
    assert "corpus" in found.message
    assert "code" in found.message
    assert kinds_of_rows.split(made, GOOD) is None
    assert kinds_of_rows.scatter(made).kind == "scatter"
    batch = tuple((GOOD.n > np.median(GOOD.n)).astype(str))
    named = dataclasses.replace(GOOD, other=other | {"batch": batch})
    assert not any(kinds_of_rows.split(one, dataclasses.replace(named, loss=GOOD.loss)) for one in studies)


def test_answers_that_nobody_should_believe():
    wide = {"E": Estimate(1.2, 0.47, 1.96, 0.8, "draws")}
    assert estimates.least_loss(wide).kind == "least_loss"
    assert estimates.least_loss({"E": Estimate(1.8, 1.7, 1.9, 0.8, "draws")}) is None
    assert "0.829" in estimates.exponent("by the law", Estimate(0.829, 0.8, 0.85, 0.8, "draws")).message
    assert estimates.exponent("by the law", Estimate(0.73, 0.7, 0.75, 0.8, "draws")) is None
    ratios = {1e20: Estimate(20.0, 18, 22, 0.8, "draws"), 1e24: Estimate(0.0067, 0.006, 0.007, 0.8, "draws")}
    assert "1e+24" in estimates.shapes(ratios).message
    assert estimates.shapes({1e20: ratios[1e20]}) is None
