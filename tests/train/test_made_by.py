"""What is said of a run whose data are prepared otherwise now: which version made it, what changed, what to do."""

import pytest

from lm import config as config_lib
from lm.data.config import DataConfig, HuggingFaceTokenizer, SentencePieceTokenizer
from lm.data.tokenizer import build
from lm.errors import UserError
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.train import made_by, record
from lm.train.config import RunConfig
from lm.train.run_tokenizer import run_tokenizer

MODEL = ModelConfig(vocab_size=300, d_model=8, num_layers=1, attention=AttentionConfig(1, None, 8), mlp=MLPConfig(d_ff=8))
GIT = "0123456789abcdef"
TEXT = {"corpus": "text_files", "fingerprint": "f"}
OLD, SAME = [{**TEXT, "version": "1.2.0"}], [{**TEXT, "version": "1.3.0"}]
NOW = {"lost_bytes": {}, "corpora": [{**TEXT, "version": "1.3.0", "fingerprint": "g"}]}


def _record(fingerprint, data=DataConfig(), tokenizer="t", environment=None, **facts):
    config = RunConfig(model=MODEL, data=data)
    parts = {"experiment": config_lib.experiment_part(config), "execution": config_lib.execution_part(config)}
    told = {"fingerprint": fingerprint, "tokenizer": {"name": data.tokenizer.name, "fingerprint": tokenizer}, **facts}
    return {"status": "running", "data": told, "environment": environment or {}, **parts}


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"environment": {"git": GIT}}, ["f -> g", "before 0.6.0", GIT[:12]]),
        ({"lost_bytes": {}}, ["f -> g", "0.6.0"]),
        (
            {"lost_bytes": {}, "corpora": OLD, "environment": {"lm": "0.7.0"}},
            ["0.7.0", "text_files 1.2.0 -> 1.3.0"],
        ),
        ({"lost_bytes": {}, "corpora": SAME, "environment": {"lm": "0.7.0"}}, ["f -> g"]),
    ],
)
def test_text_that_is_prepared_otherwise_now(tmp_path, facts, named):
    then, now = _record("f", **facts), _record("g", **NOW)
    with pytest.raises(UserError) as error:
        record.check_same(then, now, tmp_path)
    assert [name for name in [*named, str(tmp_path), "--workdir"] if name not in str(error.value)] == []
    assert record.check_same(then, now | {"data": then["data"]}, tmp_path) == []


@pytest.mark.parametrize(
    ("facts", "named"), [({"environment": {"git": GIT}}, ["before 0.6.0", GIT[:12]]), ({"lost_bytes": {}}, ["--workdir"])]
)
def test_a_tokenizer_that_is_another_now(tmp_path, facts, named):
    data = DataConfig(tokenizer=HuggingFaceTokenizer(path="tokenizer.json"))
    with pytest.raises(UserError) as error:
        record.check_same(_record("f", data, "old", **facts), _record("g", data, "new", **NOW), tmp_path)
    assert [name for name in ["huggingface", "--workdir", *named] if name not in str(error.value)] == []


def test_only_recipes_that_changed_are_named():
    then = [{**TEXT, "version": "1.2.0"}, {"corpus": "python_sources", "version": "1.0.0"}, {"corpus": "word_chain", "version": None}]
    now = [{**TEXT, "version": "1.3.0"}, *then[1:]]
    assert made_by.recipes(then, now) == ["text_files 1.2.0 -> 1.3.0"]
    assert made_by.recipes((), now) == made_by.recipes(now, now) == []


class _Corpus:
    fingerprint = "c"

    def split(self, name):
        return [f"{name} words of number {i} and {i * i}" for i in range(200)]


def test_a_tokenizer_trained_on_text_is_found_without_that_text(tmp_path):
    config = RunConfig(model=MODEL, data=DataConfig(tokenizer=SentencePieceTokenizer(vocab_size=300)))
    made = build(config.data.tokenizer, [_Corpus()], str(tmp_path))
    saved = _record("f", config.data, made.fingerprint)
    assert run_tokenizer(config, str(tmp_path), saved).fingerprint == made.fingerprint
    for data_dir, fingerprint in ((tmp_path, "another"), (tmp_path / "elsewhere", made.fingerprint)):
        with pytest.raises(UserError, match=f"{data_dir}.*--data_dir"):
            run_tokenizer(config, str(data_dir), _record("f", config.data, fingerprint))
