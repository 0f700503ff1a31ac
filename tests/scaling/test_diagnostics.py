"""Every refusal and caution: when it comes, that it does not come otherwise, and that it says what would suffice."""

import dataclasses

import numpy as np
import pytest

from lm.scaling import diagnostics, fitted_law, runs
from lm.scaling.approaches import isoflop, profiles
from lm.scaling.fits import projection
from lm.scaling.intervals import noise, profile_likelihood, resampling
from lm.scaling.laws.law import Chinchilla
from lm.scaling.laws.loss_laws import ComputePower
from lm.scaling.results import Caution, Refusal
from lm.scaling.settings import AnalysisSettings
from tests.scaling import known

LAW = Chinchilla()
DESIGN = known.own_design()
GOOD = DESIGN.exact()


def kinds(found):
    return {one.kind for one in found}


def only(found, kind):
    """The one finding of this kind; its sentence says what would do."""
    (one,) = [each for each in found if each.kind == kind]
    text = one.reason if isinstance(one, Refusal) else one.message
    assert ":" in text or ";" in text
    return one, text


def a_surface(values, table=GOOD, draws=None, **changes):
    """A surface made without a solver."""
    design = dataclasses.replace(DESIGN, runs=table, values=np.array(values))
    made = known.fit_of(design)
    rows = np.tile(np.array(values), (50, 1)) if draws is None else draws
    return fitted_law.FittedLaw(made, np.array(values), rows, "draws", 0.8, {}, **changes)


def test_a_sound_table_and_fit_have_nothing_to_say():
    assert diagnostics.before(GOOD, LAW) == ()
    assert diagnostics.after(a_surface(DESIGN.values), GOOD) == ()


def test_too_few_points():
    refused, text = only(diagnostics.before(GOOD.take(np.arange(3)), LAW), "too_few_points")
    assert isinstance(refused, Refusal)
    assert all(number in text for number in ("3 rows", "5 parameters", "6", "20"))
    caution, text = only(diagnostics.before(GOOD.take(np.arange(1, 28, 2)), LAW), "few_points")
    assert isinstance(caution, Caution)
    assert "20 would suffice" in text


def test_one_budget():
    found = diagnostics.before(GOOD.take(GOOD.budget == GOOD.budget[0]), LAW)
    texts = [one.reason for one in found if one.kind == "unidentified"]
    assert any("all rows have one compute" in text and "add two budgets" in text for text in texts)


@pytest.mark.parametrize("name", ["N", "D"])
def test_n_or_d_spanning_less_than_a_factor_eight(name):
    column = GOOD.inputs[name]
    narrow = GOOD.take(np.abs(np.log(column / np.median(column))) < np.log(7.5) / 2)
    text = next(one.reason for one in diagnostics.before(narrow, LAW) if one.kind == "unidentified")
    assert text.startswith(f"{name} spans a factor")
    assert "need 8" in text
    assert "unidentified" not in kinds(diagnostics.before(narrow, ComputePower()))


def test_mid_schedule_points_among_decayed_ones():
    mixed = dataclasses.replace(GOOD, decayed=np.arange(len(GOOD)) > 4)
    refused, text = only(diagnostics.before(mixed, LAW), "mid_schedule")
    assert isinstance(refused, Refusal)
    assert text.startswith("5 rows in mid-schedule stand beside 23")
    for one_kind in (True, False):
        assert "mid_schedule" not in kinds(diagnostics.before(dataclasses.replace(GOOD, decayed=np.full(len(GOOD), one_kind)), LAW))


def test_conventions_mixed():
    """One row that counts the forward pass alone is off by three; a smooth dependence on N, as attention makes, is not."""
    smooth = GOOD.c * (GOOD.n / GOOD.n.min()) ** -0.1
    counted = dataclasses.replace(GOOD, inputs={**GOOD.inputs, "C": smooth}, counted=True)
    assert "conventions" not in kinds(diagnostics.before(counted, LAW))
    odd = smooth.copy()
    odd[11] /= 3
    caution, text = only(diagnostics.before(dataclasses.replace(counted, inputs={**GOOD.inputs, "C": odd}), LAW), "conventions")
    assert isinstance(caution, Caution)
    assert GOOD.run[11] in text


