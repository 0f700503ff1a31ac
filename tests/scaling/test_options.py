"""Options of `python -m lm.scaling fit` beyond the default fit: filters, profiles, likelihoods and the rolling origin."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import __main__ as command
from lm.scaling import results, table_summary, words
from lm.scaling.intervals.likelihood import GAUSSIAN
from lm.scaling.intervals.profile_likelihood import PROFILE
from lm.scaling.page import table_page
from lm.scaling.results import Caution, Estimate, Refusal

GAMMA = 0.12
FILTERS = ["--run=run", "--decayed=done", "--only=decayed", "--last-of-run", "--between", "M", "1", "100", "--without-highest", "1"]


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    """Sixteen runs of two rows each along L = 1.7 + 60 / C^.12 with a noise of .2%; three runs are unfinished, one has other D / N."""
    random = np.random.default_rng(3)
    rows = ["N,D,loss,run,done"]
    for run, c in enumerate(np.geomspace(1e16, 1e21, 16)):
        n = np.sqrt(c / 6 / (1000 if run == 7 else 20))
        for share in (0.5, 1.0):
            d = share * c / 6 / n
            loss = (1.7 + 60 / (6 * n * d) ** GAMMA) * np.exp(0.002 * random.standard_normal())
            rows.append(f"{n},{d},{loss},r{run},{str(run >= 3).lower()}")
    path = tmp_path_factory.mktemp("tables") / "runs.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def fitted(csv, *options):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command.main(["fit", csv, "--law=compute_power", "--objective=squared_log", "--draws=20", "--json", *options]) == 0
    return results.from_json(out.getvalue())


@pytest.fixture(scope="module")
def made(csv):
    return fitted(csv, *FILTERS, "--profile", "gamma", "--likelihood=gaussian", "--rolling")


def test_filters_apply_in_order_before_the_fit(made):
    assert [(step.dropped, step.kept) for step in made.filters] == [(0, 32), (6, 26), (13, 13), (1, 12), (1, 11)]
    assert made.count == len(made.law.points) == 11
    assert made.filters[-1].values["gamma"] == pytest.approx(made.law.values["gamma"])
    assert "decayed rows: 26 rows (6 left out)" in table_summary.render(made)
    assert table_page.settings(made)["filters"].startswith("decayed rows, last point of each run")


def test_a_profile_is_that_of_the_likelihood_where_one_is_asked_for(made):
    (profile,) = made.law.profiles
    assert (profile.name, profile.answer.method) == ("gamma", GAUSSIAN)
    assert profile.answer.value == pytest.approx(made.law.likelihood.values["gamma"])
    assert made.law.likelihood.scale == pytest.approx(0.002, rel=0.5)
    assert f"by the {GAUSSIAN}" in table_summary.render(made)


def test_a_profile_of_the_objective_holds_the_truth(csv):
    (profile,) = fitted(csv, "--profile", "gamma").law.profiles
    assert isinstance(profile.answer, Estimate)
    assert profile.answer.method == PROFILE
    assert profile.answer.low < GAMMA < profile.answer.high


def test_the_rolling_origin_predicts_the_rows_beyond_each_compute(made):
    *_, last = made.rolling
    assert last.rest_absolute_error < 0.02
    assert isinstance(made.rolling[0].why, Refusal)  # too few rows for three parameters
    (line,) = [line for line in table_summary.rolling(made.rolling) if line.split()[0] == words.short(f"{last.cut:.3g}")]
    assert line.split()[1:4] == [f"{last.rows}", f"{last.next_absolute_error:.2%}", f"{last.rest_absolute_error:.2%}"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--profile", "beta"], "gamma"),
        (["--last-of-run"], "--run"),
        (["--only=decayed"], "--decayed"),
        (["--between", "U", "1", "2"], "N, D, C, M"),
        (["--between", "N", "1", "2"], "N from 1 to 2"),
        (["--approach", "1", "--rolling"], "--approach"),
    ],
)
def test_options_that_the_table_or_the_law_lacks_are_named(csv, options, said):
    with pytest.raises(UserError) as caught:
        fitted(csv, *options)
    assert said in str(caught.value)


def test_a_reason_that_no_interval_was_made_is_given_once():
    alone = Estimate(0.44, None, None, 0.8, "bootstrap over rows", Refusal("too_few_points", "too few rows"))
    made = Estimate(0.44, 0.4, 0.5, 0.8, "bootstrap over rows")
    assert words.missing([alone, alone]) == "too few rows"
    assert words.missing([alone, made]) is None
    assert words.said(alone) == "0.440 (no interval: too few rows)"
    assert words.said(alone, "too few rows") == "0.440 (no interval)"
    assert words.said(made, significant=2) == "0.44 (0.40 to 0.50, 80%)"


def test_what_refuses_an_exponent_is_no_caution_too(made):
    """The terminal says it once, however often the reason stands in the results."""
    refused, other = Refusal("unidentified", "the profile of alpha is flat"), Refusal("unidentified", "the profile of beta is flat")
    cautions = (Caution(refused.kind, refused.reason), Caution(other.kind, other.reason))
    law = dataclasses.replace(made.law, exponents={"a": refused, "b": refused}, cautions=cautions)
    printed = table_summary.render(dataclasses.replace(made, law=law))
    assert [printed.count(one.reason) for one in (refused, other)] == [1, 1]


def test_exponents_are_written_short_and_all_else_stands():
    assert words.short("stage-02, cde-05, 1e+20") == "stage-02, cde-05, 1e20"
    assert words.aligned(["C"], [["1e+20"]]) == ["     C", "  1e20"]
    assert words.short("1.69e+10 (1e-05 to 1.2e+09), e+, 2.5") == "1.69e10 (1e-5 to 1.2e9), e+, 2.5"


def test_an_unknown_option_of_a_verb_is_answered_by_one_of_the_verb():
    with pytest.raises(UserError, match="--flops"):
        command.main(["fit", "runs.csv", "--frob"])
