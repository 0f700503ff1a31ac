"""The backtest: its scores, what it cuts, how it averages, and coverage where the law is true and where it drifts."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from lm.errors import UserError
from lm.scaling import __main__ as command
from lm.scaling import scores
from lm.scaling.backtest import backtest, below, methods, optima, text
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.laws.law import Chinchilla
from lm.scaling.results import Refusal, from_json, to_json
from tests.scaling import known

LAW = ("law", "law and its error")


BUDGETS = 1e17 * 2.0 ** np.arange(7)
EXACT = known.porian_design(known.Flat(), budgets=BUDGETS).exact()


def table(drift=0.0, sigma=0.004, seed=0):
    """Seven doubling budgets of seven sizes under Epoch's law, with noise; small runs lose a share `drift` more, which fades."""
    noise = sigma * np.random.default_rng(seed).standard_normal(len(EXACT))
    fading = drift * np.exp(-np.log(EXACT.budget / BUDGETS[0]) / 1.5)
    return dataclasses.replace(EXACT, loss=EXACT.loss * np.exp(fading + noise), source=f"table {seed}")


@pytest.fixture(scope="module")
def drifting():
    return backtest.backtest([table(0.1)])


def line(made, quantity, method):
    return next(one for one in made.lines if (one.quantity, one.method) == (quantity, method))


def test_scores_of_quantiles_of_a_normal_are_their_closed_forms():
    """CRPS of a normal (Gneiting and Raftery 2007, eq. 21), and the interval score of its 80% interval (eq. 43)."""
    mu, sd, y = np.array([0.3, 0.3, -1.0]), np.array([1.0, 1.0, 0.2]), np.array([0.3, 2.5, 0.1])
    draws = methods.student(mu, sd, np.inf)
    z = (y - mu) / sd
    exact = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi))
    np.testing.assert_allclose(scores.crps(y, draws), exact, rtol=0.02)
    half = stats.norm.ppf(0.9) * sd
    whole = 2 * half + 10 * np.maximum(np.abs(y - mu) - half, 0)
    assert backtest.tested(y, draws).score == pytest.approx(float(whole.mean()), rel=1e-9)
    assert backtest.tested(y, draws).held == (1 / 3, 1 / 3, 1 / 3)


@pytest.mark.parametrize("degrees", [3, 30])
def test_draws_of_a_t_stand_at_its_quantiles(degrees):
    drawn = methods.student(np.zeros(1), np.ones(1), degrees)
    low, high = np.quantile(drawn[:, 0], [0.1, 0.9], method="weibull")
    assert (low, high) == pytest.approx(stats.t.ppf([0.1, 0.9], degrees))


def test_averages_weigh_cells_cuts_factors_tables_and_families_alike():
    def made(source, values):
        groups = [
            backtest.ScoredGroup(backtest.EVERY, "law and its error", factor, 1, backtest.Tested(v, v, (v, v, v), v, v))
            for factor, v in values.items()
        ]
        return backtest.TableBacktest(source, 1, (), tuple(groups))

    tables = [made("a", {2.0: 0.1, 4.0: 0.3}), made("b", {2.0: 0.4}), made("c", {30.0: 1.0})]
    whole = backtest.combined(tables, {"a": "ab", "b": "ab"})
    (one,) = whole.lines
    assert one.tested.score == pytest.approx(((0.2 + 0.4) / 2 + 1.0) / 2)
    assert one.families == 2
    assert one.relative == pytest.approx(1.0)
    assert one.held_by_factor == pytest.approx({"2": (0.1 + 0.4) / 2, "4": 0.3, "30": 1.0})
    assert whole.families == {"ab": ("a", "b"), "c": ("c",)}


def test_nothing_above_a_cut_is_read():
    full = table()
    cut = BUDGETS[4]
    changed = dataclasses.replace(full, loss=np.where(full.budget > cut, 2 * full.loss, full.loss))
    ahead = full.take(full.budget > cut)
    for name, method in methods.LOSS.items():
        pair = [method(below.below(one, cut, Chinchilla(), HuberLog(), 0), ahead) for one in (full, changed)]
        np.testing.assert_array_equal(*pair, err_msg=name)


def test_where_the_law_is_true_intervals_hold_at_their_level():
    """Over sixteen tables of one law, cut after the fifth budget: 80% intervals hold 80%, within three standard errors."""
    held = {name: [] for name in LAW}
    for seed in range(16):
        one = table(seed=seed)
        known_below = below.below(one, BUDGETS[4], Chinchilla(), HuberLog(), seed)
        ahead = one.take(one.budget > known_below.cut)
        for name in LAW:
            low, high = np.quantile(methods.LOSS[name](known_below, ahead), [0.1, 0.9], axis=0, method="weibull")
            held[name].append(np.mean((low <= ahead.log_loss) & (ahead.log_loss <= high)))
    for name, shares in held.items():
        assert np.mean(shares) == pytest.approx(0.8, abs=3 * np.std(shares, ddof=1) / 4), name


def test_where_the_law_drifts_its_own_error_makes_intervals_hold_more(drifting):
    alone, own = (line(drifting, backtest.EVERY, name).tested for name in LAW)
    assert own.held[1] > alone.held[1] + 0.1
    assert own.score < alone.score
    assert own.crps < alone.crps
    assert own.error < alone.error


def test_optima_of_budgets_are_found_and_forecast(drifting):
    seen = optima.shown(EXACT)
    assert len(seen.log_c) >= 6
    slope = np.polyfit(seen.log_c, seen.log_n, 1)[0]
    alpha, beta = known.EPOCH[3:]
    assert slope == pytest.approx(beta / (alpha + beta), abs=0.03)
    assert {one.method for one in drifting.lines if one.quantity == backtest.N_STAR} == set(optima.N_STAR)


def test_cuts_without_enough_below_them_are_named(drifting):
    refused = [cut for cut in drifting.tables[0].cuts if cut.refused]
    assert len(drifting.tables[0].cuts) == 6
    assert [cut.rows for cut in refused] == [7, 14]
    assert isinstance(refused[1].refused, Refusal)
    assert "3" in refused[1].refused.reason


def test_the_result_travels_and_prints(drifting):
    assert from_json(to_json(drifting)) == drifting
    shown = text.render(drifting)
    for method in methods.LOSS:
        assert shown.count(method) >= 2
    assert "| law and its error |" in text.markdown(drifting)


def test_the_command(tmp_path, capsys):
    one = table()
    path = tmp_path / "runs.csv"
    columns = (one.n, one.d, one.loss, one.budget)
    rows = [",".join(map(repr, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]
    path.write_text("\n".join(["N,D,loss,budget", *rows[:28]]), encoding="utf-8")
    assert command.main(["backtest", str(path), "--budget=budget", "--json"]) == 0
    made = from_json(capsys.readouterr().out)
    assert made.tables[0].rows == 28
    path.write_text("\n".join(["N,D,loss,budget", *rows[:21]]), encoding="utf-8")
    assert command.main(["backtest", str(path), "--budget=budget"]) == 1
    assert "3 are needed" in capsys.readouterr().out
    with pytest.raises(UserError, match="twice"):
        command.main(["backtest", str(path), str(path)])
