"""Every objective under every architecture that it trains, and small inputs for the transforms."""

import dataclasses
import functools
import os
import tempfile
import typing

import numpy as np
from fake_corpus import Corpus, corpus, quiet, text

from lm.data import pipeline
from lm.data.config import DataConfig
from lm.data.objectives import config as C
from lm.data.objectives.base import SpecialIds
from lm.data.objectives.draws import Draws, row_keys
from lm.data.objectives.examples import PackedRows
from lm.data.objectives.ragged import Ragged
from lm.data.stream import TrainStream
from lm.data.tokenizer import Bytes

VOCABULARY = 384
EOS = Bytes.eos_id


def ids(objective, vocab_size=VOCABULARY):
    return SpecialIds(Bytes(), objective, vocab_size)


def chunks(lengths, seed=0):
    """Random text of bytes: ids 3..258, no special one."""
    lengths = np.asarray(lengths, np.int64)
    return Ragged(np.random.default_rng(seed).integers(3, 259, lengths.sum()), lengths)


def draws(n, seed=0):
    return Draws(np.random.default_rng(seed).integers(0, 1 << 63, n, dtype=np.uint64))


def fields(objective):
    return {field.name for field in dataclasses.fields(objective)}


def product():
    """Every (objective, architecture), with a row of one chunk, of several, of isolated documents, and with loss on the inputs."""
    for kind in typing.get_args(C.Objective):
        options = [{}]
        if "examples_per_row" in fields(kind):
            options.append({"examples_per_row": 4})
        if "documents" in fields(kind):
            options.append({"examples_per_row": 2, "documents": "isolated"})
        for number, each in enumerate(options):
            for architecture in kind.architectures:
                yield number, kind(**each), architecture
                if architecture == "decoder" and "loss_on_inputs" in fields(kind):
                    yield number, kind(**each, loss_on_inputs=True), architecture


def variants():
    """A cover of `product` in which every two of objective, architecture, options and loss meet (OBJECTIVES=all: all of it)."""
    kinds, chosen = typing.get_args(C.Objective), []
    for number, objective, architecture in product():
        column = 1 if objective.loss_on_inputs else ("decoder", "prefix_lm", "encoder_decoder", "encoder").index(architecture)
        alone = len(objective.architectures) == 1 or "documents" not in fields(objective)
        if alone or number == (kinds.index(type(objective)) + column) % 3 or os.environ.get("OBJECTIVES") == "all":
            chosen.append((objective, architecture))
    return [
        *chosen,
        (C.MaskedLM(next_sentence=False), "encoder"),
        (C.BartNoise(deletion=0.1, rotation=0.5, infilling=0.0), "encoder_decoder"),
    ]


def label(case):
    objective, architecture = case
    changed = [f"{f.name}={getattr(objective, f.name)}" for f in dataclasses.fields(objective) if getattr(objective, f.name) != f.default]
    return "-".join([objective.name, architecture, *changed])


def config(objective, length=64, packing="concatenate"):
    """Given pairs are always packed whole."""
    packing = "best_fit" if isinstance(objective, C.Pairs) else packing
    return DataConfig(sequence_length=length, objective=objective, allow_epochs=True, packing=packing)


DIRECTORY = tempfile.TemporaryDirectory()  # of all tests of a process: text is made into tokens once


@functools.cache
def prepared(data_config, documents=150):
    if isinstance(data_config.objective, C.Pairs):
        train = [f"{text(4, i)} {i}\t{text(3, -i)}" for i in range(documents)]
        source = Corpus(train, [f"{text(4, i)}\t{text(3, -i)}" for i in range(40)], fingerprint=f"pairs {documents}")
    else:
        train = list(corpus(documents).split("train"))
        source = Corpus(train, [text(40, -i) for i in range(40)], fingerprint=f"fake {documents}")
    return pipeline.build(data_config, [source], DIRECTORY.name, quiet)


def stream(case, batch_size=4, seed=0, packing="concatenate", **process):
    objective, architecture = case
    data_config = config(objective, packing=packing)
    return TrainStream(prepared(data_config), data_config, batch_size, seed, architecture=architecture, vocab_size=VOCABULARY, **process)


def packed_rows(data, rows, seed=0):
    """Some rows of the first epoch's plan of a data set of one corpus."""
    rows, (source,) = np.asarray(rows), data.mixture.sources
    return PackedRows(source.cache.flat, data.mixture.plan(0, seed, 0), rows, row_keys("rows", seed, np.zeros_like(rows), rows))


def pairs_of(objective, text, keys, vocab_size=VOCABULARY):
    """Returns (inputs, targets) of chunks that lie in a row each."""
    return objective.pairs(text, keys, ids(objective, vocab_size), np.arange(len(text)))
