"""The ids of special tokens: which token ends a text, what an import keeps of them, and what an export writes."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from hf.checkpoints import GOLDEN, edited
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from lm import hf
from lm.data import rank_file
from lm.data import tokenizer as tokenizers_here
from lm.data.config import HuggingFaceTokenizer
from lm.data.objectives.base import SpecialIds
from lm.data.objectives.config import NextToken, SpanCorruption
from lm.data.tokenizer import Bytes
from lm.errors import UserError
from lm.hf.ids import of_source, to_write
from lm.hf.runs import export_run, import_run
from lm.infer.prompts import as_imported, prompt_ids, written
from lm.train import record

LETTERS = {letter: i for i, letter in enumerate("abcdefghij", 3)}


def tokenizer_of(folder, special, ordinary=(), template=None):
    """Writes a tokenizer.json of letters whose special tokens have the ids from 0."""
    vocabulary = dict(LETTERS) | {name: 13 + i for i, name in enumerate(ordinary)}
    made = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(special)} | vocabulary, merges=[]))
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    if template:
        made.post_processor = processors.TemplateProcessing(single=template, special_tokens=[(name, i) for i, name in enumerate(special)])
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    return folder


@functools.cache
def model_of(name):
    return hf.load(GOLDEN / name)


def built(folder, **fields):
    return tokenizers_here.build(HuggingFaceTokenizer(str(folder / "tokenizer.json"), **fields), [], "")


def test_an_ordinary_token_of_a_usual_name_ends_nothing(tmp_path):
    """BART's <|endoftext|> is such a token, and DeepSeek's <|eot_id|> ends a turn."""
    assert built(tokenizer_of(tmp_path / "bart", ["<s>", "<pad>", "</s>"], ["<|endoftext|>"])).eos_id == 2
    assert built(tokenizer_of(tmp_path / "deepseek", ["<|eot_id|>", "<x>", "<｜end▁of▁sentence｜>"])).eos_id == 2
    with pytest.raises(UserError, match=r"</s>.*eos_token|eos_token.*</s>"):  # Phi 3 has both, and nothing tells
        built(tokenizer_of(tmp_path / "phi", ["<s>", "<|endoftext|>", "</s>"]))


def test_files_beside_a_tokenizer_come_before_names(tmp_path):
    folder = tokenizer_of(tmp_path / "x", ["<a>", "<b>", "</s>"])
    named = built(folder)
    assert named.eos_id == 2
    assert "</s>" in named.eos_token  # said where documents are made into tokens
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<b>"}}))
    assert built(folder).eos_id == 1
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 1]}))
    assert built(folder).eos_id == 0
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 2}))
    assert (built(folder).eos_id, built(folder).fingerprint) == (2, named.fingerprint)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 2**40}))
    with pytest.raises(UserError, match=f"config.json.*{2**40}"):
        built(folder)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": -1}))
    assert built(folder).eos_id == 0
    assert built(folder).fingerprint != named.fingerprint  # it makes other tokens of a document
    assert built(folder, eos_token="<b>").eos_id == 1


def source(tmp_path, name, ids, generation=None, **kwargs):
    folder = tokenizer_of(edited(tmp_path, name, config=ids), kwargs.pop("special", ["<s>", "<e>", "</s>"]), **kwargs)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def test_several_ids_end_a_text_and_the_first_of_config_a_document(tmp_path):
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    folder = source(tmp_path, "llama", ids, {"eos_token_id": [2, 1], "top_p": 0.9})
    found = of_source(folder, model_of("llama")[0])
    assert (found.tokenizer.eos_token, found.tokenizer.start_token, found.stops, found.first) == ("<e>", "<s>", (1, 2), (0,))
    assert not any("disagree" in note for note in found.notes)
    only = of_source(folder, model_of("llama")[0], "</s>")
    assert (only.stops, only.config["eos_token_id"], only.generation["eos_token_id"]) == ((2,), 2, 2)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    apart = of_source(folder, model_of("llama")[0])
    assert apart.stops == (1, 2)
    assert any(all(word in note for word in ("disagree", "<e>", "</s>")) for note in apart.notes)
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | {"eos_token_id": 999}))
    beyond = of_source(folder, model_of("llama")[0])
    assert beyond.stops == (2,)
    assert any("999" in note for note in beyond.notes)


@pytest.mark.parametrize("generation", [None, {"eos_token_id": [1, 2], "bos_token_id": 0, "temperature": 0.6, "do_sample": True}])
def test_an_import_keeps_what_an_export_writes_back(tmp_path, generation):
    ids = {"bos_token_id": 0, "eos_token_id": [1, 2], "pad_token_id": 2}
    folder = source(tmp_path, "llama", ids, generation)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<e>"}))
    config = import_run(folder, tmp_path / "run")
    assert (config.data.tokenizer.eos_token, config.data.tokenizer.start_token) == ("<e>", "<s>")
    export_run(tmp_path / "run", tmp_path / "out")
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: values[key] for key in ids} == ids
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == (generation or ids)
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()) == {"eos_token": "<e>"}
    saved = record.read(tmp_path / "run")["imported"]["ids"]
    assert (saved["stops"], saved["first"]) == ([1, 2], [0])


def test_an_imported_model_begins_as_its_own_tokenizer_and_files_say(tmp_path):
    t5 = source(tmp_path, "t5", {"decoder_start_token_id": 0, "eos_token_id": 2}, template="$A </s>")
    model = model_of("t5")[0]
    ids = of_source(t5, model)
    assert (ids.first, ids.before, ids.after, ids.tokenizer.start_token) == ((0,), (), (2,), "<s>")
    read = SpecialIds(built(t5, eos_token="</s>", start_token="<s>"), SpanCorruption(), model.vocab_size)
    assert as_imported("ab", read, "encoder_decoder", ids.recorded()) == [3, 4, 2]
    special = ["<s>", "<e>", "</s>"]
    llama = tokenizer_of(edited(tmp_path / "l", "llama", config={"bos_token_id": 1, "eos_token_id": 2}), special, template="<s> $A")
    ids = of_source(llama, model_of("llama")[0])
    assert (ids.first, ids.before, ids.tokenizer.start_token) == ((0,), (0,), "<s>")  # what transformers' tokenizer puts before a prompt
    read = SpecialIds(built(llama, eos_token="</s>", start_token="<s>"), NextToken(), 19)
    assert as_imported("ab", read, "decoder", ids.recorded()) == prompt_ids("ab", read, "decoder") == [0, 3, 4]
    (llama / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": False}))  # which transformers 5 passes over
    assert of_source(llama, model_of("llama")[0]).before == (0,)
    tokenizer_of(llama, special, template="$A")
    bare = of_source(llama, model_of("llama")[0])
    assert (bare.before, bare.first, as_imported("ab", read, "decoder", bare.recorded())) == ((), (1,), [3, 4])
    tokenizer_of(llama, special)  # no template: the flag decides, or else config.json
    assert of_source(llama, model_of("llama")[0]).before == ()
    (llama / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, "bos_token": {"content": "<s>"}}))
    assert of_source(llama, model_of("llama")[0]).before == (0,)
    (llama / "tokenizer_config.json").unlink()
    assert of_source(llama, model_of("llama")[0]).before == (1,)
    bart = tokenizer_of(edited(tmp_path / "b", "bart", config={"forced_bos_token_id": 0}), ["<s>", "<pad>", "</s>"], template="<s> $A </s>")
    assert of_source(bart, model_of("bart")[0]).first == (2, 0)


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "llama", "bert"])
def test_a_model_trained_here_is_exported_with_its_ids(tmp_path, name):
    """transformers takes a family's usual ids for those that are not written: T5 would start at 0, and Llama end at 2."""
    config, params = model_of(name)
    hf.save(tmp_path / "out", config, params, ids=to_write(config, Bytes(), None))
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    expected = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    if name in ("t5", "bart"):
        expected["decoder_start_token_id"] = 1
        assert values["forced_eos_token_id"] is None
    assert {key: values[key] for key in expected} == expected
    generation = tmp_path / "out" / "generation_config.json"
    assert generation.exists() == (name != "bert")
    assert name == "bert" or json.loads(generation.read_text()) == expected
    assert hf.load(tmp_path / "out")[0] == config


