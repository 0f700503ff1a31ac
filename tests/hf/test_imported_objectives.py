"""Models that are imported train on: the rows and the special ids that their objectives make are those that the model knows."""

import dataclasses

import numpy as np
import pytest
from data.fake_corpus import Corpus
from hf.checkpoints import GOLDEN, edited
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from lm.data import pipeline
from lm.data.objectives.config import BartNoise, Pairs
from lm.data.stream import TrainStream
from lm.hf.runs import import_run
from lm.init_from import unopened
from lm.train import record
from lm.train.build import build


def with_bert_tokenizer(folder):
    """A WordPiece tokenizer of letters, with BERT's special tokens."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = list("abcdefghijklmn")
    tokenizer = Tokenizer(models.WordPiece(vocab={name: i for i, name in enumerate([*special, *letters])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("sentences", [True, False])
def test_an_imported_bert_trains_on(tmp_path, sentences):
    """Its rows have no more positions than the model, no id beyond its vocabulary, and its own [CLS], [SEP] and [MASK]."""
    heads = {} if sentences else {"cls.seq_relationship.weight": None, "cls.seq_relationship.bias": None}
    config = import_run(with_bert_tokenizer(edited(tmp_path, "bert", tensors=heads)), tmp_path / "run")
    assert config.data.objective.next_sentence == sentences
    assert config.data.sequence_length == config.model.max_length - (3 if sentences else 2)
    build(config)
    corpus = Corpus(["".join(np.random.default_rng(i).choice(list("abcdefghijklmn"), 60)) for i in range(8)])
    data = pipeline.build(config.data, [corpus], str(tmp_path / "data"), lambda line: None)
    batch = TrainStream(data, config.data, 32, 0, architecture="encoder", vocab_size=config.model.vocab_size)[0]
    assert batch.tokens.shape[1] == config.model.max_length
    assert set(batch.tokens[:, 0].tolist()) == {2}  # [CLS]
    assert (batch.tokens == 3).any(axis=1).all()  # [SEP]
    assert (batch.tokens == 4).any()  # [MASK]
    assert max(batch.tokens.max(), batch.targets.max()) < config.model.vocab_size


def test_an_imported_bart_gets_rows_that_its_positions_reach(tmp_path):
    config = import_run(GOLDEN / "bart", tmp_path / "run")
    build(config)


def with_bart_tokenizer(folder):
    """A tokenizer of letters, with BART's special tokens, which puts <s> before a text and </s> after it."""
    special = ["<s>", "<pad>", "</s>", "<mask>"]
    made = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate([*special, *"abcdefghijklmn"])}, merges=[]))
    made.add_special_tokens(special)
    made.decoder = decoders.Fuse()
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made.save(str(folder / "tokenizer.json"))
    return folder


def test_an_imported_bart_trains_on_texts_that_begin_as_its_own(tmp_path):
    """As facebook/bart was trained: <s> text </s> in both streams, and the decoder reads </s> before them."""
    config = import_run(with_bart_tokenizer(edited(tmp_path, "bart", config={"decoder_start_token_id": 2})), tmp_path / "run")
    assert config.data.objective == BartNoise(opened=True)
    corpus = Corpus(["".join(np.random.default_rng(i).choice(list("abcdefghijklmn"), 60)) for i in range(8)])
    data = pipeline.build(config.data, [corpus], str(tmp_path / "data"), lambda line: None)
    batch = TrainStream(data, config.data, 8, 0, architecture="encoder_decoder", vocab_size=config.model.vocab_size)[0]
    assert set(batch.encoder_tokens[:, 0].tolist()) == set(batch.targets[:, 0].tolist()) == {0}
    assert [set(column.tolist()) for column in batch.tokens[:, :2].T] == [{2}, {0}]
    ends = batch.targets[np.arange(8), (batch.weights > 0).sum(axis=1) - 1]
    assert set(ends.tolist()) == {2}
    assert (batch.encoder_tokens == 3).any()
    assert data.tokenizer.decode([0, 4, 5, 2]) == "ab"

    origin = record.origin(record.read(tmp_path / "run"))
    assert unopened(config, origin) == ""
    for opened in (False, True):
        other = dataclasses.replace(config, data=dataclasses.replace(config.data, objective=Pairs(opened=opened)))
        assert ("opened=true" in unopened(other, origin)) == (not opened)
