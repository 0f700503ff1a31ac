import json
import os
from pathlib import Path

import numpy as np
import pytest
from fake_corpus import Corpus, quiet, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm.data import tokenizer
from lm.data.config import ByteTokenizer, HuggingFaceTokenizer, SentencePieceFile, SentencePieceTokenizer
from lm.errors import UserError

BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
SPECIAL = [
    "<pad>",
    "<unk>",
    "</s>",
    "<s>",
    "<mask>",
    "\u2581",
    "\ue000",
    "\ue000s",
    "\ue000e",
    "\u2047",
    " \u2047 ",
    "\u2585",
    "\x00",
    *BYTE_PIECES,
]
CODE = Path(tokenizer.__file__).read_text() * 3
TRAINING = [
    text(200, seed) + CODE[300 * seed : 300 * seed + 3000] + " ".join(SPECIAL) + "</s></s>\n\t\r\n    \u2581 <pad><mask>" * 20
    for seed in range(30)
]
SETTINGS = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

anything = st.one_of(
    # all of Unicode but lone surrogates, which no UTF-8 text has
    st.lists(st.integers(0, 0x10F7FF).map(lambda i: chr(i if i < 0xD800 else i + 0x800))).map("".join),
    st.lists(st.one_of(st.sampled_from(SPECIAL), st.text(max_size=3), st.sampled_from([" ", "\n", "    ", "\t"]))).map("".join),
)


@pytest.fixture(scope="module")
def corpus():
    return Corpus(TRAINING)


@pytest.fixture(scope="module", params=["bytes", "bpe", "bpe without whitespace pieces", "unigram"])
def lossless(request, corpus, tmp_path_factory):
    configs = {
        "bytes": ByteTokenizer(),
        "bpe": SentencePieceTokenizer(vocab_size=400),
        "bpe without whitespace pieces": SentencePieceTokenizer(vocab_size=400, whitespace_pieces=False),
        "unigram": SentencePieceTokenizer(vocab_size=400, model_type="unigram"),
    }
    return tokenizer.build(configs[request.param], [corpus], str(tmp_path_factory.mktemp("data")), quiet)


@SETTINGS
@given(anything)
def test_text_comes_back_and_never_yields_a_control_id(lossless, written):
    ids = lossless.encode(written)
    assert ids.dtype == np.int32
    assert lossless.decode(ids) == written
    controls = {lossless.pad_id, lossless.eos_id, lossless.mask_id} | ({2} if lossless.name == "sentencepiece" else set())
    assert not controls & set(ids.tolist())
    assert ids.max(initial=0) < lossless.vocab_size


def test_every_special_spelling_is_text(lossless):
    for spelling in SPECIAL:
        for written in (spelling, spelling * 3, f"a {spelling} b"):
            ids = lossless.encode(written)
            assert lossless.decode(ids) == written
            assert not {lossless.pad_id, lossless.eos_id, lossless.mask_id} & set(ids.tolist())


def test_control_ids_decode_to_nothing(lossless):
    ids = lossless.encode("a b")
    assert lossless.decode([lossless.eos_id, *ids.tolist(), lossless.mask_id, lossless.eos_id, lossless.pad_id]) == "a b"


def test_a_batch_is_its_parts(lossless):
    texts = ["a  b", "", "\n\n", "漢字 \u2581"]
    for ids, one in zip(lossless.encode_batch(texts), texts, strict=True):
        np.testing.assert_array_equal(ids, lossless.encode(one))


def test_bad_ids_and_bad_text_are_user_errors(lossless):
    with pytest.raises(UserError, match=str(lossless.vocab_size)):
        lossless.decode([lossless.vocab_size])
    with pytest.raises(UserError, match="-1"):
        lossless.decode([-1])
    with pytest.raises(UserError, match="character 1"):
        lossless.encode("a\ud800")


def test_bytes_that_are_not_utf8_decode_to_replacement_signs():
    assert tokenizer.Bytes().decode([0xFF + 3, 0x61 + 3]) == "\ufffda"