def test_weights_that_another_tokenizer_trains_on_are_exported_with_its_ids():
    """The model that the weights came from ended a text with 2; bytes end one with their own id."""
    source = {"stops": [2], "config": {"eos_token_id": 2}, "generation": {"eos_token_id": 2}}
    config = model_of("llama")[0]
    assert to_write(config, Bytes(), source) == to_write(config, Bytes(), None)
    assert to_write(config, None, source)[0]["eos_token_id"] == 2


def test_an_end_of_document_that_pads(tmp_path):
    """Where decoders have no padding of their own, config.json names none: transformers would not train that row of the embedding."""
    read = built(tokenizer_of(tmp_path, ["</s>"]))
    assert read.pad_id == read.eos_id == 0
    own, generation = to_write(model_of("llama")[0], read, None)
    assert (own["pad_token_id"], generation["pad_token_id"]) == (None, 0)
    assert to_write(model_of("t5")[0], read, None)[0]["pad_token_id"] == 0


def test_the_space_between_prompt_and_continuation(tmp_path):
    """Tokenizers with a sign for the space before a word drop it where a text begins: Llama 2, Mistral, T5."""
    words = ["\u2581once", "\u2581upon", "\u2581a", "n"]
    made = Tokenizer(models.WordLevel({"</s>": 0, **{word: i for i, word in enumerate([*words, "?"], 1)}}, unk_token="?"))
    made.add_special_tokens(["</s>"])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.save(str(tmp_path / "tokenizer.json"))
    ids = SpecialIds(built(tmp_path), NextToken(), 9)
    prompt = ids.tokenizer.encode("once upon").tolist()
    assert prompt == [1, 2]
    assert written([3, 4], ids, prompt) == " an"
    assert written([3, 4], ids) == "an"
    assert written([4], ids, prompt) == "n"
    assert written([3, 8, 3], ids, prompt) == " a<0>a"
    assert written([], ids, prompt) == ""


