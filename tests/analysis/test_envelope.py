"""Approach 1."""

import dataclasses
import math

import numpy as np

from lm.analysis import envelope
from lm.scaling.fits.frontier import cost_of
from lm.scaling.intervals.noise import fit_noise
from lm.scaling.results import Estimate, Refusal
from lm.scaling.settings import AnalysisSettings
from tests import synthetic

SETTINGS = AnalysisSettings(table_draws=100)


def wide():
    """Twenty sizes a factor 1.25 apart in N, one long run of each: enough for an envelope."""
    widths = [round(32 * 1.12**i) for i in range(20)]
    return [synthetic.row(width, 1e14) for width in widths]


def test_the_envelope_of_many_sizes_has_the_exponent_of_its_law():
    made = envelope.fit_envelope(wide(), fit_noise(synthetic.table(synthetic.study(sigma=0.002)), SETTINGS), SETTINGS)
    assert made.interior_sizes >= 6
    assert isinstance(made.a, Estimate)
    assert abs(made.a.value - 0.5) < 0.06  # the steps of a staircase of ten sizes
    assert made.a.low < made.a.value < made.a.high
    assert made.b.low < made.b.value < made.b.high
    cost = cost_of(synthetic.cells(wide()))  # N* and D* are of one run: together they cost C
    spent = cost.log_flops_per_token(np.log(made.n_line.value)) + np.log(made.d_line.value)
    np.testing.assert_allclose(spent, np.log(made.n_line.flops), atol=0.01)


def test_a_staircase_is_refused():
    made = envelope.fit_envelope(synthetic.study(), Refusal("no_replicas", ""), SETTINGS)
    assert made.interior_sizes < 6
    assert made.a.kind == made.b.kind == "too_few_points"
    assert made.n_line is made.d_line is None
    assert made.stretches


def test_only_constant_rate_points_of_the_longest_run_of_a_size_enter():
    rows = synthetic.study()
    found = envelope.curves(rows, SETTINGS)
    by_id = {row.id: row for row in rows}
    assert len(found) == len({dict(r.shape)["d_model"] for r in rows})
    for curve in found:
        row = by_id[curve.id]
        assert row.tokens == max(r.tokens for r in rows if r.shape == row.shape)
        assert np.exp(curve.log_d[-1]) <= 0.7 * row.tokens  # the decay begins there
        np.testing.assert_allclose(np.exp(curve.log_c - curve.log_d), row.flops["matmul_causal"] / row.tokens)


def test_a_point_in_the_decay_or_the_warm_up_changes_nothing():
    rows = wide()
    spoilt = []
    for row in rows:
        first, last = dict(row.curve[0]), dict(row.curve[-1])
        early = first | {"tokens": first["tokens"] / 2, "lr_ratio": 0.3, "nats_per_byte": 0.01}
        spoilt.append(dataclasses.replace(row, curve=(early, *row.curve, last | {"nats_per_byte": 0.01})))
    quiet = Refusal("no_replicas", "")
    assert envelope.fit_envelope(rows, quiet, SETTINGS) == envelope.fit_envelope(spoilt, quiet, SETTINGS)


def test_runs_without_curves_are_refused():
    rows = [dataclasses.replace(row, curve=()) for row in synthetic.study()]
    assert envelope.fit_envelope(rows, Refusal("no_replicas", ""), SETTINGS).kind == "too_few_points"
    assert math.isfinite(rows[0].loss)
