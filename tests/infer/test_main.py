"""The command: text in, text out, one clear line for everything that can be wrong."""

import jax
import jax.numpy as jnp
import pytest
from model.small import params_of

from lm import config as config_lib
from lm.data.config import DataConfig, SentencePieceTokenizer
from lm.data.tokenizer import Bytes
from lm.errors import UserError
from lm.infer.__main__ import main
from lm.infer.decode import generate
from lm.model.architectures import build
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.train import checkpoint, record
from lm.train.config import RunConfig
from lm.types import TrainState

MODEL = ModelConfig(vocab_size=259, d_model=8, num_layers=1, attention=AttentionConfig(1, None, 8), mlp=MLPConfig(d_ff=8))


def write_run(workdir, config, fingerprint="bytes3"):
    workdir.mkdir(exist_ok=True)
    data = {"fingerprint": "f", "tokenizer": {"name": "bytes", "vocab_size": 259, "fingerprint": fingerprint}}
    parts = {"experiment": config_lib.experiment_part(config), "execution": config_lib.execution_part(config)}
    record.write(workdir, {"schema": record.SCHEMA, "id": "x", "status": "completed", "data": data, **parts})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with checkpoints of steps 3 and 7, whose parameters are each other's negatives."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    write_run(workdir, RunConfig(model=MODEL))
    for step, sign in ((3, 1.0), (7, -1.0)):
        params = jax.tree.map(lambda x, sign=sign: sign * x, params_of(MODEL))
        checkpoint.save(workdir, TrainState(jnp.int32(step), params, {}), {}, keep=2)
    return workdir


