"""The bytes that a tokenizer loses are counted, recorded and told; a likelihood of text per byte is refused where they are many."""

import json
import pathlib

import pytest
import tokenizers
from fake_corpus import Corpus, quiet
from tokenizers import decoders, models, normalizers, pre_tokenizers

from lm.data import pipeline, round_trip, tokens
from lm.data.config import DataConfig, HuggingFaceTokenizer, SentencePieceTokenizer
from lm.data.info import info
from lm.data.objectives.pairs import Pairs
from lm.errors import UserError
from lm.evals import evaluator
from lm.evals.words import in_words
from lm.train.config import RunConfig

LETTERS = "abcdefghijklmnopqrstuvwxyz .\n"
# Half of the words hold digits and Cyrillic letters, which the tokenizers below do not know.
TEXTS = [f"the {i}{chr(0x430 + i % 8)}{i % 7} sat on the mat\nfar а{i}б away." for i in range(40)]
LOST = sum(len(c.encode()) for text in TEXTS for c in text if c not in LETTERS) / sum(len(text.encode()) for text in TEXTS)


def _json(path, unk=False, fuse=False, normalizer=None, model=None):
    """Writes a tokenizer.json of single letters."""
    names = ["<|endoftext|>", *LETTERS, *["<unk>"] * unk]
    letters = models.BPE({c: i for i, c in enumerate(names)}, [], unk_token="<unk>" if unk else None, fuse_unk=fuse)
    made = tokenizers.Tokenizer(model or letters)
    made.add_special_tokens(["<|endoftext|>", *["<unk>"] * unk])
    if normalizer is None:  # without a decoder the pieces are joined as they are
        made.decoder = decoders.Fuse()
    if normalizer:
        made.normalizer = normalizer
    made.save(str(path))
    return HuggingFaceTokenizer(path=str(path))


def _data(tmp_path, tokenizer, texts=TEXTS, log=quiet, **fields):
    config = DataConfig(tokenizer=tokenizer, sequence_length=2, **fields)
    data = pipeline.build(config, [Corpus(texts, texts[:3], fingerprint=str(hash(tuple(texts))))], str(tmp_path), log)
    assert info(config, str(tmp_path)) == data.info
    return data


@pytest.mark.parametrize("fields", [{}, {"unk": True}, {"unk": True, "fuse": True}, {"normalizer": normalizers.Lowercase()}])
def test_dropped_and_unknown_letters_are_lost_bytes(tmp_path, fields):
    lines: list[str] = []
    data = _data(tmp_path, _json(tmp_path / "t.json", **fields), log=lines.append)
    assert data.info["lost_bytes"]["train"] == pytest.approx(LOST)
    assert any(f"{LOST:.2%}" in line and "40 of 40" in line for line in lines)
    config = RunConfig(data=DataConfig(sequence_length=16))
    with pytest.raises(UserError, match=f"{LOST:.2%}"):  # before the model or the mesh are looked at
        evaluator.make_evaluator(config, None, None, data)


def test_case_and_unknown_words_are_lost_bytes(tmp_path):
    lower = _data(tmp_path, _json(tmp_path / "t.json", normalizer=normalizers.Lowercase()), ["The Mat.", "a Mat"])
    assert lower.info["lost_bytes"]["train"] == 3 / 13
    words = models.WordLevel({"<unk>": 0, "a": 1, "mat": 2}, unk_token="<unk>")
    path = tmp_path / "words.json"
    _json(path, unk=True, model=words)
    made = tokenizers.Tokenizer.from_file(str(path))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(path))
    unknown = _data(tmp_path, HuggingFaceTokenizer(path=str(path)), ["a mat a dunk", "mat"])  # 'dunk' shares letters with <unk>
    assert unknown.info["lost_bytes"]["train"] == pytest.approx((3 + 4) / 15)


@pytest.mark.parametrize(
    ("text", "back", "lost"),
    [
        ("a b", "a b", 0),
        ("a b", " a b", 0),  # the blank that a tokenizer writes before a text
        ("a\nb", "a b", 1),
        ("un-do", "un - do", 2),
        ("é", "e", 2),
        ("ﬁx", "fix", 3),
        ("", "", 0),
        ("漢字", "", 6),
    ],
)
def test_lost_bytes(text, back, lost):
    assert round_trip.lost_bytes(text, back) == lost


