"""Held-out likelihood of an objective's targets: nats per target token on fixed rows of the validation split.

It serves every architecture and objective but a decoder's next token. The rows are the first of the validation split under the objective
and a fixed seed (lm.data.held_out), so every architecture of one vocabulary scores the same pairs. A row's result does not depend on
its batch: the loss is the same whatever the batch size, the mesh and the packing of training.
"""

import dataclasses
import math
from typing import Any, Optional

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lm.data.held_out import held_out, held_out_rows
from lm.data.pipeline import Data
from lm.errors import UserError
from lm.evals.loss import ROWS, compile_score, in_calls, results
from lm.losses import label_logits, negative_log_likelihood
from lm.sharding import RULES
from lm.train.config import RunConfig
from lm.train.derived import layout_of
from lm.train.feed import put
from lm.types import Batch, Params


@dataclasses.dataclass(frozen=True, eq=False)
class _Subset:
    """Rows on the devices, in calls of equal size, with their counts."""

    calls: list[Batch]
    rows: int
    tokens: int
    entropy: float
    labels: int


class PairEvaluator:
    """Measures the likelihood of held-out targets, and of labels where the objective has them.

    `evaluate(params, "curve" | "final")` -> nats_per_token, unigram_nats_per_token, nats, tokens, rows, and with labels label_nats,
    label_accuracy, labels. `tokens` are targets, and unigram_nats_per_token is the entropy of their own frequencies: a model that knows
    these and ignores the inputs has this loss. label_nats and label_accuracy are means over labels. The two lists of rows hold about the
    two budgets of bytes of text, and no more rows than there are. It is called as lm.evals.loss.LossEvaluator is.
    """

    def __init__(self, config: RunConfig, model: Any, mesh: Mesh, data: Data, *, rows: Optional[int] = None):
        multiple = model.execution.rows_multiple(mesh)
        self._rows = math.ceil((rows or ROWS) / multiple) * multiple
        self._mesh, self._model, self._data = mesh, model, data
        self._sharding = NamedSharding(mesh, RULES.spec(("act_batch", None)))
        self._layout, self._vocab_size = layout_of(config.data), config.model.vocab_size
        self._architecture, self._dtype = config.model.architecture, jnp.dtype(config.compute_dtype)
        self._budgets = {"curve": config.evaluation.curve_bytes, "final": config.evaluation.documents_bytes}
        self._subsets: dict[str, _Subset] = {}
        self._score: Any = None

    def __call__(self, params: Params, which: str) -> dict[str, float]:
        subset = self._subset(which)
        if self._score is None:
            self._score = self._compile(subset.calls[0])
        found = results(self._score, params, subset.calls, self._mesh)
        nats, label_nats, correct = (sum(float(np.sum(part, dtype=np.float64)) for part in parts) for parts in zip(*found, strict=True))
        result = {"nats_per_token": nats / subset.tokens, "unigram_nats_per_token": subset.entropy, "nats": nats}
        result |= {"tokens": subset.tokens, "rows": subset.rows}
        if not subset.labels:
            return result
        return {**result, "label_nats": label_nats / subset.labels, "label_accuracy": correct / subset.labels, "labels": subset.labels}

    def _compile(self, call: Batch) -> Any:
        def score(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
            """Returns for each row the nats of its targets, the nats of its labels, and the number of right labels; each [rows]."""
            outputs = self._model.apply(params, batch.inputs, compute_dtype=self._dtype)
            nll_BP, _ = negative_log_likelihood(outputs.logits, batch.targets)
            nats_B = jnp.sum(jnp.where(batch.weights > 0, nll_BP, 0.0), axis=1)
            if batch.labels is None or batch.label_weights is None:
                return nats_B, jnp.zeros_like(nats_B), jnp.zeros_like(nats_B)
            logits_BMC, counts_BM = label_logits(outputs.heads, batch.labels), batch.label_weights > 0
            nll_BM, _ = negative_log_likelihood(logits_BMC, batch.labels)
            correct_BM = counts_BM & (jnp.argmax(logits_BMC, axis=-1) == batch.labels)
            return nats_B, jnp.sum(jnp.where(counts_BM, nll_BM, 0.0), axis=1), jnp.sum(correct_BM, axis=1, dtype=jnp.float32)

        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._sharding), call)
        return compile_score(score, self._model, self._mesh, batch)

    def _subset(self, which: str) -> _Subset:
        if which not in self._subsets:
            self._subsets[which] = self._make_subset(self._budgets[which])
        return self._subsets[which]

    def _make_subset(self, budget: int) -> _Subset:
        split, length = self._data.validation, self._layout.sequence_length
        bytes_per_row = length * float(split.byte_counts.sum()) / float(split.lengths.sum())
        rows = min(max(round(budget / bytes_per_row), 1), held_out_rows(self._data, self._layout))
        batch = held_out(self._data, self._layout, self._architecture, self._vocab_size, rows)
        if not batch.weights.any():
            held, objective = f"the validation split's {rows:,} rows of {length} tokens", self._layout.objective.name
            raise UserError(f"{held} hold no target of objective {objective}: raise --config.data.sequence_length, or take more text")
        labels = 0 if batch.label_weights is None else int(np.count_nonzero(batch.label_weights))
        calls = [jax.tree.map(lambda x: put(x, self._sharding), call) for call in in_calls([batch], self._rows)]
        return _Subset(
            calls, rows, int(np.count_nonzero(batch.weights)), entropy(np.asarray(batch.targets)[np.asarray(batch.weights) > 0]), labels
        )


def entropy(values: np.ndarray) -> float:
    """Returns the entropy of the frequencies of some values, in nats."""
    _, counts = np.unique(values, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
