import math

import pytest

from lm.scaling.results import Caution, Estimate, Line, Refusal, from_json, result, to_json, value_of


def test_results_come_back_from_json_to_the_last_digit():
    line = Line((1e11, 2e11), (0.1 + 0.2, math.pi), (), (), (1e11, 2e11))
    refused = Estimate(1 / 3, None, None, 0.8, "m", Refusal("interval", "why"))
    value = {"a": Estimate(math.pi, 3.0, 3.5, 0.8, "m"), "b": (refused, Refusal("edge", "there"), Caution("tied", "x")), "line": line}
    assert from_json(to_json(value)) == value


def test_a_number_that_is_missing_is_not_written_as_nan():
    with pytest.raises(ValueError, match="Refusal"):
        to_json(Estimate(math.nan, None, None, 0.8, "m"))


def test_an_estimate_without_interval_covers_nothing():
    assert Estimate(1.0, 0.5, 1.5, 0.8, "m").covers(0.5)
    assert not Estimate(1.0, None, None, 0.8, "m", Refusal("interval", "")).covers(1.0)
    assert value_of(Refusal("edge", "")) is None


def test_two_results_have_two_names():
    """A class of an equal name elsewhere would come back from a file in the place of this one."""
    with pytest.raises(TypeError, match="Refusal"):
        result(type("Refusal", (), {"__module__": "elsewhere", "__annotations__": {"why": str}}))
    assert from_json(to_json(Refusal("edge", "there"))) == Refusal("edge", "there")
