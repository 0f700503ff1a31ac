"""The ids that tokenizers have of their own: text never yields them, and objectives use them."""

import json

import numpy as np
import pytest
from fake_corpus import Corpus, quiet
from objective_cases import EOS, chunks, config, draws, packed_rows, prepared
from tokenizers import Tokenizer

from lm.data import own_ids, pipeline, tokenizer
from lm.data.config import ByteTokenizer, DataConfig, HuggingFaceTokenizer
from lm.data.objectives import config as C
from lm.data.objectives.base import SpecialIds
from lm.data.objectives.ragged import Ragged
from lm.data.own_ids import OwnIds
from lm.data.tokenizer import Bytes
from lm.errors import UserError
from lm.infer.prompts import prompt_ids

LETTERS = list("abcdefghijklmnopqrstuvwxyz</>_019 []CLSEP")
EXTRA = [f"<extra_id_{i}>" for i in reversed(range(12))]


def added(names, ids, special=True):
    common = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return [{"id": i, "content": name, **common} for name, i in zip(names, ids, strict=True)]


def file(path, model, special, ordinary=(), post=None, **more):
    """Writes a tokenizer.json whose special and ordinary added tokens are (name, id)."""
    tokens = added(*zip(*special, strict=True)) + (added(*zip(*ordinary, strict=True), special=False) if ordinary else [])
    whole = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None, "decoder": {"type": "Fuse"}}
    path.write_text(
        json.dumps({**whole, "added_tokens": sorted(tokens, key=lambda t: t["id"]), "post_processor": post, "model": model, **more})
    )
    return path


def unigram(path):
    """A file like T5's: its special tokens are pieces of the model, with the best score of all."""
    names = ["<pad>", "</s>", "<unk>", *LETTERS, *EXTRA]
    scores = [0.0] * 3 + [-3.0 - i / 50 for i in range(len(LETTERS))] + [0.0] * 12
    model = {"type": "Unigram", "unk_id": 2, "vocab": list(map(list, zip(names, scores, strict=True))), "byte_fallback": False}
    special = [(name, i) for i, name in enumerate(names) if name not in LETTERS]
    return file(path, model, special)


def words(path):
    """A file of whole words, whose special tokens are words."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    model = {"type": "WordLevel", "vocab": {name: i for i, name in enumerate(names)}, "unk_token": "[UNK]"}
    return file(path, model, [(name, i) for i, name in enumerate(names[:5])], pre_tokenizer={"type": "WhitespaceSplit"})


def merges(path):
    """A file whose merges make a special token, and whose signs for a middle are not called special, as Qwen's are not."""
    names = ["<", "e", ">", "|", "p", "<e", "<e>", "pe", "</s>"]
    signs = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    vocabulary = {name: i for i, name in enumerate(names)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": ["< e", "<e >", "p e"], "unk_token": None}
    return file(path, model, [("<e>", 6), ("</s>", 8)], [(name, 9 + i) for i, name in enumerate(signs)])


def read(path, **fields):
    return tokenizer.build(HuggingFaceTokenizer(path=str(path), **fields), [], "", quiet)


@pytest.mark.parametrize("make", [unigram, words, merges])
def test_no_text_yields_a_reserved_id(make, tmp_path):
    """T5's </s> is special and an ordinary piece, and the library's option for special tokens leaves pieces alone."""
    path = make(tmp_path / "tokenizer.json")
    mine, theirs = read(path), Tokenizer.from_file(str(path))
    reserved = {t["content"]: t["id"] for t in json.loads(path.read_text())["added_tokens"]}
    unknown = {mine.unk_id} - {None}
    for name in reserved:
        for text in (name, f"a {name} b", name * 2, f"a{name}b"):
            assert not (set(mine.encode(text).tolist()) - unknown) & set(reserved.values()), text
    assert mine.vocab_size == theirs.get_vocab_size()
    for text in ("a b", "ee pep p", "<<>", "</p", ""):
        assert mine.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids
    for name, i in reserved.items():
        hidden = i in {mine.eos_id, mine.pad_id, mine.mask_id, mine.start_id, *mine.own.ends}
        assert mine.decode([i]) == ("" if hidden else name)


@pytest.mark.parametrize("make", [unigram, words, merges])
def test_padding_and_truncation_of_a_file_do_not_change_tokens(make, tmp_path):
    """Files of fine-tuned models often keep both, and texts of a batch would be filled up or cut."""
    path = make(tmp_path / "tokenizer.json")
    plain, content = read(path), json.loads(path.read_text())
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0, "pad_token": "<"}
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps({**content, "padding": padding, "truncation": truncation}))
    texts = ["a b e p a b", "e", ""]
    assert [ids.tolist() for ids in read(path).encode_batch(texts)] == [ids.tolist() for ids in plain.encode_batch(texts)]


