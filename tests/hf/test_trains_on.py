"""A decoder of bytes that was trained here, exported and imported again trains on, by the commands of the pages alone."""

import pytest

from lm import run
from lm.hf import __main__ as command
from lm.train import record
from tests.small_run import text_files

MODEL = ("d_model=16", "num_layers=1", "attention.num_heads=2", "attention.head_dim=8", "mlp.d_ff=32", "max_length=32")
RUN = ("data.sequence_length=32", "batch_size=8", "train_tokens=2560", "evaluation.documents_bytes=2000", "evaluation.curve_bytes=1000",
       "evaluation.points_per_decade=0", "evaluation.stride=16")  # fmt: skip


def test_exported_and_imported_a_decoder_of_bytes_trains_on(tmp_path):
    """With a rate of next to nothing it ends at the loss that it had; with a real one it goes lower."""
    shared = [f"--config.{override}" for override in (*RUN, *text_files(tmp_path, documents=8, lines=60))]
    first, again = f"--workdir={tmp_path / 'first'}", f"--workdir={tmp_path / 'again'}"
    model = [f"--config.model.{override}" for override in MODEL]
    assert run.main(["--config=configs/decoder.py:tiny", first, *model, *shared, "--config.optim.learning_rate=0.01"]) == 0
    assert command.main(["export", str(tmp_path / "first"), str(tmp_path / "out")]) == 0
    assert command.main(["import", str(tmp_path / "out"), again]) == 0
    losses = []
    for rate in ("1e-30", "0.01"):
        words = [f"--config={tmp_path / 'again' / 'config.json'}", f"--init_from={tmp_path / 'again'}", f"--workdir={tmp_path / rate}"]
        assert run.main([*words, *shared, f"--config.optim.learning_rate={rate}"]) == 0
        losses.append(record.read(tmp_path / rate)["final"]["nats_per_byte"])
    assert losses[0] == pytest.approx(record.read(tmp_path / "first")["final"]["nats_per_byte"], rel=1e-5)
    assert losses[1] < losses[0] - 0.05
