"""The time that a study still needs: exact where cells keep to their estimates up to one factor, whatever their start-up took."""

import dataclasses

import pytest

from lm.study.eta import seconds_left
from lm.study.status import CellStatus

ESTIMATES = (2.0, 5.0, 30.0, 4.0, 40.0, 8.0)  # seconds, as a plan has them


def cells(factor, ended, running):
    """Cells that take `factor` times their estimates; `running` is {index: share of the steps done}."""
    made = []
    for i, seconds in enumerate(ESTIMATES):
        cell = {"seconds": seconds, "tokens": 1000.0}
        if i in ended:
            made.append(CellStatus(cell, "completed", 1.0, 3.0, None, factor * seconds))
        elif i in running:
            rate = cell["tokens"] / (factor * seconds)
            made.append(CellStatus(cell, "running", running[i], 3.0, None, 0.0, tokens_per_second=rate if running[i] else None))
        else:
            made.append(CellStatus(cell, "pending", 0.0, None, None, 0.0))
    return made


@pytest.mark.parametrize("factor", [0.001, 1.0, 7.0])
@pytest.mark.parametrize(("ended", "running"), [((), {0: 0.5, 1: 0.2}), ((0, 1), {2: 0.1}), ((0, 1, 2, 3), {4: 0.9, 5: 0.3})])
def test_one_factor_for_all_cells_is_found_at_any_moment(factor, ended, running):
    """On a GPU, or on busy cores, every cell takes `factor` times its estimate: what is left is then known exactly."""
    state = cells(factor, ended, running)
    work = [factor * (1 - running.get(i, 0.0)) * seconds for i, seconds in enumerate(ESTIMATES) if i not in ended]
    assert seconds_left(state) == pytest.approx(max(sum(work) / len(running), max(work)), rel=1e-12)


def test_until_a_rate_is_known_the_plan_s_estimate_stands():
    """While the first programs are compiled nothing is done: that says nothing of the time that the steps will take."""
    started = cells(50.0, (), {0: 0.0, 1: 0.0})
    assert seconds_left(started) == pytest.approx(max(sum(ESTIMATES) / 2, max(ESTIMATES)))
    assert seconds_left(started, workers=4) == max(ESTIMATES)


def test_what_has_ended_without_success_is_not_waited_for():
    state = cells(1.0, (0,), {1: 0.5})
    some = [*state[:2], *(dataclasses.replace(c, state="failed") for c in state[2:])]
    assert seconds_left(some) == pytest.approx(0.5 * ESTIMATES[1])
    assert seconds_left([c for c in state if c.state != "running"]) is None