def test_tokenizers_that_keep_every_byte_lose_none(tmp_path):
    texts = [text + "\x00 ▁ \ue000 ｆ\u2028\ufeff é" for text in TEXTS]
    for tokenizer in (DataConfig().tokenizer, SentencePieceTokenizer(vocab_size=320)):
        assert _data(tmp_path, tokenizer, texts).info["lost_bytes"] == {"train": 0, "validation": 0}
    pairs = _data(tmp_path, DataConfig().tokenizer, ["a\tb\tc"] * 20, objective=Pairs(), packing="best_fit")
    assert pairs.info["lost_bytes"]["train"] == 0


def test_a_small_loss_is_recorded_and_allowed(tmp_path):
    texts = ["the mat " * 400 + "é"]
    data = _data(tmp_path, _json(tmp_path / "t.json"), texts)
    assert data.info["lost_bytes"]["train"] == 2 / len(texts[0].encode())
    assert not round_trip.problem(data.info)
    round_trip.require({})  # what an earlier version recorded


def test_a_cache_of_an_earlier_version_is_measured(tmp_path, monkeypatch):
    config, corpus = _json(tmp_path / "t.json"), Corpus(TEXTS)
    from lm.data import tokenizer

    built = tokenizer.build(config, [], str(tmp_path), quiet)
    first = tokens.prepare(corpus, "train", built, str(tmp_path), quiet)
    meta = pathlib.Path(first.directory, "meta.json")
    meta.write_text(json.dumps({key: value for key, value in json.loads(meta.read_text()).items() if key != "round_trip"}))
    assert tokens.open_cache(first.directory).round_trip is None
    assert tokens.prepare(corpus, "train", built, str(tmp_path), quiet).round_trip == first.round_trip
    monkeypatch.setattr(tokens, "RoundTrip", lambda _: pytest.fail("measured twice"))
    assert tokens.prepare(corpus, "train", built, str(tmp_path), quiet).round_trip == first.round_trip


def test_what_was_not_measured_is_not_taken_for_no_loss(tmp_path):
    config = DataConfig(tokenizer=_json(tmp_path / "t.json"), sequence_length=2)
    data = _data(tmp_path, config.tokenizer)
    for meta in tmp_path.rglob("meta.json"):
        meta.write_text(json.dumps({key: value for key, value in json.loads(meta.read_text()).items() if key != "round_trip"}))
    found = info(config, str(tmp_path))
    assert found is not None
    assert found["lost_bytes"] == {"train": None, "validation": None}
    assert not round_trip.is_measured(found)
    assert round_trip.is_measured(data.info)


def test_each_half_of_a_pair_has_its_own_leading_blank(tmp_path):
    path = tmp_path / "t.json"
    names = ["<|endoftext|>", *LETTERS, "▁", "<unk>"]
    _json(path, unk=True, model=models.BPE({c: i for i, c in enumerate(names)}, [], unk_token="<unk>"))
    made = tokenizers.Tokenizer.from_file(str(path))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Replace("▁", " ")  # the decoder leaves the first blank
    made.save(str(path))
    found = _data(tmp_path, HuggingFaceTokenizer(path=str(path)), ["the mat\tsat on"] * 20, objective=Pairs(), packing="best_fit")
    assert found.info["lost_bytes"] == {"train": 0, "validation": 0}
    found = _data(tmp_path, HuggingFaceTokenizer(path=str(path)), ["the mat\tsat 7 on"] * 20, objective=Pairs(), packing="best_fit")
    assert found.info["lost_bytes"]["train"] == pytest.approx(1 / 15)  # the unknown 7 of 7 + 8 bytes


def test_a_loss_of_text_is_said_beside_the_likelihood():
    found = {"nats_per_token": 1.0, "tokens": 10, "rows": 2}
    assert "0.25%" in in_words(found | {"lost_bytes": 0.0025})
    assert in_words(found | {"lost_bytes": 0.0}) == in_words(found)