def test_training_is_deterministic_and_cached(corpus, tmp_path):
    config = SentencePieceTokenizer(vocab_size=400)
    lines: list[str] = []
    one, two = (tokenizer.build(config, [corpus], str(tmp_path / name), lines.append) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert len(lines) == 2
    assert tokenizer.build(config, [corpus], str(tmp_path / "one"), lines.append).fingerprint == one.fingerprint
    assert len(lines) == 2  # the third was read, not trained
    assert one.vocab_size == 400
    other = tokenizer.build(config, [Corpus(TRAINING[:15], fingerprint="other")], str(tmp_path / "one"), lines.append)
    assert other.fingerprint != one.fingerprint


def test_a_model_that_was_trained_here_is_read_back_as_itself(corpus, tmp_path):
    """Runs that begin with the weights of one that trained it name its file, and have that run's tokens."""
    trained = tokenizer.build(SentencePieceTokenizer(vocab_size=400), [corpus], str(tmp_path), quiet)
    (path,) = tmp_path.glob("tokenizers/*/tokenizer.model")
    read = tokenizer.build(SentencePieceFile(path=str(path)), [], "", quiet)
    assert read.fingerprint == trained.fingerprint
    for written in SPECIAL:
        np.testing.assert_array_equal(read.encode(written), trained.encode(written))


def test_training_reads_no_more_than_its_share(tmp_path):
    corpora = [Corpus(TRAINING, fingerprint=name) for name in "ab"]
    size = len(TRAINING[0].encode())
    tokenizer.build(SentencePieceTokenizer(vocab_size=400, training_bytes=6 * size), corpora, str(tmp_path), quiet)
    assert all(1 <= corpus.split("train").reads <= 6 for corpus in corpora)


def test_a_vocabulary_the_corpus_cannot_fill_is_a_user_error(tmp_path):
    for size in (100, 30_000):
        with pytest.raises(UserError, match=r"data\.tokenizer\.vocab_size"):
            tokenizer.build(SentencePieceTokenizer(vocab_size=size), [Corpus(["abc abd"] * 3)], str(tmp_path), quiet)


def test_a_damaged_model_is_a_user_error(corpus, tmp_path):
    config = SentencePieceTokenizer(vocab_size=400)
    tokenizer.build(config, [corpus], str(tmp_path), quiet)
    (path,) = tmp_path.glob("tokenizers/*/tokenizer.model")
    path.write_bytes(path.read_bytes()[:-9] + b"012345678")
    with pytest.raises(UserError, match="tokenizers"):
        tokenizer.build(config, [corpus], str(tmp_path), quiet)
    os.remove(path)
    with pytest.raises(UserError, match="tokenizers"):
        tokenizer.build(config, [corpus], str(tmp_path), quiet)


@pytest.fixture
def tokenizer_json(tmp_path):
    import tokenizers

    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<pad>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator([text(300, 1)], trainer)
    path = tmp_path / "tokenizer.json"
    model.save(str(path))
    return path


def test_a_hugging_face_file_is_read(tokenizer_json, tmp_path):
    read = tokenizer.build(HuggingFaceTokenizer(path=str(tokenizer_json)), [], str(tmp_path), quiet)
    assert (read.eos_id, read.pad_id, read.mask_id, read.vocab_size) == (0, 1, None, 300)
    for written in ["<|endoftext|>", "a<pad>b", "漢字 \n    x", " lead", ""]:
        ids = read.encode(written)
        assert not {0, 1} & set(ids.tolist())
        assert read.decode(ids) == written
    assert read.decode([read.eos_id, *read.encode("x"), read.pad_id]) == "x"


def test_hugging_face_files_that_cannot_serve_are_user_errors(tokenizer_json, tmp_path):
    def build(**fields):
        return tokenizer.build(HuggingFaceTokenizer(**fields), [], str(tmp_path), quiet)

    with pytest.raises(UserError, match=r"none\.json"):
        build(path=str(tmp_path / "none.json"))
    with pytest.raises(UserError, match="<eot>"):
        build(path=str(tokenizer_json), eos_token="<eot>")
    content = json.loads(tokenizer_json.read_text())
    content["added_tokens"][0]["special"] = False
    (tmp_path / "plain.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"plain\.json"):
        build(path=str(tmp_path / "plain.json"))
    (tmp_path / "bad.json").write_bytes(b"\xff{")
    with pytest.raises(UserError, match=r"bad\.json"):
        build(path=str(tmp_path / "bad.json"))