def test_files_whose_text_yields_no_reserved_id_keep_their_fingerprint(tmp_path):
    model = {"type": "BPE", "vocab": {"a": 0, "</s>": 1}, "merges": []}
    path = file(tmp_path / "plain.json", model, [("</s>", 1)])
    assert read(path).fingerprint == tokenizer.digest("huggingface", path.read_bytes(), None)
    for make in (unigram, words, merges):  # their text or the ids that objectives use are not what they were
        path = make(tmp_path / "other.json")
        assert read(path).fingerprint != tokenizer.digest("huggingface", path.read_bytes(), None)


def test_an_end_that_is_named_and_not_special_stays_out_of_text(tmp_path):
    model = {"type": "BPE", "vocab": {"<": 0, "e": 1, ">": 2, "</s>": 3}, "merges": []}
    path = file(tmp_path / "plain.json", model, [("</s>", 3)], [("<e>", 4)])
    ordinary, end = read(path), read(path, eos_token="<e>")
    assert (ordinary.encode("<e>").tolist(), end.encode("<e>").tolist(), end.eos_id) == ([4], [0, 1, 2], 4)


def test_own_ids_are_found_by_their_spellings(tmp_path):
    own = read(unigram(tmp_path / "tokenizer.json")).own
    assert own == OwnIds(sentinels=tuple(range(3 + len(LETTERS) + 11, 2 + len(LETTERS), -1)))
    assert read(words(tmp_path / "tokenizer.json")).own == OwnIds(mask=4, ends=(2, 3))
    assert read(merges(tmp_path / "tokenizer.json")).own == OwnIds(middle=(9, 10, 11))
    roberta = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False}
    model = {"type": "BPE", "vocab": {"<s>": 0, "<pad>": 1, "</s>": 2, "a": 3, "<mask>": 4}, "merges": []}
    special = [("<s>", 0), ("<pad>", 1), ("</s>", 2), ("<mask>", 4)]
    assert read(file(tmp_path / "roberta.json", model, special, post=roberta)).own == OwnIds(mask=4, ends=(0, 2))
    assert own_ids.find({"<extra_id_0>": 5, "<extra_id_2>": 6}, None, ((), ())).sentinels == ()  # a numbering with holes
    for own in (OwnIds(), OwnIds(None, (1, 2), (9, 8), (5, 6, 7)), OwnIds(mask=2)):
        kept = own.recorded()
        assert json.loads(json.dumps(kept)) == kept  # else the index of a data set would be written again by each run
        assert own_ids.from_record(kept) == (own if kept else OwnIds(mask=0))
    assert not kept  # a mask alone, as the tokenizers trained here have


OWN = OwnIds(mask=300, ends=(301, 302), sentinels=tuple(range(340, 310, -1)), middle=(305, 304, 303))


class Owning(Bytes):
    """Bytes, and special tokens above them."""

    vocab_size = 341
    mask_id = OWN.mask

    def __init__(self):
        super().__init__()
        self.own = OWN


OBJECTIVES = [
    (C.SpanCorruption(), "encoder_decoder", OWN.sentinels),
    (C.Denoising(examples_per_row=4), "decoder", OWN.sentinels),
    (C.MixtureOfDenoisers(examples_per_row=4, mode_tokens=False), "prefix_lm", OWN.sentinels),
    (C.MaskedLM(replace_by_random=0.0), "encoder", (*OWN.ends, OWN.mask)),
    (C.BartNoise(), "encoder_decoder", (OWN.mask,)),
    (C.BartNoise(opened=True), "encoder_decoder", (OWN.ends[0], OWN.mask)),
    (C.FillInTheMiddle(rate=1.0), "decoder", OWN.middle),
]


@pytest.mark.parametrize(("objective", "architecture", "own"), OBJECTIVES, ids=lambda value: getattr(value, "name", None))
def test_objectives_use_the_tokenizers_own_ids_and_need_no_others(objective, architecture, own):
    special = SpecialIds(Owning(), objective, 512)
    assert objective.vocabulary(special.tokenizer) == Owning.vocab_size
    batch = objective.row_maker(64, architecture, special)(packed_rows(prepared(config(objective)), range(8)))
    stream = batch.tokens if batch.encoder_tokens is None else batch.encoder_tokens
    seen = {i for i in np.unique(stream).tolist() if i > 258 and i in {*OWN.sentinels, *OWN.ends, *OWN.middle, OWN.mask}}
    assert seen
    assert seen <= {*own}
    assert seen >= {*own[:2]}
    assert max(stream.max(), batch.targets.max()) < Owning.vocab_size


