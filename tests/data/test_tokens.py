import numpy as np
import pytest
from fake_corpus import Corpus, corpus, quiet

from lm.data import tokens
from lm.data.tokenizer import Bytes
from lm.errors import UserError


def test_a_document_is_its_ids_and_an_end(tmp_path):
    texts = ["a b", "", "漢字\n", "x" * 3000]
    cache = tokens.prepare(Corpus(texts), "train", Bytes(), str(tmp_path), quiet)
    assert len(cache) == 4
    for i, text in enumerate(texts):
        assert cache[i].dtype == np.int32
        np.testing.assert_array_equal(cache[i], [*Bytes().encode(text), Bytes.eos_id])
    assert cache.byte_counts.tolist() == [len(text.encode()) for text in texts]
    assert cache.lengths.tolist() == [len(text.encode()) + 1 for text in texts]
    assert (cache.num_tokens, cache.num_bytes) == (cache.lengths.sum(), cache.byte_counts.sum())
    assert (cache.flat.take(cache.starts - 1) == Bytes.eos_id).all()  # before every document, the first included
    with pytest.raises(IndexError):
        cache[4]


def test_the_second_call_reads_no_text(tmp_path):
    text = corpus()
    first = tokens.prepare(text, "train", Bytes(), str(tmp_path), quiet)
    reads = text.split("train").reads
    second = tokens.prepare(text, "train", Bytes(), str(tmp_path), quiet)
    assert text.split("train").reads == reads == len(first)
    np.testing.assert_array_equal(first.flat[:], second.flat[:])


def test_documents_beyond_one_call_of_the_tokenizer_follow_in_order(tmp_path):
    calls = []

    class Counted(Bytes):
        def encode_batch(self, texts):
            calls.append(len(texts))
            return super().encode_batch(texts)

    texts = ["a" * 600_000, "b" * 600_000, "c", "d" * 1_200_000, "e", "f"]
    cache = tokens.prepare(Corpus(texts), "train", Counted(), str(tmp_path), quiet)
    assert calls == [2, 2, 2]
    for i, text in enumerate(texts):
        assert Bytes().decode(cache[i]) == text


@pytest.mark.parametrize("name", ["tokens.bin", "starts.npy", "bytes.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found(tmp_path, name, damage):
    cache = tokens.prepare(corpus(), "train", Bytes(), str(tmp_path), quiet)
    path = tmp_path / "tokens" / cache.fingerprint / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flip":
        content[len(content) // 2 if name != "meta.json" else 0] ^= 0x40
    if damage != "remove":
        path.write_bytes(content if damage == "flip" else content[:-3])
    with pytest.raises(UserError, match=cache.fingerprint):
        tokens.prepare(corpus(), "train", Bytes(), str(tmp_path), quiet)


class Strange(Bytes):
    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def encode(self, text):
        return np.append(super().encode(text), np.int32(self.extra))


@pytest.mark.parametrize(("extra", "message"), [(259, "259"), (-1, "259"), (1, "document 0")])
def test_ids_that_would_be_wrong_in_silence_stop_the_preparation(tmp_path, extra, message):
    with pytest.raises(UserError, match=message):
        tokens.prepare(corpus(), "train", Strange(extra), str(tmp_path), quiet)
    assert list((tmp_path / "tokens").iterdir()) == []  # nothing half written


def test_an_empty_split_and_a_closed_disk_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="train"):
        tokens.prepare(Corpus([]), "train", Bytes(), str(tmp_path), quiet)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="data_dir"):
        tokens.prepare(corpus(), "train", Bytes(), str(tmp_path / "file"), quiet)


def test_large_vocabularies_get_wider_ids(tmp_path):
    class Wide(Strange):
        vocab_size, fingerprint = 100_000, "wide"

    cache = tokens.prepare(corpus(documents=3), "train", Wide(99_999), str(tmp_path), quiet)
    assert cache.flat.dtype == np.uint32
    assert cache[0][-2] == 99_999
