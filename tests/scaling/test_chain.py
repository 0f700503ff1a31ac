"""Two laws in a chain give the metric that made the data, with one bootstrap for both."""

import math

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling.__main__ import main
from lm.scaling.chain import METRIC, chain, second_stage
from lm.scaling.fits.objectives import SquaredLog
from lm.scaling.laws.law import Chinchilla
from lm.scaling.laws.loss_laws import Downstream
from lm.scaling.results import from_json
from lm.scaling.runs import Columns, from_frame

LAW = (400.0, 1800.0, 0.4, 0.35, 0.38)  # A, B, E, alpha, beta
ERROR = (0.9, 1.2, 0.9)  # epsilon, k, gamma


def loss(n, d):
    a, b, e, alpha, beta = LAW
    return e + a / n**alpha + b / d**beta


def wrong(value):
    epsilon, k, gamma = ERROR
    return epsilon - k * np.exp(-gamma * value)


def frame(sigma=2e-3, noise=5e-3):
    random = np.random.default_rng(0)
    n = np.repeat(np.geomspace(1e8, 3e9, 6), 5)
    d = n * np.tile(np.geomspace(5, 200, 5), 6)
    measured = loss(n, d) * np.exp(sigma * random.standard_normal(30))
    return {"N": n, "D": d, "loss": measured, "error": wrong(measured) * np.exp(noise * random.standard_normal(30))}


@pytest.fixture(scope="module")
def made(few_starts_in_module):
    runs = from_frame(frame(), Columns(inputs={METRIC: "error"}))
    return chain(runs, (Chinchilla(), Downstream()), [{"N": 1e10, "D": 1e12}], SquaredLog(), draws=100, level=0.95)


def test_the_metric_of_a_larger_model_lies_in_its_interval(made):
    truth = wrong(loss(1e10, 1e12))
    at = made.at[0]
    assert at.loss.covers(loss(1e10, 1e12))
    assert at.metric.covers(truth)
    assert at.metric.value == pytest.approx(truth, rel=0.03)
    assert made.errors[1] < 0.01


def test_both_laws_read_the_same_runs():
    runs = from_frame(frame(), Columns(inputs={METRIC: "error"}))
    second = second_stage(runs)
    np.testing.assert_array_equal(second.inputs["L"], runs.loss)
    np.testing.assert_array_equal(second.loss, runs.inputs[METRIC])
    assert second.run == runs.run


def test_the_verb_chain_answers_and_names_what_is_missing(tmp_path, capsys, made):
    table = frame()
    rows = [",".join(map(str, row)) for row in zip(*(column.tolist() for column in table.values()), strict=True)]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["N,D,bpb,error", *rows]), encoding="utf-8")
    command = [
        "chain",
        str(path),
        "--loss=bpb",
        "--metric=error",
        "--second=downstream",
        "--objective=squared_log",
        "--draws=100",
        "--level=.95",
    ]
    assert main([*command, "--at", "N=1e10", "D=1e12", "--json"]) == 0
    found = from_json(capsys.readouterr().out)
    assert found.at[0].metric.value == pytest.approx(made.at[0].metric.value, rel=1e-6)
    assert main([*command, "--at", "N=1e10", "D=1e12"]) == 0
    assert f"{found.at[0].metric.value:.3f}" in capsys.readouterr().out
    assert math.isfinite(found.at[0].loss.value)
    with pytest.raises(UserError, match="--at"):
        main([*command, "--at", "N=1e10"])


def test_a_metric_that_the_second_law_does_not_have_is_refused():
    table = frame(sigma=0.0, noise=0.0) | {"error": 0.9 - 1.4 * np.exp(-0.9 * frame(sigma=0.0)["loss"])}
    runs = from_frame(table, Columns(inputs={METRIC: "error"}))
    at = chain(runs, (Chinchilla(), Downstream()), [{"N": 1e13, "D": 1e15}], SquaredLog(), draws=10).at[0]
    assert at.metric.kind == "extrapolation"
