"""The facts about a prepared data set, read without its text (imports neither jax nor grain, so that `plan` answers at once)."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from lm.data import corpora, tokens
from lm.data.config import Component, DataConfig
from lm.data.mixture import Mixture, Source, shares
from lm.data.round_trip import share_of
from lm.data.store import digest, read_json

RECIPE = 2  # of the counts: those that an earlier version wrote are made again, from tokens that stay


def index_path(config: DataConfig, data_dir: str) -> str:
    """Returns the path of a data set's counts, which depend on the text and its tokenizer and not on the packing of tokens into rows."""
    components = [dataclasses.asdict(component) for component in config.components]
    default = Component()
    for component in components:
        for name in component.keys() - {"corpus", "paths", "weight"}:  # which not all corpora have
            if component[name] == getattr(default, name):
                del component[name]
    tokenizer = {"name": config.tokenizer.name, **dataclasses.asdict(config.tokenizer)}
    tokenizer.pop("start_token", None)  # rows begin with it, and documents have no such token
    if not tokenizer.get("sentinels"):  # without which bytes are what they were before they could have any
        tokenizer.pop("sentinels", None)
    return os.path.join(data_dir, "prepared", digest("prepared", 1, components, tokenizer, *config.objective.token_key) + ".json")


def info(config: DataConfig, data_dir: str) -> Optional[dict[str, Any]]:
    """Returns the counts of a data set, or None if it is not prepared yet, or was by a version that prepares it otherwise.

    `fingerprint`; `tokenizer` (name, vocab_size, fingerprint); `documents`, `tokens`, `bytes` per split (tokens count the ends of
    documents); `components` (corpus, weight, fingerprint, the corpus's own info); `lost_bytes`, the share of each split's bytes that
    decoding its tokens does not give back (None: not measured, which `pipeline.prepare` does); and for this packing `rows_per_epoch` and
    `tokens_per_epoch`, which a run may train on without seeing a token twice.
    Raises UserError if the data set cannot be used as configured.
    """
    index = read_json(index_path(config, data_dir))
    if index is None or index.get("recipe") != RECIPE or any(_is_old(component) for component in index["components"]):
        return None
    made = [each["tokens"] for each in index["components"]]
    directories = {split: [os.path.join(data_dir, "tokens", each[split]) for each in made] for split in ("train", "validation")}
    if not all(os.path.isdir(directory) for each in directories.values() for directory in each):
        return None
    caches = {split: [tokens.open_cache(directory, verify=False) for directory in each] for split, each in directories.items()}
    fingerprints = [each["fingerprint"] for each in index["components"]]
    sources = [Source(*each) for each in zip(caches["train"], fingerprints, shares(config), strict=True)]
    return with_rows(index, Mixture(sources, config), caches)


def is_known(config: DataConfig, data_dir: str) -> bool:
    """Returns whether some version has prepared the data set in this directory."""
    return read_json(index_path(config, data_dir)) is not None


def _is_old(component: Mapping[str, Any]) -> bool:
    """Returns whether a corpus was made by a recipe that is another by now, so that training would make it anew."""
    then, now = component["info"].get("version"), corpora.version(component["corpus"])
    return None not in (then, now) and then != now


def with_rows(index: dict[str, Any], mixture: Mixture, caches: Mapping[str, Sequence[tokens.TokenCache]]) -> dict[str, Any]:
    """Adds the rows and tokens of an epoch of a mixture, and the shares of bytes that tokens lose, to the counts."""
    records = {split: [cache.round_trip for cache in each] for split, each in caches.items()}
    lost = {split: None if None in each else share_of([record for record in each if record]) for split, each in records.items()}
    return {**index, "rows_per_epoch": mixture.rows_per_epoch, "tokens_per_epoch": mixture.tokens_per_epoch, "lost_bytes": lost}
