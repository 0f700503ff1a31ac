import numpy as np
import pytest
from fake_corpus import Corpus, corpus, quiet

from lm.data import tokens
from lm.data.corpora.faults import Faults
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


def test_documents_with_unknown_ids_are_left_out_and_counted_where_the_policy_says_so(tmp_path):
    texts, said = list(corpus().split("train")), []
    bad = {3, 30}

    class Partly(Strange):
        def encode(self, text):
            return super().encode(text) if text in {texts[i] for i in bad} else Bytes.encode(self, text)

    with pytest.raises(UserError, match=r"document 3 .*unusable=skip"):
        tokens.prepare(corpus(), "train", Partly(259), str(tmp_path), quiet, Faults())
    cache = tokens.prepare(corpus(), "train", Partly(259), str(tmp_path), said.append, Faults(skip=True))
    sound = tokens.prepare(Corpus([text for i, text in enumerate(texts) if i not in bad]), "train", Bytes(), str(tmp_path / "2"), quiet)
    assert (cache.flat[0 : len(cache.flat)] == sound.flat[0 : len(sound.flat)]).all()
    assert (cache.starts == sound.starts).all()
    assert (cache.byte_counts == sound.byte_counts).all()
    assert any("2 documents" in line for line in said)
    with pytest.raises(UserError, match=r"2 of 40 .*unusable=skip"):  # what another run has left out is not used in silence
        tokens.prepare(corpus(), "train", Partly(259), str(tmp_path), quiet, Faults())
    policy, parts = Faults(skip=True), []  # processes that share the work get the same one
    for part in ((0, 20, 1), (20, 40, 1)):
        (tmp_path / f"{part[0]}").mkdir()
        parts.append(tokens.write_part(corpus(), "train", Partly(259), policy, 100, part, str(tmp_path / f"{part[0]}")))
    assert [(each["documents"], each["left_out"]) for each in parts] == [(19, 1), (19, 1)]
    bad |= set(range(10, 14))
    with pytest.raises(UserError, match="6 of 40"):
        tokens.prepare(corpus(), "train", Partly(259), str(tmp_path / "3"), quiet, Faults(skip=True))
    assert list((tmp_path / "3" / "tokens").iterdir()) == []


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
