"""What a plan costs: FLOPs over rates, memory that the mesh divides, and totals that add up."""

import dataclasses
import io
import pathlib

import pytest
import small_study

from experiments import calibrate, cost
from experiments.commands import Commands
from experiments.planning import Asked
from launch import table
from lm.errors import UserError
from lm.mesh import MeshConfig
from lm.study import directory, plan, plan_table, speed, status
from lm.study.rules import Tier, Tiers
from lm.train.config import ExecutionConfig


def _made(**changes):
    return plan.make(small_study.small(**changes), small_study.DATA)


@pytest.fixture(scope="module")
def made():
    return _made()


def test_hours_are_flops_over_the_assumed_rate(made):
    how = cost.terms("gpu:h100", mfu=0.5)
    cell = max(made.planned, key=lambda p: p.flops["matmul_causal"])
    assert cost.hours(cell, how) == pytest.approx(cell.flops["matmul_causal"] / (0.5 * 989e12) / 3600, rel=1e-12)
    split = _made(execution=Tiers((Tier(1e12, MeshConfig(fsdp=8)),)))
    eight = max(split.planned, key=lambda p: p.flops["matmul_causal"])
    assert cost.hours(eight, how) == pytest.approx(cost.hours(cell, how) / 8, rel=1e-12)


def test_the_wall_time_is_bounded_by_work_and_by_the_longest_cell(made):
    """Stages follow each other; more devices help until each stage takes as long as its longest cell."""
    how = cost.terms("gpu:h100")
    one = dataclasses.replace(how, at_once=1)
    total = sum(cost.hours(p, how) for p in made.planned)
    assert cost.least_hours(made, one) == pytest.approx(total, rel=1e-12)
    longest = [max(cost.hours(p, how) for p in made.planned if p.cell.stage == stage) for stage in (0, 1)]
    assert cost.least_hours(made, dataclasses.replace(how, at_once=10_000)) == pytest.approx(sum(longest), rel=1e-12)


def test_fewer_devices_at_once_than_a_cell_needs_are_refused():
    split = _made(execution=Tiers((Tier(1e12, MeshConfig(fsdp=8)),)))
    with pytest.raises(UserError, match="8 devices"):
        cost.least_hours(split, cost.terms("gpu:h100", at_once=4))


def test_a_mesh_divides_the_memory_and_what_fits_no_device_is_refused(made):
    """Weights, gradients and moments (16 bytes a parameter in float32) are split over fsdp; a chip a millionth as large holds nothing."""
    how, split = cost.terms("gpu:h100"), _made(execution=Tiers((Tier(1e12, MeshConfig(fsdp=4), ExecutionConfig()),)))
    largest = max(range(len(made.planned)), key=lambda i: made.planned[i].params["total"])
    whole, part = cost.memory(made.planned[largest], how), cost.memory(split.planned[largest], how)
    assert part < whole
    assert whole >= 16 * made.planned[largest].params["total"]
    assert not cost.too_large(made, how)
    tiny = dataclasses.replace(how, chip=dataclasses.replace(how.chip, memory=how.chip.memory // 10**6))
    shapes = {(p.shape["d_model"], p.shape["num_layers"]) for p in made.planned}
    assert len(cost.too_large(made, tiny)) == len(shapes)


def test_money_and_energy_follow_from_the_device_hours(made):
    how = cost.terms("gpu:h100", price=2e9, watts=1e12, co2=0.5)
    text = cost.render(made, how)
    device_hours = sum(cost.hours(p, how) for p in made.planned)
    for value in (device_hours * 2e9, device_hours * 1e9, device_hours * 0.5e9):
        assert cost._number(value) in text or f"{value:,.2f}" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("device", "given", "named"),
    [("gpu:h1000", {}, "h1000"), ("tpu:h100", {}, "tpu:h100"), ("gpu:h100", {"mfu": 40.0}, "mfu"), ("gpu:h100", {"price": -1.0}, "price"),
     ("gpu:h100", {"co2": 1.0}, "watts")],
)  # fmt: skip
def test_terms_that_say_nothing_are_refused(device, given, named):
    with pytest.raises(UserError, match=named):
        cost.terms(device, **given)


def test_a_plan_without_data_writes_nothing(tmp_path):
    out = io.StringIO()
    study = Commands(
        small_study.small(), tmp_path / "s", tmp_path / "data", out=out, asked=Asked(terms=cost.terms("gpu:h100"), without_data=True)
    )
    assert study.do("plan") == 0
    assert "device-seconds" in out.getvalue()
    assert not list(tmp_path.iterdir())


def test_a_measured_speed_is_that_behind_two_runs(made, monkeypatch):
    """Runs that take C / 1e10 + D x 3e-6 seconds on one device give these two numbers back."""
    monkeypatch.setattr(calibrate.worker, "pin", lambda cores: None)
    monkeypatch.setattr(calibrate, "_seconds_per_token", lambda p, data_dir, say: calibrate._flops_per_token(p) / 1e10 + 3e-6)
    before = small_study.small().speed
    speed = calibrate.measure(made.planned, before, pathlib.Path("data"), print)
    assert (speed.flops_per_second, speed.per_token) == (1e10, 3e-6)
    assert (speed.per_cell, speed.per_shape) == (before.per_cell, before.per_shape)
    with pytest.raises(UserError, match="two sizes"):
        calibrate.measure(made.planned[:1], before, pathlib.Path("data"), print)


def test_a_measured_speed_is_kept_and_used_by_later_verbs(tmp_path, monkeypatch):
    """Also by `run`, which writes the cells' seconds again, and by `status`; the device is named."""
    measured = dataclasses.replace(small_study.small().speed, flops_per_second=1e9)
    monkeypatch.setattr(calibrate, "measure", lambda *_: measured)
    study = dataclasses.replace(small_study.commands_on(small_study.small(), tmp_path / "s", monkeypatch), asked=Asked(calibrate=True))
    assert study.do("plan") == 0
    seconds = [cell["seconds"] for cell in directory.open_study(study.root)["cells"]]
    own = [p.seconds for p in plan.make(small_study.small(), small_study.DATA).planned]
    assert min(seconds) > max(own)
    for verb in ("plan", "run"):
        study = dataclasses.replace(study, asked=Asked(), out=io.StringIO())
        assert study.do(verb) == 0
        assert [cell["seconds"] for cell in directory.open_study(study.root)["cells"]] == seconds
    (study.root / "forecast.json").unlink()
    for folder in (study.root / "cells").iterdir():
        (folder / "run.json").unlink()
    said = table.render(status.read_status(study.root), study.root, "retry")
    assert plan_table.duration(sum(seconds), " ") in said
    assert speed.kept(study.root).device in said
    for text in ("{", "[]", '{"device": "x", "day": "y", "speed": {"flops_per_second": 0}}'):
        (study.root / speed.FILE).write_text(text)
        with pytest.raises(UserError, match=speed.FILE):
            speed.kept(study.root)


def test_what_has_ended_says_how_good_the_estimates_are():
    cells = [
        status.CellStatus({"seconds": 10.0}, state, 1.0, 1.0, None, seconds) for state, seconds in (("completed", 25.0), ("failed", 99.0))
    ]
    assert "2.50 times" in calibrate.recorded(status.Status(tuple(cells), False))
    assert calibrate.recorded(status.Status((), False)) == ""
