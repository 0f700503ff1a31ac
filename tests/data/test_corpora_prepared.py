"""tfds:NAME: data sets that others prepared as array_record are found, read and fingerprinted; others say what they need."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from lm.data import corpora, pipeline, shared_work, tokens
from lm.data.config import Component, DataConfig
from lm.data.corpora import prepared
from lm.data.tokenizer import Bytes, ByteTokenizer, SentencePieceTokenizer
from lm.errors import UserError


def _prepare(directory, name: str, features: dict, splits: dict, config: str | None = None) -> None:
    class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """A data set for a test."""

        VERSION = tfds.core.Version("1.2.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []
        code_path = None

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows):
            yield from enumerate(rows)

    Made.name = name
    Made(data_dir=str(directory), file_format="array_record").download_and_prepare()


@pytest.fixture(autouse=True)
def _no_other_place(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))


TEXT = {"text": tfds.features.Text()}


def _rows(count: int, feature: str = "text") -> list[dict]:
    return [{feature: f"document {i} é"} for i in range(count)]


def test_given_validation_split_and_place(tmp_path):
    _prepare(tmp_path / "elsewhere", "mine", TEXT, {"train": _rows(5), "test": _rows(2)}, config="en")
    lines: list[str] = []
    result = corpora.prepare(Component("tfds:mine/en"), str(tmp_path / "data"), lines.append)
    assert result.info["documents"] == {"train": 5, "validation": 2}
    assert sorted(result.split("train")) == [row["text"] for row in _rows(5)]
    assert sorted(result.split("validation")) == [row["text"] for row in _rows(2)]
    assert result.split("train").name(0) == ""
    assert corpora.prepare(Component("tfds:mine/en"), str(tmp_path / "data"), pytest.fail) == result
    with pytest.raises(UserError, match="tfds:mine/en"):
        corpora.prepare(Component("tfds:mine"), str(tmp_path / "data"))
    (shard,) = (tmp_path / "elsewhere").rglob("*train.array_record*")
    shard.write_bytes(shard.read_bytes().replace("é".encode(), b"ee"))
    with pytest.raises(UserError, match=f"document 0 of {shard.parent} .*prepare it anew"):
        list(result.split("train"))


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), SentencePieceTokenizer(vocab_size=300, training_bytes=10_000)])
def test_a_record_that_cannot_be_read_is_refused_or_left_out_and_counted(tmp_path, tokenizer):
    """One record of 40 is overwritten in its shard; TFDS checks nothing until it is read."""
    texts = [f"document {i} " + "of some length " * 5 for i in range(40)]
    _prepare(tmp_path / "elsewhere", "mine", TEXT, {"train": [{"text": text} for text in texts], "validation": _rows(3)})
    (shard,) = (tmp_path / "elsewhere").rglob("*train.array_record*")
    shard.write_bytes(shard.read_bytes().replace(b"document 17 ", b"\xff\xff\xff\xffment 17 "))

    def made(**policy):
        said: list[str] = []
        config = DataConfig(components=(Component("tfds:mine", **policy),), tokenizer=tokenizer, sequence_length=32)
        return pipeline.prepare(config, str(tmp_path / "data"), said.append), said

    with pytest.raises(UserError, match=r"document \d+ of .*unusable=skip"):
        made()
    data, said = made(unusable="skip")
    assert data.info["documents"]["train"] == 39
    assert any("1 document left out" in line for line in said)
    with pytest.raises(UserError, match="1 of 40 train documents"):  # what is there was made by the other policy
        made()


def test_train_alone_is_divided(tmp_path):
    _prepare(
        tmp_path,
        "alone",
        {"body": tfds.features.Text(), "n": tfds.features.Scalar(np.int64)},
        {"train": [{"body": f"d{i}", "n": i} for i in range(250)]},
    )
    result = corpora.prepare(Component("tfds:alone:1.2.0"), str(tmp_path), lambda _: None)
    train, validation = set(result.split("train")), set(result.split("validation"))
    assert len(validation) == 2
    assert not train & validation
    assert train | validation == {f"d{i}" for i in range(250)}


def test_every_core_tokenises_a_large_data_set_as_one_does(tmp_path, monkeypatch):
    _prepare(tmp_path / "tfds", "large", TEXT, {"train": _rows(300)})
    corpus = corpora.prepare(Component("tfds:large"), str(tmp_path), lambda line: None)
    one = tokens.prepare(corpus, "train", Bytes(), str(tmp_path / "one"), lambda line: None)
    monkeypatch.setattr(tokens, "LARGE", 0)
    monkeypatch.setattr(prepared.corpus, "LEAST", 800)
    monkeypatch.setenv(shared_work.WORKERS, "1")
    cut = tokens.prepare(corpus, "train", Bytes(), str(tmp_path / "cut"), lambda line: None)
    assert len(list((tmp_path / "cut" / "tokens" / cut.fingerprint).glob("*.tokens"))) > 3
    np.testing.assert_array_equal(cut.flat[:], one.flat[:])
    np.testing.assert_array_equal(cut.starts, one.starts)


def test_fingerprint_follows_the_shards(tmp_path):
    _prepare(tmp_path, "one", TEXT, {"train": _rows(5), "test": _rows(2)})
    first = corpora.prepare(Component("tfds:one"), str(tmp_path), lambda _: None)
    _prepare(tmp_path / "b", "one", TEXT, {"train": _rows(6)[1:], "test": _rows(2)})
    second = corpora.prepare(Component("tfds:one"), str(tmp_path / "b"), lambda _: None)
    assert first.fingerprint != second.fingerprint


def test_what_cannot_be_used_says_why(tmp_path):
    data_dir = str(tmp_path)
    _prepare(tmp_path, "none", {"n": tfds.features.Scalar(np.int64)}, {"train": [{"n": 1}, {"n": 2}]})
    _prepare(tmp_path, "several", {"a": tfds.features.Text(), "b": tfds.features.Text()}, {"train": [{"a": "x", "b": "y"}] * 2})
    _prepare(tmp_path, "records", TEXT, {"train": _rows(2)})
    info = tmp_path / "records" / "1.2.0" / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    _prepare(tmp_path, "torn", TEXT, {"train": _rows(2)})
    (tmp_path / "torn" / "1.2.0" / "dataset_info.json").write_text("{")
    expected = {
        "torn": r"dataset_info\.json",
        "none": r"\(n\)",
        "several": r"\(a, b\)",
        "records": "tfrecord.*--file_format=array_record",
        "records:3.0.0": r"records:3\.0\.0",
        "lm1": "lm1b",
        "c4/en": "Beam.*tfds build c4/en --file_format=array_record",
        "lm1b": "a download",
        "no such": "no such",
    }
    for name, message in expected.items():
        with pytest.raises(UserError, match=message) as error:
            corpora.prepare(Component(f"tfds:{name}"), data_dir)
        assert "\n" not in str(error.value)


def test_places(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert [path.name for path in prepared.roots("d")] == ["d", "tfds", "tensorflow_datasets"]