def test_a_decoder_of_bytes_is_exported_with_a_tokenizer_of_the_same_ids():
    text, ours = "Ünder\u2581 <s></s><mask>\r\n\t  def f(x):\x00\U0001f600", Bytes()
    content = rank_file.bytes_as_tokenizer_json(3, {"<pad>": 0, "</s>": 1, "<mask>": 2})
    made = Tokenizer.from_str(content)
    made.encode_special_tokens = True
    ids = made.encode(text).ids
    assert ids == ours.encode(text).tolist()
    assert made.decode(ids, skip_special_tokens=False) == text
    assert [made.id_to_token(i) for i in (ours.pad_id, ours.eos_id, ours.mask_id)] == ["<pad>", "</s>", "<mask>"]


def test_byt5_is_read_and_written_with_bytes(tmp_path):
    """It has no tokenizer.json; its ids are those of our bytes, and its decoder begins with padding."""
    config, params = model_of("t5")
    config = dataclasses.replace(config, vocab_size=384)
    params = {**params, "embed": {"embedding": np.zeros((384, config.d_model), np.float32)}}
    ids = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    hf.save(tmp_path / "byt5", config, params, ids=(ids, {}))
    (tmp_path / "byt5" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125}))
    made = import_run(tmp_path / "byt5", tmp_path / "run")
    read = SpecialIds(tokenizers_here.build(made.data.tokenizer, [], ""), made.data.objective, 384)
    assert (read.start, read.eos, made.data.tokenizer.sentinels) == (0, 1, 100)
    recorded = record.read(tmp_path / "run")["imported"]["ids"]
    assert (recorded["stops"], recorded["first"]) == ([1], [0])
    assert as_imported("a", read, "encoder_decoder", recorded) == [ord("a") + 3, 1]
    export_run(tmp_path / "run", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()) == {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125}
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: values[key] for key in ids} == ids
