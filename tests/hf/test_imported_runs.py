"""`python -m lm.hf`: models become runs that the other commands open, and runs become models."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from hf.checkpoints import GOLDEN, edited
from tokenizers import Tokenizer, decoders, models

from lm import config as config_lib
from lm import hf
from lm.data.config import Component
from lm.errors import UserError
from lm.hf import __main__ as command
from lm.hf.runs import export_run, import_run
from lm.infer.__main__ import continuations
from lm.infer.sampling import Greedy
from lm.model.weights import flatten
from lm.train import checkpoint, record
from lm.train.config import RunConfig


def with_tokenizer(folder, ids):
    """A tokenizer of letters with `ids` ids."""
    letters = {chr(ord("a") + i): i + 1 for i in range(ids - 1)}
    tokenizer = Tokenizer(models.BPE(vocab={"<|endoftext|>": 0, **letters}, merges=[]))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def source(tmp_path):
    return with_tokenizer(edited(tmp_path, "gpt2"), 19)


def test_an_imported_run_writes_and_is_exported_again(source, tmp_path, capsys):
    run = tmp_path / "run"
    assert command.main(["import", str(source), f"--workdir={run}"]) == 0
    assert "imported a decoder of 2 layers" in capsys.readouterr().out
    saved = record.read(run)
    assert saved["status"] == "imported"
    assert saved["parameters"]["total"] == sum(leaf.size for leaf in flatten(hf.load(source)[1]).values())
    assert continuations(run, "abc", Greedy(), max_tokens=3)[0].startswith("abc")
    assert command.main(["export", str(run), str(tmp_path / "out"), "--max_shard_bytes=3000"]) == 0
    (config, params), (again, others) = hf.load(source), hf.load(tmp_path / "out")
    assert config == again
    for path, leaf in flatten(params).items():
        np.testing.assert_array_equal(flatten(others)[path], leaf)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_an_imported_run_trains_on(source, tmp_path):
    """Its first state has the imported weights, and what it becomes is known as another run than one from random weights."""
    from lm import runner

    run, rng = tmp_path / "run", np.random.default_rng(0)
    files = [tmp_path / f"{i}.txt" for i in range(4)]
    for file in files:
        file.write_text("".join(rng.choice(list("abcdefghijklmnopqr"), 3000)))
    import_run(source, run)
    config = config_lib.from_dict(RunConfig, json.loads((run / "config.json").read_text()))
    data = dataclasses.replace(config.data, components=(Component("text_files", tuple(map(str, files))),), sequence_length=9)
    optim = dataclasses.replace(config.optim, learning_rate=1e-30)
    evaluation = dataclasses.replace(config.evaluation, documents_bytes=100, curve_bytes=100, points_per_decade=0)
    config = dataclasses.replace(
        config,
        data=data,
        optim=optim,
        evaluation=evaluation,
        batch_size=8,
        train_tokens=72,
        data_dir=str(tmp_path / "data"),
        execution=dataclasses.replace(config.execution, unroll=False),
    )
    before = record.read(run)["imported"]
    done = runner.train_run(config, run)
    assert (done["status"], done["steps"], done["imported"]) == ("completed", 1, before)
    assert done["id"] != config_lib.identity(config, fingerprint=done["data"]["fingerprint"])  # that of a run from random weights
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), hf.load(source)[1])
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])), abstract
    )
    params, step = checkpoint.restore_params(run, placed)
    assert step == 1
    for path, leaf in flatten(hf.load(source)[1]).items():
        np.testing.assert_allclose(flatten(params)[path], leaf, atol=1e-6)


def test_another_model_does_not_train_in_an_imported_run(source, tmp_path):
    run = tmp_path / "run"
    import_run(source, run)
    now = record.read(run)
    other = dataclasses.replace(config_lib.from_dict(RunConfig, json.loads((run / "config.json").read_text())), seed=1)
    record.check_same(now, now | {"experiment": config_lib.experiment_part(other)}, run)  # how it is trained is free
    other = dataclasses.replace(other, model=dataclasses.replace(other.model, num_layers=3))
    with pytest.raises(UserError, match="num_layers: 2 -> 3"):
        record.check_same(now, now | {"experiment": config_lib.experiment_part(other)}, run)


def test_a_tokenizer_beyond_the_vocabulary(tmp_path):
    source = with_tokenizer(edited(tmp_path, "gpt2"), 20)
    with pytest.raises(UserError, match=r"tokenizer\.json .*19.*19"):
        import_run(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_tokenizer(tmp_path, capsys):
    assert command.main(["import", str(GOLDEN / "mt5"), f"--workdir={tmp_path / 'run'}"]) == 0
    assert "no tokenizer.json" in capsys.readouterr().out
    with pytest.raises(UserError, match="tokenizer"):
        continuations(tmp_path / "run", "abc", Greedy(), max_tokens=3)
    assert export_run(tmp_path / "run", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "mt5"  # which T5 could hold too
    assert hf.load(tmp_path / "out")[0] == hf.load(GOLDEN / "mt5")[0]


def test_what_is_there_is_not_replaced(source, tmp_path):
    import_run(source, tmp_path / "run")
    with pytest.raises(UserError, match="--workdir"):
        import_run(source, tmp_path / "run")
    before = (source / "config.json").read_text()
    with pytest.raises(UserError, match=r"config\.json"):
        import_run(source, source)
    assert (source / "config.json").read_text() == before
    with pytest.raises(UserError, match="nothing"):
        export_run(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(UserError, match="max_shard_bytes"):
        command.main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--max_shard_bytes=0"])