def said(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_it_continues_a_text(run, capsys):
    """The newest checkpoint, or that of --step, continues the prompt, which begins after an end of document as training text does."""
    newest = said(capsys, run, "--prompt=def", "--max_tokens=6")
    params = jax.tree.map(lambda x: -x, params_of(MODEL))
    (ids,) = generate(build(MODEL), params, [[1, *(byte + 3 for byte in b"def")]], max_new_tokens=6, eos_id=1)
    assert newest == "def" + Bytes().decode(ids) + "\n"
    assert newest != said(capsys, run, "--prompt=def", "--max_tokens=6", "--step=3")


def test_it_samples(run, capsys):
    sampled = said(capsys, run, "--prompt=def é", "--max_tokens=2", "--temperature=1", "--top_p=0.9", "--samples=2", "--seed=4")
    assert sampled.count("def é") == 2


def test_every_flag_of_decoding_reaches_the_model(run, capsys):
    """Whatever the model is, these flags leave one text; and a stream is the same text in pieces."""
    only = said(capsys, run, "--prompt=def", "--max_tokens=5", "--force=été", "--ban=x", "--no_repeat_ngram=2", "--min_tokens=5")
    assert only == "defété\n"
    assert said(capsys, run, "--prompt=def", "--max_tokens=5", "--force=été", "--stream", "--repetition_penalty=1.5") == only
    assert said(capsys, run, "--prompt=def", "--max_tokens=9", "--force=été", "--stop=té") == "defé\n"
    assert said(capsys, run, "--prompt=def", "--max_tokens=9", "--force=été", "--stop=té", "--stream") == "defé\n"
    beams = ("--beams=3", "--length_penalty=.6", "--early_stopping=never")
    assert said(capsys, run, "--prompt=def", "--max_tokens=5", "--force=été", "--presence_penalty=1", *beams) == only
    assert said(capsys, run, "--prompt=def", "--max_tokens=5", "--force=été", "--temperature=2", "--best_of=2") == only
    assert said(capsys, run, "--prompt=def", "--max_tokens=5", "--force=été", f"--draft={run}", "--guesses=2") == only


def test_it_scores_and_embeds(run, capsys):
    """The likelihood of a text in parts is that of the whole, and of one whose tokens are greedy it says so."""
    greedy = said(capsys, run, "--prompt=def", "--max_tokens=1", "--frequency_penalty=0").removeprefix("def").removesuffix("\n")
    assert "1 tokens" in said(capsys, run, "--prompt=def", f"--score={greedy}") or not greedy.isascii()
    parts = (("a", "bc"), ("a", "b"), ("ab", "c"))
    nats = [float(said(capsys, run, f"--prompt={prompt}", f"--score={text}").split()[0]) for prompt, text in parts]
    assert nats[0] == pytest.approx(nats[1] + nats[2], abs=2e-4)
    (line,) = said(capsys, run, "--prompt=def", "--embed=mean").splitlines()
    vector = [float(number) for number in line.split()]
    assert len(vector) == 8
    assert sum(number**2 for number in vector) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt="], "prompt"),
        (["--prompt=a", "--step=5"], "step 5.*3, 7"),
        (["--prompt=a", "--temperature=0"], "temperature=0.*greedy"),
        (["--prompt=a", "--greedy", "--top_k=3"], "--greedy.*--top_k"),
        (["--prompt=a", "--beams=2", "--top_p=.5"], "--beams.*--top_p"),
        (["--prompt=a", "--length_penalty=.5"], "--length_penalty.*--beams"),
        (["--prompt=a", "--beams=0"], "beams=0"),
        (["--prompt=a", "--beams=2", "--samples=3"], "2 beams.*3"),
        (["--prompt=a", "--beams=2", "--stop=a"], "stop"),
        (["--prompt=a", "--samples=3"], "--samples.*--temperature"),
        (["--prompt=a", "--stream", "--samples=3", "--top_k=2"], "--stream.*--samples"),
        (["--prompt=a", "--min_p=2"], "min_p=2"),
        (["--prompt=a", "--draft=x", "--beams=2"], "--beams.*--draft"),
        (["--prompt=a", "--draft=nothing"], "nothing holds no run"),
        (["--prompt=a", "--score="], "continuation"),
        (["--prompt=a", "--fill_mask=a"], "encoder"),
        (["--prompt=a", "--max_tokens=0"], "--max_tokens"),
        (["--prompt=a", "--foo=1"], "--foo"),
        (["--prompt=a _", "--blank=_"], "--config.data.objective=span_corruption"),
        (["--prompt=a _", "--blank=_", "--config.data.objective=span_corruption"], r"259 .*100.*vocab_size=359"),
    ],
)
def test_bad_arguments(run, arguments, message):
    with pytest.raises(UserError, match=message):
        main([str(run), *arguments])


@pytest.mark.parametrize("flag", ["--top_k=0", "--beams=0", "--min_p=2", "--seed=-1", f"--seed={2**32}", "--fill_mask="])
def test_a_wrong_number_is_refused_before_the_model_is_read(tmp_path, flag):
    (tmp_path / "config.json").write_text("a model's, which cannot be read")
    with pytest.raises(UserError, match=flag.removeprefix("--")):
        main([str(tmp_path), "--prompt=a", flag])


def test_bad_runs(tmp_path):
    with pytest.raises(UserError, match=r"run\.json"):
        main([str(tmp_path / "none"), "--prompt=a"])
    write_run(tmp_path / "untrained", RunConfig(model=MODEL))
    with pytest.raises(UserError, match="no checkpoint"):
        main([str(tmp_path / "untrained"), "--prompt=a"])
    for name in ("other", "moved"):
        (tmp_path / name / "checkpoints" / "00000001").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "00000001" / "manifest.json").write_text("{}")
    write_run(tmp_path / "other", RunConfig(model=MODEL), fingerprint="another")
    with pytest.raises(UserError, match="bytes tokenizer"):
        main([str(tmp_path / "other"), "--prompt=a"])
    write_run(tmp_path / "moved", RunConfig(model=MODEL, data=DataConfig(tokenizer=SentencePieceTokenizer())))
    with pytest.raises(UserError, match="--data_dir"):
        main([str(tmp_path / "moved"), "--prompt=a", f"--data_dir={tmp_path}"])
