"""A bad step of a real run, repeated from what was kept of it."""

import dataclasses

import numpy as np
import pytest

from lm import replay, runner
from lm.config import apply_overrides
from lm.data.stream import TrainStream
from lm.errors import UserError
from lm.train import bundle
from lm.train.config import RunConfig
from tests.small_run import text_files

SMALL = [
    "data.sequence_length=32", "train_tokens=3072", "evaluation.documents_bytes=2000", "evaluation.curve_bytes=1000",
    "evaluation.stride=16", "log.tensorboard=false", "model.vocab_size=259", "model.d_model=16", "model.num_layers=1",
    "model.max_length=32", "model.attention.num_heads=1", "model.mlp.d_ff=32", "optim.learning_rate=1e-2", "checkpoint.every_steps=4",
]  # fmt: skip


@pytest.mark.parametrize(("bad", "start"), [(2, None), (9, 8)])
def test_a_bad_step_is_repeated_from_its_bundle(tmp_path, monkeypatch, capsys, bad, start):
    """A weight of row 5 is infinite in the process that trains; the text on disk is sound."""
    iterate = TrainStream.iterate

    def odd(self, first, last):
        for k, batch in zip(range(first, last), iterate(self, first, last), strict=True):
            if k == bad:
                weights = batch.weights.copy()
                weights[5, 7] = np.inf
                batch = dataclasses.replace(batch, weights=weights)
            yield batch

    config = apply_overrides(RunConfig(), [*text_files(tmp_path, documents=40, lines=100), *SMALL])
    with monkeypatch.context() as patch:
        patch.setattr(TrainStream, "iterate", odd)
        found = runner.train_run(config, tmp_path / "run")
    assert (found["status"], found["bad_steps"]["count"]) == ("completed", 1)
    folder = bundle.path_of(tmp_path / "run", bad + 1)
    assert bundle.read(folder)[0]["checkpoint"] == start
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert replay.main([str(folder)]) == 0
    said = capsys.readouterr().out
    assert f"step {bad + 1} on batch {bad}: loss nan, grad_norm nan, as recorded" in said
    assert "row 5 of 8: nan nats" in said
    assert "gives another batch" in said  # the text is not at fault
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    # Without the infinite weight it is another step, and that is told.
    np.savez(folder / "batch.npz", **{name: value for name, value in vars(batch_of_text(config, bad)).items() if value is not None})
    assert replay.main([str(folder)]) == 1
    assert "recorded were loss nan" in capsys.readouterr().out
    with pytest.raises(UserError, match=bundle.FOLDER):
        replay.main([str(tmp_path / "run")])


def batch_of_text(config, k):
    data = runner.prepare_data(config.data, config.data_dir, runner._silent)
    return TrainStream(data, config.data, config.batch_size, config.seed, vocab_size=config.model.vocab_size)[k]
