"""Tokenizers that are files: SentencePiece models with ids of their own, and tiktoken's ranks."""

import base64
import io
import itertools

import numpy as np
import pytest
import sentencepiece
from fake_corpus import quiet, text
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data import rank_file, tokenizer
from lm.data.config import HuggingFaceTokenizer, SentencePieceFile, TiktokenFile
from lm.data.objectives import config as C
from lm.data.token_ids import utf8
from lm.errors import UserError

WORDS = [text(60, seed) + " the fox's <extra_id_0> </s> lazy dog 123" for seed in range(40)]


def spm(path, **options):
    model = io.BytesIO()
    fixed = {"model_writer": model, "vocab_size": 180, "num_threads": 1, "minloglevel": 2, "hard_vocab_limit": False}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(WORDS), **fixed, **options)
    path.write_bytes(model.getvalue())
    return str(path)


def build(config):
    return tokenizer.build(config, [], "", quiet)


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """A model as T5's: padding 0, end 1, unknown 2, and normalisation."""
    return spm(tmp_path_factory.mktemp("t5") / "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


def test_a_sentencepiece_model_encodes_as_its_owner_does(t5):
    read, owner = build(SentencePieceFile(t5, extra_ids=100)), sentencepiece.SentencePieceProcessor(model_file=t5)
    pieces = owner.get_piece_size()
    assert (read.pad_id, read.eos_id, read.start_id, read.unk_id, read.mask_id) == (0, 1, 1, 2, None)
    assert (read.vocab_size, read.own.sentinels) == (pieces + 100, tuple(range(pieces + 99, pieces - 1, -1)))  # T5's order
    for written in ("the fox's  lazy dog", "</s> <pad><extra_id_0>", "漢字 ①", "", " lead"):
        ids = read.encode(written)
        assert ids.tolist() == owner.encode(written)
        assert not {0, 1, *read.own.sentinels} & set(ids.tolist())
        assert read.decode([1, *ids, 0]) == owner.decode(ids.tolist())
    first, second = read.encode("the fox").tolist(), read.encode("lazy").tolist()
    assert read.decode([*first, pieces + 99, *second]) == "the fox<extra_id_0>lazy"
    assert C.SpanCorruption().vocabulary(read) == pieces + 100
    assert build(SentencePieceFile(t5, start_token="<pad>")).start_id == 0
    prints = {build(SentencePieceFile(t5, **fields)).fingerprint for fields in ({}, {"extra_ids": 3}, {"start_token": "<pad>"})}
    assert len(prints) == 2  # what a decoder reads first is not in the tokens of documents


def test_sentinels_that_are_pieces_are_not_made_of_text(tmp_path):
    """mT5's are pieces that the user defined, which SentencePiece itself makes of text."""
    path = spm(tmp_path / "mt5.model", pad_id=0, eos_id=1, unk_id=2, bos_id=3, user_defined_symbols=["<extra_id_1>", "<extra_id_0>"])
    read = build(SentencePieceFile(path))
    assert read.own.sentinels == (read.token_to_id("<extra_id_0>"), read.token_to_id("<extra_id_1>"))
    assert not {*read.own.sentinels} & set(read.encode("a <extra_id_0> b").tolist())
    assert read.decode([*read.own.sentinels]) == "<extra_id_0><extra_id_1>"


def test_files_that_are_no_sentencepiece_model_are_refused_in_one_line(t5, tmp_path):
    (tmp_path / "empty.model").touch()
    for config, match in [
        (SentencePieceFile(str(tmp_path / "empty.model")), r"empty\.model is not a SentencePiece model"),
        (SentencePieceFile(str(tmp_path / "none.model")), r"none\.model"),
        (SentencePieceFile(__file__), r"test_tokenizer_files\.py"),
        (SentencePieceFile(t5, eos_token="<nowhere>"), "<nowhere>"),
        (SentencePieceFile(t5, extra_ids=-1), "extra_ids"),
        (SentencePieceFile(spm(tmp_path / "endless.model", eos_id=-1)), "eos_token"),
    ]:
        with pytest.raises(UserError, match=match) as caught:
            build(config)
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Merges of frequent neighbours, some of which make one token in two ways."""
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [
        b"th",
        b"he",
        b"the",
        b" the",
        b"aa",
        b"aaa",
        b"aaaa",
        b"  ",
        b"   ",
        b"ab",
        b"aba",
        b"ba",
        b"12",
        b"123",
        "é".encode(),
        b"\n\n",
    ]
    path = tmp_path_factory.mktemp("ranks") / "own.tiktoken"
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)))
    return str(path)


def by_ranks(piece, ranks):
    """tiktoken's algorithm: while two neighbours make a token, join the first two that make the one of the lowest rank."""
    parts = [bytes([byte]) for byte in piece]
    if piece in ranks:
        return [ranks[piece]]
    while True:
        joined = [(ranks[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in ranks]
        if not joined:
            return [ranks[part] for part in parts]
        i = min(joined)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


PIECES = st.lists(st.sampled_from(["the", "aaa", "ab", "a", "b", " ", "123", "é", "\n", "<|endoftext|>", "'s", "漢"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(written=PIECES.map("".join))
def test_ranks_encode_as_tiktoken_does(ranks, written):
    read, known = read_ranks(ranks), rank_file.read(ranks)
    cut = [piece for piece, _ in read._encoder.pre_tokenizer.pre_tokenize_str(written)]
    letters = {letter: byte for byte, letter in enumerate(rank_file.byte_letters())}
    assert read.encode(written).tolist() == [i for piece in cut for i in by_ranks(bytes(letters[letter] for letter in piece), known)]
    assert read.decode(read.encode(written)) == written


READ = {}


def read_ranks(path):
    return READ.setdefault(path, build(TiktokenFile(path, "cl100k_base")))


def test_ranks_have_an_end_of_document_that_no_text_is(ranks):
    read = read_ranks(ranks)
    assert (read.vocab_size, read.eos_id, read.unk_id) == (273, 272, None)
    assert 272 not in read.encode("<|endoftext|> a<|endoftext|>")
    assert read.decode([*read.encode("a"), 272]) == "a"


def test_a_published_encoding_is_known_by_its_number_of_ranks(ranks, tmp_path, monkeypatch):
    monkeypatch.setitem(rank_file.ENCODINGS, "cl100k_base", rank_file.Encoding(272, r"\S+|\s+", {"<|endoftext|>": 275, "<|x|>": 280}))
    read = build(TiktokenFile(ranks))
    assert (read.eos_id, read.vocab_size) == (275, 281)  # with the ids that it leaves out
    assert read.encode("ab the").tolist() == [265, 32, 258]
    for name, each in rank_file.ENCODINGS.items():
        assert min(each.special.values()) >= (each.ranks if name not in ("p50k_base", "cl100k_base") else 0)
        assert each.end in each.special


def test_files_that_are_no_ranks_are_refused_in_one_line(ranks, t5, tmp_path):
    (tmp_path / "odd").write_text("IQ== 0\nnot base64\n")
    (tmp_path / "few").write_text("IQ== 0\n")
    for config, match in [
        (TiktokenFile(ranks), r"272 ranks.*--config\.data\.tokenizer\.encoding=cl100k_base"),
        (TiktokenFile(str(tmp_path / "none")), "none"),
        (TiktokenFile(str(tmp_path / "odd")), "line 2"),
        (TiktokenFile(str(tmp_path / "few"), "gpt2"), "255 bytes"),
        (TiktokenFile(ranks, "gpt2", eos_token="<nowhere>"), "<nowhere>"),
    ]:
        with pytest.raises(UserError, match=match) as caught:
            build(config)
        assert "\n" not in str(caught.value)
    for kind, path in (
        (HuggingFaceTokenizer, ranks),
        (TiktokenFile, t5),
        (SentencePieceFile, ranks),
    ):  # of another kind: the error says which
        with pytest.raises(UserError, match=f"--config.data.tokenizer={'tiktoken' if path == ranks else 'sentencepiece_file'}$"):
            build(kind(path))
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    for kind in (TiktokenFile, SentencePieceFile):
        with pytest.raises(UserError, match=r"--config\.data\.tokenizer=huggingface$"):
            build(kind(str(tmp_path / "tokenizer.json")))
    with pytest.raises(UserError, match="character 1"):
        utf8("a\ud800")
    assert np.array_equal(read_ranks(ranks).encode_batch(["a", "b"])[1], read_ranks(ranks).encode("b"))
