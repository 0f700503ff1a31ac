"""The oracle of synthetic text: the least loss that runs on it can reach, exactly (imports no jax until it is measured).

A word chain (lm.data.corpora.word_chain) has a reader who knows it: no model predicts its text better. That reader's mean loss over the
documents that a study's runs are judged by is the E of L = E + A / N^alpha + B / D^beta, if that law holds.

    document   wk eqlxdogl dc .         the first word is predicted from pi, the others from the word `lag` places before, the end from
    windows    wk eqlxdogl dc .         the mean length: all that a model can know, for every scored byte has the start of its document
                     xdogl dc .         or some bytes of context before it, and `require_context` sees to it that lag + 1 words fit in them

So strided windows cost nothing beside whole documents, and documents begin at a word.
"""

import pathlib
from typing import Any, Optional

import numpy as np

from lm.data.config import WordChain
from lm.data.store import digest
from lm.errors import UserError
from lm.scaling.results import decode, encode, result
from lm.study.rows import read_json
from lm.train.config import RunConfig

SCHEMA = 1


@result
class LeastLoss:
    """E_T, the least loss possible, in nats per byte; ends of documents count as nats and not as bytes, as in every loss here."""

    nats_per_byte: float  # E_T: the oracle's mean loss over the final evaluation's documents
    expected: float  # of documents like these, in closed form
    rate: float  # h, of endless text
    documents: int
    bytes: int
    exponent: float  # s, Zipf's

    @property
    def ideal_alpha(self) -> float:
        """The exponent of N of a learner that holds the N most frequent words: the mass of the others falls as N^-(s - 1)."""
        return self.exponent - 1

    @property
    def ideal_beta(self) -> float:
        """The exponent of D of a learner that knows the words it has seen: the mass of the others falls as D^-((s - 1) / s)."""
        return (self.exponent - 1) / self.exponent


def chain_of(config: RunConfig) -> Optional[WordChain]:
    """Returns the word chain that a configuration reads; None where it reads other text, or other text too."""
    components = config.data.components
    is_chain = len(components) == 1 and components[0].corpus == "word_chain" and config.likelihood == "text"
    return (components[0].chain or WordChain()) if is_chain else None


def least_loss(config: RunConfig, root: pathlib.Path) -> Optional[LeastLoss]:
    """Returns the least loss of a study in `root`, measured on the first call and kept in oracle.json; None where it is not known."""
    chain = chain_of(config)
    if chain is None:
        return None
    from lm import files

    study, path = read_json(root / "study.json", f"{root} holds no study"), root / "oracle.json"
    key = digest("oracle", SCHEMA, study["fingerprint"], study["definition"]["base"]["evaluation"])
    stored = read_json(path, "") if path.exists() else {}
    if stored.get("key") != key:
        stored = {"key": key, "least_loss": encode(measure(config, chain, str(root / study["data_dir"])))}
        files.write_json(path, stored)
    return decode(stored["least_loss"])


def measure(config: RunConfig, chain: WordChain, data_dir: str) -> LeastLoss:
    """Measures the oracle's loss over the documents of the final evaluation, in prepared data."""
    from lm.data import pipeline
    from lm.data.corpora import word_chain
    from lm.data.corpora.word_entropy import Oracle
    from lm.evals.loss import choose

    require_context(config, chain)
    held = pipeline.prepare(config.data, data_dir).validation
    oracle, split = Oracle(chain), word_chain.prepare(chain).split("validation")
    chosen = choose(np.asarray(held.byte_counts), config.evaluation.documents_bytes, config.evaluation.longest_document)
    nats = sum(oracle.document(words) for words in split.words(held.index_of[chosen].tolist()))
    size, closed = int(held.byte_counts[chosen].sum()), oracle.entropy
    return LeastLoss(nats / size, closed.documents, closed.rate, len(chosen), size, chain.exponent)


def require_context(config: RunConfig, chain: WordChain) -> None:
    """Raises UserError where a scored byte may lack what predicts it: the word `lag` places before, and where that begins."""
    from lm.data.corpora.word_chain import Language

    context = config.data.sequence_length - config.evaluation.stride  # a token is a byte or more
    needed = (chain.lag + 1) * (Language(chain).longest + 1)
    if context < needed:
        at_most = config.data.sequence_length - needed
        lower = f"set --config.evaluation.stride={at_most}" if at_most > 0 else f"raise --config.data.sequence_length above {needed}"
        raise UserError(f"windows keep {context} tokens of context, and a reader of this word chain needs up to {needed} bytes: {lower}")


def ideal(least: LeastLoss) -> dict[str, Any]:
    """Returns the exponents of ideal learners by name."""
    return {"alpha": least.ideal_alpha, "beta": least.ideal_beta}
