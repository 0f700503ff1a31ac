"""`python -m lm.hf`: models become runs that the other commands open, and runs become models."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from hf.checkpoints import GOLDEN, edited
from tokenizers import Tokenizer, decoders, models

from lm import config as config_lib
from lm import hf, infer, runner
from lm import run as lm_run
from lm.data import tokenizer
from lm.data.config import Component
from lm.data.objectives.config import Pairs
from lm.errors import UserError
from lm.hf import __main__ as command
from lm.hf.runs import export_run, import_run
from lm.init_from import find, require_said, require_tokenizer
from lm.model.weights import flatten
from lm.train import checkpoint, record, sealed
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
    (text,) = infer.load(run).generate("abc", max_new_tokens=3, stop=["zzz"])
    assert infer.load(source).generate("abc", max_new_tokens=3) == [text]  # from the model's own directory
    assert command.main(["export", str(run), str(tmp_path / "out"), "--max_shard_bytes=3000"]) == 0
    (config, params), (again, others) = hf.load(source), hf.load(tmp_path / "out")
    assert config == again
    for path, leaf in flatten(params).items():
        np.testing.assert_array_equal(flatten(others)[path], leaf)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def configured(run, tmp_path):
    """The configuration of an imported run, with text of its own and one step that changes next to nothing."""
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{i}.txt" for i in range(4)]
    for file in files:
        file.write_text("".join(rng.choice(list("abcdefghijklmnopqr"), 3000)))
    config = config_lib.from_dict(RunConfig, json.loads((run / "config.json").read_text()))
    data = dataclasses.replace(config.data, components=(Component("text_files", tuple(map(str, files))),), sequence_length=9)
    return dataclasses.replace(
        config,
        data=data,
        optim=dataclasses.replace(config.optim, learning_rate=1e-30),
        evaluation=dataclasses.replace(config.evaluation, documents_bytes=100, curve_bytes=100, points_per_decade=0),
        batch_size=8,
        train_tokens=72,
        data_dir=str(tmp_path / "data"),
        execution=dataclasses.replace(config.execution, unroll=False),
    )


def require_weights(run, source):
    """Asserts that a run ended, after one step, with about the weights of the source."""
    _, expected = hf.load(source)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), expected)
    params, step = checkpoint.restore_params(run, target)
    assert step == 1
    for path, leaf in flatten(expected).items():
        np.testing.assert_allclose(flatten(params)[path], leaf, atol=1e-6)


def test_imported_weights_train_on_in_their_directory_or_in_another(source, tmp_path):
    """What they become is known as other runs than one from random weights, and than each other."""
    run, other, third = tmp_path / "run", tmp_path / "other", tmp_path / "third"
    import_run(source, run)
    config, before = configured(run, tmp_path), record.read(run)
    done = runner.train_run(config, other, init_from=str(run))
    kept = {key: before["imported"][key] for key in ("ids", "family")}
    assert done["init_from"] == {"from": str(run), "run": before["id"], "step": 0, **kept}
    require_weights(other, source)
    again = runner.train_run(config, third, init_from=str(other))
    assert (again["init_from"]["run"], again["init_from"]["step"]) == (done["id"], 1)
    require_weights(third, source)
    assert runner.train_run(config, third, init_from=str(other)) == again  # done already
    shutil.rmtree(third / sealed.FOLDER)  # as if it had been killed before its first checkpoint
    record.write(third, again | {"status": "running"})
    assert runner.train_run(config, third, init_from=str(other))["final"] == again["final"]
    require_weights(third, source)
    lines = []
    inside = runner.train_run(config, run, log=lines.append, table=True)
    assert any(inside["id"] in line for line in lines)  # said before it began
    assert (inside["status"], inside["steps"], inside["imported"]) == ("completed", 1, before["imported"])
    require_weights(run, source)
    random = config_lib.identity(config, fingerprint=done["data"]["fingerprint"])
    assert len({random, done["id"], again["id"], inside["id"]}) == 4
    require_other_weights_refused(config, run, other, third)
    export_run(third, tmp_path / "out")
    assert ids_of(tmp_path / "out") == ids_of(source)


def require_other_weights_refused(config, run, other, third):
    """Asserts that a run goes on with those that it began with alone; `third` began with those of `other`, and `run` was imported."""
    with pytest.raises(UserError, match=f"--init_from={other}"):
        runner.train_run(config, third)
    with pytest.raises(UserError, match=str(other)):
        runner.train_run(config, third, init_from=str(run))
    with pytest.raises(UserError, match=r"imported.*--workdir"):
        runner.train_run(config, run, init_from=str(other))


def ids_of(folder):
    values = json.loads((folder / "config.json").read_text())
    return {key: value for key, value in values.items() if key.endswith("_token_id")}


def test_a_resumed_run_keeps_the_step_that_it_began_with(source, tmp_path):
    run = tmp_path / "run"
    import_run(source, run)
    config = configured(run, tmp_path)
    begun = find(str(run), config) | {"step": 7}
    (tmp_path / "new").mkdir()
    record.write(tmp_path / "new", record.read(run) | {"init_from": begun})
    assert find(str(run), config, tmp_path / "new") == begun


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"num_layers": 3}, "num_layers: 2 -> 3"),
        ({"norm_epsilon": 0.5}, "norm_epsilon"),
        ({"max_length": 10}, "max_length"),
        ({"embedding_std": 0.5}, None),  # of random weights
    ],
)
def test_weights_of_another_model_are_not_begun_with(source, tmp_path, changes, names):
    run = tmp_path / "run"
    import_run(source, run)
    config = configured(run, tmp_path)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))
    if names is None:
        assert find(str(run), config)["step"] == 0
        return
    with pytest.raises(UserError, match=names):
        find(str(run), config)


def test_weights_and_tokenizer_belong_together(source, tmp_path):
    run = tmp_path / "run"
    import_run(source, run)
    config = configured(run, tmp_path)
    begun = record.Source(find(str(run), config))
    own = tokenizer.build(config.data.tokenizer, [], "")
    require_tokenizer(begun, own)
    require_tokenizer(begun, Pairs().tokenizer(own))  # pairs of the same tokens
    with pytest.raises(UserError, match="tokenizer"):
        require_tokenizer(begun, tokenizer.Bytes())


def test_an_imports_configuration_says_that_a_new_directory_lacks_its_weights(source, tmp_path):
    run, file = tmp_path / "run", tmp_path / "copy.json"
    import_run(source, run)
    file.write_text((run / "config.json").read_text())
    for spec in (run / "config.json", file):
        with pytest.raises(UserError, match=f"--init_from={run}"):
            lm_run.main([f"--config={spec}", f"--workdir={tmp_path / 'new'}", "--dry_run"])
    assert not (tmp_path / "new").exists()
    for arguments in ([f"--workdir={run}"], [f"--workdir={tmp_path / 'new'}", "--init_from=none"], [f"--init_from={run}"], []):
        assert lm_run.main([f"--config={file}", "--config.data.sequence_length=9", "--dry_run", *arguments]) == 0
    with pytest.raises(UserError, match=r"lm\.hf import"):
        lm_run.main([f"--config={file}", f"--init_from={source}", "--dry_run"])
    with pytest.raises(UserError, match=r"run\.json"):
        lm_run.main([f"--config={file}", f"--init_from={tmp_path}", "--dry_run"])


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
    assert "tokenizer.json" in capsys.readouterr().out
    with pytest.raises(UserError, match="tokenizer"):
        infer.load(tmp_path / "run")
    assert export_run(tmp_path / "run", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "mt5"  # which T5 could hold too
    copy = (tmp_path / "run" / "config.json").rename(tmp_path / "copy.json")
    bytes_of = "--config.data.tokenizer=bytes"  # nothing in it names a file of the import
    with pytest.raises(UserError, match=f"--init_from={tmp_path / 'run'}"):
        lm_run.main([f"--config={copy}", bytes_of, f"--workdir={tmp_path / 'new'}", "--dry_run"])
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"--init_from=RUN.*--init_from=none"):
        lm_run.main([f"--config={copy}", bytes_of, f"--workdir={tmp_path / 'new'}", "--dry_run"])
    assert hf.load(tmp_path / "out")[0] == hf.load(GOLDEN / "mt5")[0]


def test_what_is_there_is_not_replaced(source, tmp_path):
    import_run(source, tmp_path / "run")
    with pytest.raises(UserError, match="--workdir"):
        import_run(source, tmp_path / "run")
    before = (source / "config.json").read_text()
    with pytest.raises(UserError, match=r"config\.json"):
        import_run(source, source)
    assert (source / "config.json").read_text() == before
    with pytest.raises(UserError, match=r"/nothing\b"):
        export_run(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(UserError, match="max_shard_bytes"):
        command.main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--max_shard_bytes=0"])


def test_a_foreign_run_json_beside_a_configuration_is_no_import(tmp_path):
    (tmp_path / "run.json").write_text('{"name": "of another program"}')
    require_said(RunConfig(), tmp_path / "run", tmp_path / "configuration.py")
