"""docs/scaling.md says what the catalogue says, and its examples run."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest

from lm.scaling import __main__ as command
from lm.scaling import results
from lm.scaling.commands import table
from lm.scaling.fits.objectives import OBJECTIVES, HuberLog, QuantileLog
from lm.scaling.intervals.resampling import RESAMPLINGS
from lm.scaling.laws import catalogue

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def names(title):
    return re.findall(r"^\| `(\w+)` \|", section(title), flags=re.MULTILINE)


def test_every_law_stands_with_its_equation_inputs_and_source():
    laws = {name: catalogue.law(name) for name in catalogue.LAWS | catalogue.CURVE_LAWS}
    rows = [f"| `{name}` | {law.equation} | {', '.join(law.inputs)} | {law.source} |" for name, law in laws.items()]
    assert [line for line in section("Laws").splitlines() if line.startswith("| `")] == rows


def test_objectives_and_intervals_are_those_of_the_commands():
    assert tuple(names("Objectives")) == tuple(OBJECTIVES) == table.OBJECTIVES
    assert set(names("Intervals")) == set(RESAMPLINGS)
    assert HuberLog().delta == 1e-3
    assert QuantileLog().q == 0.5


@pytest.mark.parametrize("line", re.findall(r"^python -m lm\.scaling (.*)$", PAGE.split("\n## ")[0], flags=re.MULTILINE))
def test_commands_of_the_page_parse(line):
    import argparse

    verb, *arguments = line.split()
    parser = argparse.ArgumentParser()
    command.VERBS[verb].arguments(parser)
    parser.parse_args(arguments)


def test_the_law_of_ones_own_is_a_law():
    code = re.search(r"```python\n(from lm\.scaling\.laws\.formula.*?)```", PAGE, flags=re.DOTALL).group(1)
    found = {}
    exec(code, found)
    law = found["Mine"]()
    values, centre = np.array([1.7, 400.0, 0.3]), np.zeros(1)
    np.testing.assert_allclose(law.natural(law.coordinates(values, centre), centre), values, rtol=1e-12)


def test_names_that_the_notebook_imports_are_there():
    code = re.search(r"```python\n(import pandas.*?)```", PAGE, flags=re.DOTALL).group(1)
    lines = [line for line in code.splitlines() if line.startswith("from lm")]
    found = {}
    exec("\n".join(lines), found)
    assert {"frontier", "optimum", "Columns", "from_frame", "fit_runs", "TableSettings", "analyse_runs"} <= set(found)
    fields = {field.name for field in dataclasses.fields(results.Estimate)}
    assert {"value", "low", "high", "level", "method"} <= fields
    for called in ("best", "cheapest", "iso_loss"):
        assert hasattr(found["optimum"], called)