def test_points_of_one_curve_depend_on_each_other():
    curves = dataclasses.replace(GOOD, run=tuple(str(i // 2) for i in range(len(GOOD))))
    assert "--interval=runs" in only(diagnostics.before(curves, LAW), "dependent")[1]


def test_a_law_that_does_not_fall():
    refused, text = only(diagnostics.after(a_surface((25.0, 88.0, 0.8, -0.1, 0.35)), GOOD), "unidentified")
    assert isinstance(refused, Refusal)
    assert "loss does not fall with N; widen N" in text
    draws = np.tile(DESIGN.values, (50, 1))
    draws[:10, 4] = -0.1
    assert "20% of the draws" in only(diagnostics.after(a_surface(DESIGN.values, draws=draws), GOOD), "unidentified")[1]


def test_starts_that_disagree():
    made = a_surface(DESIGN.values)
    made = dataclasses.replace(made, fit=dataclasses.replace(made.fit, value=1.0))
    assert diagnostics.after(dataclasses.replace(made, projected=projection.Projected(made.fit.theta, 1.0, 1)), GOOD) == ()
    apart = dataclasses.replace(made, projected=projection.Projected(made.fit.theta, 0.9, 1))
    assert "-1.0e-01" in only(diagnostics.after(apart, GOOD), "starts_disagree")[1]
    caution = Caution("starts_disagree", "2 of the best 128 starts; see")
    cautioned = dataclasses.replace(made, fit=dataclasses.replace(made.fit, cautions=(caution,)))
    assert caution in diagnostics.after(cautioned, GOOD)


def test_a_flat_profile():
    flat = profile_likelihood.ProfileInterval("E", Refusal("unidentified", "the profile of E is flat; widen N or D"), (), (), 1.0)
    assert only(diagnostics.after(a_surface(DESIGN.values), GOOD, (flat,)), "unidentified")[1].startswith("the profile of E is flat")


def test_grids_off_centre_and_optima_beyond_the_edge():
    """Sizes kept below and around N* only: its middle moves away, until N* lies outside."""
    made = a_surface(DESIGN.values)
    rank = np.array([np.sum((GOOD.budget == b) & (GOOD.n < n)) for b, n in zip(GOOD.budget, GOOD.n, strict=True)])
    large, largest = GOOD.take(rank >= 2), GOOD.take(rank >= 5)
    assert "centre the sizes on N*" in only(diagnostics.after(made, large), "off_centre")[1]
    assert "add sizes beyond that end" in only(diagnostics.after(made, largest), "edge")[1]


def approach_two(log_loss):
    """Approach 2 of cells with these log losses."""
    table = dataclasses.replace(GOOD, loss=np.exp(log_loss))
    cells = table.cells()
    quiet = Refusal("no_replicas", "")
    settings = AnalysisSettings(n="params", c="6nd", planned_c="table", draws=20)
    return isoflop.fit_isoflop(profiles.by_budget(cells), cells, quiet, settings)[0]


def test_concave_profiles_and_minima_at_the_edge():
    log_n = np.log(GOOD.n)
    centre = np.array([log_n[GOOD.budget == b].mean() for b in GOOD.budget])
    u = log_n - centre
    assert not {"concave", "edge", "off_centre"} & kinds(diagnostics.minima(approach_two(0.05 * u**2)))
    first = GOOD.budget == GOOD.budget[0]
    assert "concave" in kinds(diagnostics.minima(approach_two(np.where(first, -0.05, 0.05) * u**2)))
    assert "edge" in kinds(diagnostics.minima(approach_two(0.05 * (u - np.where(first, 5.0, 0.0)) ** 2)))
    assert "off_centre" in kinds(diagnostics.minima(approach_two(0.05 * (u - np.where(first, 0.8, 0.0)) ** 2)))


def test_extrapolation_is_marked_as_it_grows():
    sampled = (1e18, 1e21)
    assert diagnostics.extrapolation(1e18, sampled) is None
    assert diagnostics.extrapolation(1e21, sampled) is None
    found = [diagnostics.extrapolation(c, sampled) for c in (2e21, 2e22, 2e23, 5e17, 1e15)]
    assert [one.kind for one in found] == [
        "extrapolation", "far_extrapolation", "extreme_extrapolation", "extrapolation", "extreme_extrapolation",
    ]  # fmt: skip
    assert "20 times above" in found[1].message
    assert "2 times below" in found[3].message


def test_no_replicas_and_no_runs_to_resample_say_what_suffices():
    assert "--seed-column" in noise.fit_noise(GOOD).reason
    few = runs.from_frame({"N": [1e6, 2e6], "D": [1e7, 2e7], "loss": [3.0, 2.9]})
    assert "20 suffice" in resampling.Rows().refusal(a_surface(DESIGN.values).fit, few).reason
