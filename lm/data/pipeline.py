"""Prepares the data set of a configuration: corpora, tokenizer, token caches and the mixture of their rows."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.data import tokens
from lm.data.config import DataConfig
from lm.data.info import RECIPE, index_path, with_rows
from lm.data.mixture import Mixture, Source, shares
from lm.data.store import digest, read_json, write_json
from lm.data.tokenizer import Log, Tokenizer
from lm.data.tokenizer import build as build_tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Documents:
    """Whole documents of one or several token caches, in a fixed order: `documents[i]` is int32 ids ending in the end of document.

    A prefix of the order is a fair sample: documents are shuffled, and corpora alternate by their shares of the tokens.
    """

    caches: tuple[tokens.TokenCache, ...]
    cache_of: np.ndarray  # int64 [documents]
    index_of: np.ndarray  # int64 [documents]
    lengths: np.ndarray  # tokens per document, with the end of document
    byte_counts: np.ndarray  # UTF-8 bytes per document

    def __len__(self) -> int:
        return len(self.index_of)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.caches[self.cache_of[i]][int(self.index_of[i])]


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A prepared data set."""

    tokenizer: Tokenizer
    fingerprint: str  # a hash of the text, its weights and its tokens
    info: dict[str, Any]  # see lm.data.info.info
    train: Documents  # those within the budget of unique tokens
    validation: Documents
    mixture: Mixture
    data_dir: str

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text per document token that training reads, the corpora weighted by their shares."""
        mixture = self.mixture
        each = [
            source.share * (int(source.cache.byte_counts[chosen].sum()) / int(source.cache.lengths[chosen].sum()))
            for source, chosen in zip(mixture.sources, mixture.documents, strict=True)
        ]
        return sum(each)


def prepare(config: DataConfig, data_dir: str, log: Log = print) -> Data:
    """Prepares corpora, tokenizer and token caches, or opens what an earlier call left; every artefact appears whole or not at all.

    Raises UserError on empty corpora, damaged caches, a directory that cannot be written, and budgets beyond the corpus.
    """
    return build(config, _corpora(config, data_dir, log), data_dir, log)


def write(config: DataConfig, data_dir: str, log: Log = print) -> dict[str, Any]:
    """Prepares the files of a data set as `prepare` does, and returns their counts; with little in memory, since no rows are laid out."""
    return _written(config, _corpora(config, data_dir, log), data_dir, log)[2]


def build(config: DataConfig, corpora: Sequence[Any], data_dir: str, log: Log = print) -> Data:
    """Prepares a data set from prepared corpora: `.fingerprint`, `.info`, `.split("train" | "validation")` with random access to text."""
    tokenizer, caches, index = _written(config, corpora, data_dir, log)
    train, validation = caches["train"], caches["validation"]
    weights, fingerprints = shares(config), [corpus.fingerprint for corpus in corpora]
    sources = [Source(*each) for each in zip(train, fingerprints, weights, strict=True)]
    held_out = [Source(*each) for each in zip(validation, fingerprints, weights, strict=True)]
    mixture = Mixture(sources, config)
    return Data(
        tokenizer,
        index["fingerprint"],
        with_rows(index, mixture, {"train": train, "validation": validation}),
        _documents(sources, mixture.documents),
        _documents(held_out, [source.order for source in held_out]),
        mixture,
        data_dir,
    )


def _corpora(config: DataConfig, data_dir: str, log: Log) -> list[Any]:
    from lm.data import corpora

    shares(config)
    prepared = []
    for index, component in enumerate(config.components):
        with corpora.of_component(index):
            prepared.append(corpora.prepare(component, data_dir, log))
    return prepared


def _written(
    config: DataConfig, corpora: Sequence[Any], data_dir: str, log: Log
) -> tuple[Tokenizer, dict[str, list[tokens.TokenCache]], dict[str, Any]]:
    """Prepares tokenizer and token caches, and writes the counts of the data set; returns all three."""
    from lm.data.corpora import faults_of, of_component

    faults = [faults_of(component) for component in config.components]
    unreadable = [functools.partial(policy.fresh().meet, tokens.UNREADABLE) for policy in faults]
    tokenizer = config.objective.tokenizer(build_tokenizer(config.tokenizer, corpora, data_dir, log, unreadable))
    caches: dict[str, list[tokens.TokenCache]] = {"train": [], "validation": []}
    for split, made in caches.items():
        for i, corpus in enumerate(corpora):
            with of_component(i):
                made.append(tokens.prepare(corpus, split, tokenizer, data_dir, log, faults[i]))
    index = _index(config, corpora, tokenizer, caches["train"], caches["validation"])
    path = index_path(config, data_dir)
    if read_json(path) != index:
        write_json(path, index)
    return tokenizer, caches, index


def of_split(config: DataConfig, corpus: Any, split: str, tokenizer: Tokenizer, data_dir: str, log: Log = print) -> Data:
    """Returns a data set of one split of one corpus, which is both of its splits. It is for evaluation: nothing is kept of its counts."""
    cache = tokens.prepare(corpus, split, tokenizer, data_dir, log)
    source = Source(cache, corpus.fingerprint, 1.0)
    mixture = Mixture([source], dataclasses.replace(config, unique_tokens=None, packing="best_fit"))  # rows of texts of any length
    documents = _documents([source], mixture.documents)
    return Data(tokenizer, cache.fingerprint, with_rows({}, mixture, {split: [cache]}), documents, documents, mixture, data_dir)


def _index(
    config: DataConfig,
    corpora: Sequence[Any],
    tokenizer: Tokenizer,
    train: Sequence[tokens.TokenCache],
    validation: Sequence[tokens.TokenCache],
) -> dict[str, Any]:
    splits = {"train": train, "validation": validation}
    return {
        "recipe": RECIPE,
        "fingerprint": digest("data", 1, [(cache.fingerprint, share) for cache, share in zip(train, shares(config), strict=True)]),
        "tokenizer": {
            "name": tokenizer.name,
            "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint,
            **tokenizer.own.recorded(),
        },
        "documents": {split: sum(len(cache) for cache in caches) for split, caches in splits.items()},
        "tokens": {split: sum(cache.num_tokens for cache in caches) for split, caches in splits.items()},
        "bytes": {split: sum(cache.num_bytes for cache in caches) for split, caches in splits.items()},
        "components": [
            {
                "corpus": component.corpus,
                "weight": component.weight,
                "fingerprint": corpus.fingerprint,
                "tokens": {split: caches[i].fingerprint for split, caches in splits.items()},
                "info": corpus.info,
            }
            for i, (component, corpus) in enumerate(zip(config.components, corpora, strict=True))
        ],
    }


def _documents(sources: Sequence[Source], chosen: Sequence[np.ndarray]) -> Documents:
    lengths = [source.cache.lengths[each] for source, each in zip(sources, chosen, strict=True)]
    # A document's turn comes when its corpus has used up its share of the tokens before it.
    turns = np.concatenate([(np.cumsum(each) - each) / source.share for source, each in zip(sources, lengths, strict=True)])
    order = np.argsort(turns, kind="stable")
    return Documents(
        tuple(source.cache for source in sources),
        np.repeat(np.arange(len(sources)), [len(each) for each in chosen])[order],
        np.concatenate(chosen)[order],
        np.concatenate(lengths)[order],
        np.concatenate([source.cache.byte_counts[each] for source, each in zip(sources, chosen, strict=True)])[order],
    )