def test_opened_texts_are_the_others_after_the_tokenizers_own_sign():
    """The streams of facebook/bart: <s> text </s> for the encoder and as targets, which a decoder reads after its start id."""
    tokenizer, keys = Owning(), draws(20)
    text = chunks([60] * 20)
    noises = [C.BartNoise(opened=opened) for opened in (False, True)]
    streams = [noise.pairs(text, keys, SpecialIds(tokenizer, noise, 512), np.arange(20)) for noise in noises]
    for plain, opened in zip(*streams, strict=True):
        for i in range(20):
            assert opened[i].tolist() == [OWN.ends[0], *plain[i].tolist()]
    shapes = [C.BartNoise(opened=opened, examples_per_row=4).row_shape(64, "encoder_decoder") for opened in (False, True)]
    assert (shapes[1].length - shapes[0].length, shapes[1].encoder_length - shapes[0].encoder_length) == (4, 4)

    pairs = C.Pairs(opened=True)
    made = pairs.tokenizer(tokenizer)
    documents = [np.append(part, EOS) for part in made.encode_batch(["ab\tc", "d\te"])]
    ragged = Ragged(np.concatenate(documents), np.asarray([len(part) for part in documents]))
    inputs, targets = pairs.pairs(ragged, draws(2), SpecialIds(made, pairs, 512), np.arange(2))
    a, b, c, d, e = (ord(letter) + 3 for letter in "abcde")
    assert inputs.values.tolist() == [301, a, b, EOS, 301, d, EOS]
    assert targets.values.tolist() == [301, c, EOS, 301, e, EOS]
    special = SpecialIds(made, pairs, 512)
    assert prompt_ids("ab", special, "encoder_decoder") == [301, a, b, EOS]
    assert prompt_ids("ab\tc", special, "encoder_decoder") == [301, a, b, made.separator_id, 301, c, EOS]
    assert made.fingerprint != C.Pairs().tokenizer(tokenizer).fingerprint
    for objective in (C.BartNoise(opened=True), pairs):
        with pytest.raises(UserError, match=r"opened=false"):
            objective.require_vocabulary(Bytes(), 512, 64)


def test_modes_take_the_top_where_sentinels_do_not():
    special = SpecialIds(Owning(), C.MixtureOfDenoisers(), 512)
    assert special.objective.mode_ids(np.arange(3), special).tolist() == [511, 510, 509]
    assert C.MixtureOfDenoisers().vocabulary(special.tokenizer) == 344


def test_too_few_own_sentinels_are_refused_and_never_wrap_round():
    objective = C.SpanCorruption()  # 64 spans of 1,280 tokens
    with pytest.raises(UserError, match=r"64 .*30.*examples_per_row=2"):
        objective.require_vocabulary(Owning(), 512, 1280)
    objective.require_vocabulary(Owning(), 341, 512)
    special = SpecialIds(Owning(), C.Denoising(noise_density=0.5), 512)
    _, targets = special.objective.pairs(chunks([400]), draws(1), special, np.zeros(1, np.int64))
    used = [i for i in targets.values.tolist() if i in OWN.sentinels]
    assert used == list(OWN.sentinels)


def test_byt5_sentinels_are_the_last_bytes():
    bytes_ = tokenizer.build(ByteTokenizer(sentinels=100), [], "", quiet)
    assert bytes_.own.sentinels[:3] == (258, 257, 256)  # ByT5's, in transformers' documentation
    assert (len(bytes_.own.sentinels), bytes_.vocab_size, Bytes().fingerprint) == (100, 259, "bytes3")
    assert bytes_.decode([258, *bytes_.encode("é 𝄞"), 257]) == "<extra_id_0>é 𝄞<extra_id_1>"
    assert C.SpanCorruption().vocabulary(bytes_) == 259
    with pytest.raises(UserError, match="sentinels"):
        Bytes(300)


def test_counts_of_prepared_data_say_which_ids_are_the_tokenizers_own(tmp_path):
    """So that a plan, which has no tokenizer, counts as training does."""
    path = unigram(tmp_path / "tokenizer.json")
    corpus = Corpus(["".join(np.random.default_rng(i).choice(LETTERS, 200)) for i in range(20)])
    data = DataConfig(tokenizer=HuggingFaceTokenizer(path=str(path)), sequence_length=16, objective=C.SpanCorruption())
    found = pipeline.build(data, [corpus], str(tmp_path), quiet)
    assert own_ids.from_record(found.info["tokenizer"]) == found.tokenizer.own
    plain = pipeline.build(config(C.SpanCorruption()), [corpus], str(tmp_path), quiet)
    assert "own" not in plain.info["tokenizer"]
    no_mask = OwnIds()  # as GPT-2's: a plan counts the mask that BART's noise needs
    assert C.BartNoise().special_ids(own_ids.from_record(no_mask.recorded())) == C.BartNoise().special_ids(no_mask) == 1
