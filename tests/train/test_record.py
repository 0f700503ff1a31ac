"""Records, metrics lines, evaluation steps and progress: what is on disk and on the screen."""

import json

import numpy as np
import pytest

from lm.errors import UserError
from lm.optim.schedules import WSD, Linear, rate_ratio
from lm.train import metrics, record
from lm.train.environment import environment
from lm.train.eval_steps import evaluation_steps
from lm.train.progress import Progress

COLUMNS = ("loss", "weight", "learning_rate", "skipped")


def test_json_has_no_nan(tmp_path):
    record.write_json(tmp_path / "x.json", {"a": np.float32(np.nan), "b": [np.int64(3), float("inf")], "c": np.arange(2)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [3, None], "c": [0, 1]}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_broken_record_is_named(tmp_path):
    assert record.read(tmp_path) is None
    for text in ("{", "[]", '{"schema": 99}', '{"schema": 1, "status": "failed", "reason": "out of memory"}'):
        (tmp_path / record.FILE).write_text(text)
        with pytest.raises(UserError, match=r"run\.json"):
            record.read(tmp_path)


def test_a_torn_tail_is_skipped_and_later_lines_are_dropped(tmp_path):
    (tmp_path / metrics.FILE).write_bytes(
        b'{"step": 5, "loss": 3.0}\n{"step": 10, "loss": 2.0}\n{"step": 15, "loss": 1.5}\n{"step": 20, "l\xff'
    )
    assert [row["step"] for row in metrics.read(tmp_path)] == [5, 10, 15]
    log = metrics.MetricsLog(tmp_path, 10)
    log.write({"step": 15, "loss": float("nan"), "norm": [1.0, 2.0]})
    log.close()
    assert metrics.read(tmp_path)[1:] == [{"step": 10, "loss": 2.0}, {"step": 15, "loss": None, "norm": [1.0, 2.0]}]


def test_lines_weigh_losses_by_their_targets(tmp_path):
    log = metrics.MetricsLog(tmp_path, 0)
    steps = metrics.StepMetrics(log, COLUMNS, every=2, total_steps=3, tokens_per_step=8)
    steps.add(0, 3, np.asarray([[1.0, 1.0, 0.1, 0.0], [4.0, 3.0, 0.2, 0.0], [5.0, 0.0, 0.3, 0.0]]), {})
    log.close()
    rows = metrics.read(tmp_path)
    assert [(row["step"], row["loss"], row["learning_rate"]) for row in rows] == [(2, 3.25, 0.2), (3, 0.0, 0.3)]
    assert steps.loss_tokens == 4.0


def test_steps_that_were_left_out_are_counted_and_enter_no_mean(tmp_path):
    log = metrics.MetricsLog(tmp_path, 0)
    steps = metrics.StepMetrics(log, COLUMNS, every=2, total_steps=9, tokens_per_step=8)
    bad = [np.nan, 8.0, 0.1, 1.0]
    assert steps.add(0, 3, np.asarray([[1.0, 8.0, 0.1, 0.0], bad, bad]), {}) == 1.0
    later = metrics.StepMetrics(log, COLUMNS, every=2, total_steps=9, tokens_per_step=8, **json.loads(json.dumps(steps.carried())))
    later.add(3, 3, np.asarray([bad, bad, [2.0, 8.0, 0.1, 0.0]]), {})
    log.close()
    rows = [(row["step"], row.get("loss"), row.get("skipped")) for row in metrics.read(tmp_path)]
    assert rows == [(2, 1.0, 1), (4, None, 2), (6, 2.0, 1)]
    assert later.loss_tokens == 16.0


def test_evaluations_are_log_spaced_the_same_for_every_run():
    short, long = (set(evaluation_steps(total, 8, WSD(), 10)) for total in (300, 3000))
    assert short - {300, 210} <= long
    assert {210, 300} <= short
    assert rate_ratio(WSD(), 210, 10, 300) == 1.0 > rate_ratio(WSD(), 211, 10, 300)
    gaps = np.diff(np.log(sorted(long - {2100})))
    assert gaps[:-1].max() < 0.35
    assert evaluation_steps(300, 0, WSD(), 10) == (300,)
    assert evaluation_steps(5, 8, Linear(), 0) == (5,)


def test_progress_is_lines_without_a_terminal_a_bar_with_one_and_silent_without_readers(capsys):
    said = []
    for log, terminal in ((said.append, False), (None, True), (said.append, True)):
        progress = Progress(10, 100, 0, log, terminal=terminal)
        progress.update(4, 2.5)
        progress.update(10, 1.25)
        progress.close()
    assert len(said) == 1
    assert said[0].startswith("step 10/10  loss 1.2500")
    assert "tokens/s" in said[0]
    assert "loss 1.2500" in capsys.readouterr().err


def test_the_environment_names_what_results_depend_on():
    found = environment(attention_backend="xla")
    assert found["cores"] >= 1
    assert found["attention"] == "xla"
    assert {"python", "jax", "jaxlib", "flax", "optax", "numpy", "git", "device"} <= set(found)
