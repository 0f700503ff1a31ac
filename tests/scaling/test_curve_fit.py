"""The verb that fits loss curves predicts a schedule that it has not seen."""

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import curve_fit
from lm.scaling.__main__ import main
from lm.scaling.laws.schedule_laws import MultiPower, TrainingCurve, curve_loss
from lm.scaling.results import from_json

VALUES = (2.6, 0.6, 0.45, 400.0, 2.0, 0.6, 0.6)
WARMUP, STEPS = 500, 2000


def written(path, rates, loss=True, sigma=1e-5):
    """A file of a curve that the law makes, logged every fourth step."""
    steps = np.arange(0, STEPS, 4)
    curve = TrainingCurve(rates, steps, np.empty(0), before=0.5 * WARMUP * rates[0])
    exact = curve_loss(VALUES, curve)
    noisy = exact * np.exp(sigma * np.random.default_rng(0).standard_normal(len(steps)))
    rows = [f"{step + WARMUP},{float(rates[step])!r},{value!r}" for step, value in zip(steps.tolist(), noisy.tolist(), strict=True)]
    rows = rows if loss else [row.rsplit(",", 1)[0] for row in rows]
    path.write_text("\n".join(["step,lr" + (",loss" if loss else ""), *rows]), encoding="utf-8")
    return str(path), exact[-1]


@pytest.fixture
def quick(monkeypatch):
    """Ten points of a curve, twelve blocks of its schedule and 32 starts."""
    monkeypatch.setattr(curve_fit, "DROPS", 12)
    monkeypatch.setattr(curve_fit, "SHOWN", 10)
    starts = MultiPower.starts
    monkeypatch.setattr(MultiPower, "starts", lambda self, centre: starts(self, centre)[::4])


@pytest.mark.usefixtures("quick")
def test_an_unseen_schedule_is_predicted(tmp_path, capsys):
    t = np.arange(STEPS)
    cosine, _ = written(tmp_path / "cosine.csv", 3e-4 * (0.1 + 0.45 * (1 + np.cos(np.pi * t / STEPS))))
    constant, _ = written(tmp_path / "constant.csv", np.full(STEPS, 3e-4))
    two, _ = written(tmp_path / "two.csv", np.where(t < 800, 3e-4, 9e-5))
    unseen, truth = written(tmp_path / "unseen.csv", np.where(t < 1400, 3e-4, 9e-5), loss=False)
    command = ["curves", cosine, constant, two, "--predict", unseen, "--draws", "12"]
    assert main([*command, "--json"]) == 0
    made = from_json(capsys.readouterr().out)
    assert min(one.r2 for one in made.fitted) > 0.99
    assert made.predicted[0].r2 is None
    assert made.predicted[0].predicted_last.value == pytest.approx(truth, rel=2e-3)
    assert main(command) == 0
    out = capsys.readouterr().out
    for name in ("cosine.csv", "unseen.csv", *MultiPower().names):
        assert name in out
    assert max(map(len, out.splitlines())) <= 130


def test_a_curve_is_read_with_its_warm_up_and_its_rates_between_rows(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("step,lr,loss\n100,2e-3,5\n104,1e-3,4\n", encoding="utf-8")
    curve = curve_fit.read_curve(str(path), "step", "lr", "loss", None).curve
    np.testing.assert_allclose(curve.rates, [2e-3, 1.75e-3, 1.5e-3, 1.25e-3, 1e-3])
    assert curve.steps.tolist() == [0, 4]
    assert curve.before == pytest.approx(0.1)
    assert curve_fit.read_curve(str(path), "step", "lr", "loss", 10).curve.before == pytest.approx(0.01)
    for rows in ("104,2e-3,5\n100,1e-3,4", "100,2e-3,5\n,1e-3,4", "100,2e-3,5\n1e12,1e-3,4"):  # falls, is empty, counts tokens
        path.write_text(f"step,lr,loss\n{rows}\n", encoding="utf-8")
        with pytest.raises(UserError, match="step"):
            curve_fit.read_curve(str(path), "step", "lr", "loss", None)
