"""Held-out full-text likelihood: nats over all tokens of whole documents, the ends of documents included, per UTF-8 byte.

The documents are a fixed list: the first of the validation split, in its shuffled order, that fit a budget of bytes (`choose`). Each is
read in strided windows of the model's length T; a window scores its last S tokens and the rest is context, but the first scores all:

    document   a b c d e f g h .        T = 4, S = 2
    window 0   . a b c                  scores a b c d
    window 1       c d e f              inputs c d e f, scores f g     (inputs are the tokens before the targets)

so every token is scored once, with T - S tokens of context or more, unless the document begins before. No window holds two documents,
and a window's result does not depend on its batch: the loss is the same whatever the batch size, the mesh and the packing of training.
"""

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional, Protocol, Union

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from lm.data.objectives.next_token import inputs_of
from lm.errors import UserError
from lm.losses import negative_log_likelihood
from lm.rows import beyond, in_vocabulary
from lm.sharding import RULES
from lm.train.config import EvalConfig, RunConfig
from lm.train.feed import put, wait_on_virtual_devices
from lm.train.program import compiler_options
from lm.train.signals import look
from lm.types import Batch, Params

ROWS = 16  # windows per call of the compiled function, rounded up to what devices and pipelines divide
AHEAD = 4  # calls that the devices have before the oldest's result is fetched
HELD = 1 << 22  # tokens in windows (84 MB) that stay on the devices between evaluations; those of more text are made anew for each


class Documents(Protocol):
    """The part of lm.data.pipeline.Documents that is evaluated: int32 ids ending in the end of document, and UTF-8 bytes per document."""

    byte_counts: np.ndarray

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> np.ndarray: ...


class Data(Protocol):
    """The part of lm.data.pipeline.Data that an evaluation reads."""

    @property
    def tokenizer(self) -> Any: ...
    @property
    def validation(self) -> Any: ...


def choose(byte_counts: np.ndarray, budget: int, longest: Optional[int] = None) -> np.ndarray:
    """Returns the indices of the first documents that fit `budget` bytes together, int64.

    A document that no longer fits, or holds more than `longest` bytes, is skipped: so a smaller budget may choose a document for which a
    larger one has no room left. When none fits, the shortest is chosen. UserError when no document holds text.
    """
    filled = np.flatnonzero(byte_counts > 0)
    if not len(filled):
        raise UserError("the validation split holds no text: use more text, or another corpus")
    chosen, left = [], budget
    for i in filled:
        if byte_counts[i] <= min(left, longest or left):
            chosen.append(i)
            left -= int(byte_counts[i])
    return np.asarray(chosen or [filled[np.argmin(byte_counts[filled])]], np.int64)


def windows(document: np.ndarray, start_id: int, length: int, span: int, stride: int) -> Batch:
    """Cuts one document into windows [W, length] of `span` <= length tokens, `stride` of them scored; padding has segment 0."""
    inputs = inputs_of(document, start_id)
    edges = [0, *range(min(span, len(document)), len(document), stride), len(document)]
    shape = (len(edges) - 1, length)
    fields: list[Any] = [np.zeros(shape, np.int32) for _ in range(4)]
    tokens, targets, segments, positions = fields
    weights: Any = np.zeros(shape, np.float32)
    for row, (start, end) in enumerate(itertools.pairwise(edges)):
        begin = max(0, end - span)
        count = end - begin
        tokens[row, :count], targets[row, :count] = inputs[begin:end], document[begin:end]
        segments[row, :count], positions[row, :count] = 1, np.arange(count)
        weights[row, start - begin : count] = 1.0
    return Batch(tokens, targets, weights, segments, positions)


def span_and_stride(config: EvalConfig, length: int, tokens_per_byte: float) -> tuple[int, int]:
    """Returns tokens per window and tokens scored per window, for a document of this many tokens per byte.

    With `window_bytes` a window holds about that many bytes whatever the tokenizer, and is scored in the same proportion.
    """
    if not 1 <= config.stride <= length:
        raise UserError(
            f"evaluation.stride={config.stride} must be between 1 and data.sequence_length={length}:"
            f" set --config.evaluation.stride={length}"
        )
    if config.window_bytes is None:
        return length, config.stride
    span = min(max(round(config.window_bytes * tokens_per_byte), 2), length)
    return span, max(1, round(span * config.stride / length))


@dataclasses.dataclass(frozen=True, eq=False)
class _Subset:
    """Windows in calls of equal size, on the devices or, of long text, made one after the other, with their counts."""

    calls: Union[list[Batch], Callable[[], Iterator[Batch]]]
    tokens: int
    bytes: int
    documents: int

    def groups(self) -> Iterator[list[Batch]]:
        """Yields the calls, those together that may be on the devices at once."""
        if isinstance(self.calls, list):
            yield self.calls
            return
        for call in self.calls():
            yield [call]


class LossEvaluator:
    """Measures the likelihood of whole held-out documents.

    `evaluate(params, "curve" | "final")` -> nats, tokens, bytes, documents, nats_per_token, nats_per_byte, bits_per_byte. It is compiled
    once, and runs of one shape on one data set can share it. The points of a curve and the final loss are on two fixed lists of documents,
    chosen alike with two budgets.
    """

    def __init__(self, config: RunConfig, model: Any, mesh: Mesh, data: Data, *, rows: Optional[int] = None):
        multiple = model.execution.rows_multiple(mesh)
        self._rows = math.ceil((rows or ROWS) / multiple) * multiple
        self._sharding = NamedSharding(mesh, RULES.spec(("act_batch", "act_length")))
        self._config, self._data = config, data
        self._longest = config.evaluation.longest_document
        self._budgets = {"curve": config.evaluation.curve_bytes, "final": config.evaluation.documents_bytes}
        self._subsets: dict[str, _Subset] = {}
        self._mesh = mesh
        self._score = self._compile(model, mesh)

    def __call__(self, params: Params, which: str) -> dict[str, float]:
        subset = self._subset(which)
        found = (each for group in subset.groups() for each in results(self._score, params, group, self._mesh))
        nats = sum(float(np.sum(each, dtype=np.float64)) for each in found)
        per_byte = nats / subset.bytes
        return {
            "nats_per_token": nats / subset.tokens,
            "nats_per_byte": per_byte,
            "bits_per_byte": per_byte / math.log(2),
            "nats": nats,
            "tokens": subset.tokens,
            "bytes": subset.bytes,
            "documents": subset.documents,
        }

    def _compile(self, model: Any, mesh: Mesh) -> Any:
        dtype, shape = jnp.dtype(self._config.compute_dtype), (self._rows, self._config.data.sequence_length)

        def score(params: Params, batch: Batch) -> jax.Array:
            """Returns the nats of each row's scored tokens, [rows]."""
            logits_BTV = model.apply(params, batch.inputs, compute_dtype=dtype).logits
            nll_BT, _ = negative_log_likelihood(logits_BTV, batch.targets)
            return jnp.sum(jnp.where(batch.weights > 0, nll_BT, 0.0), axis=1)

        ids: Any = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=self._sharding)
        weights: Any = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=self._sharding)
        return compile_score(score, model, mesh, Batch(ids, ids, weights, ids, ids))

    def _subset(self, which: str) -> _Subset:
        if which not in self._subsets:
            self._subsets[which] = self._make_subset(self._budgets[which])
        return self._subsets[which]

    def _make_subset(self, budget: int) -> _Subset:
        split, length = self._data.validation, self._config.data.sequence_length
        chosen = choose(np.asarray(split.byte_counts), budget, self._longest)
        sizes = [len(split[int(i)]) for i in chosen]
        cuts = [span_and_stride(self._config.evaluation, length, n / int(split.byte_counts[i])) for n, i in zip(sizes, chosen, strict=True)]
        count = sum(1 + max(0, -(-(n - span) // stride)) for n, (span, stride) in zip(sizes, cuts, strict=True))
        is_long = count * length > HELD
        make = functools.partial(self._calls, chosen, cuts, is_long)
        return _Subset(make if is_long else list(make()), sum(sizes), int(np.asarray(split.byte_counts)[chosen].sum()), len(chosen))

    def _calls(self, chosen: np.ndarray, cuts: Sequence[tuple[int, int]], show: bool) -> Iterator[Batch]:
        """Yields the windows of documents, a call's at a time; `show` draws how far it is."""
        split, length, waiting = self._data.validation, self._config.data.sequence_length, []
        vocab_size = self._config.model.vocab_size
        for i, (span, stride) in tqdm(
            list(zip(chosen, cuts, strict=True)), "evaluating", unit=" documents", disable=None if show else True
        ):
            document = np.asarray(split[int(i)], np.int32)
            if not in_vocabulary(document, vocab_size):
                raise UserError(f"document {i} of the held-out text has an id {beyond(vocab_size)}")
            waiting.append(windows(document, self._data.tokenizer.start_id, length, span, stride))
            if sum(len(part.tokens) for part in waiting) > self._rows:
                *full, last = in_calls(waiting, self._rows, fill=False)
                waiting = [last]
                yield from map(self._put, full)
        yield from map(self._put, in_calls(waiting, self._rows))

    def _put(self, call: Batch) -> Batch:
        return jax.tree.map(lambda x: put(x, self._sharding), call)


def compile_score(score: Callable[[Params, Batch], Any], model: Any, mesh: Mesh, batch: Batch) -> Any:
    """Compiles score(params, batch) for batches like this one, which may be abstract. Every host gets the whole result."""

    def placed(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    params = jax.tree.map(placed, model.abstract(), model.shardings(mesh))
    everywhere = NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        return jax.jit(score, out_shardings=everywhere).lower(params, batch).compile(compiler_options(mesh))


def results(score: Any, params: Params, calls: Sequence[Batch], mesh: Mesh) -> list[Any]:
    """Returns the results of `score` for each call, on the host. Raises Stopping between two where the run has been asked to end."""
    found: list[Any] = []
    waiting: collections.deque[Any] = collections.deque()
    for call in calls:
        waiting.append(wait_on_virtual_devices(mesh, score(params, call)))
        if len(waiting) > AHEAD:
            found.append(jax.device_get(waiting.popleft()))
            look()
    return found + jax.device_get(list(waiting))


def in_calls(parts: Sequence[Batch], rows: int, *, fill: bool = True) -> list[Batch]:
    """Returns all rows, `rows` at a time. With `fill` the last call is filled up with copies of its first row that score nothing."""
    whole = jax.tree.map(lambda *fields: np.concatenate(fields), *parts)
    calls = []
    for start in range(0, len(whole.tokens), rows):
        call = jax.tree.map(lambda x, start=start: x[start : start + rows], whole)
        missing = rows - len(call.tokens)
        if missing and fill:
            call = jax.tree.map(lambda x, n=missing: np.concatenate([x, np.repeat(x[:1], n, axis=0)]), call)
            call.weights[rows - missing :] = 0.0
            if call.label_weights is not None:
                call.label_weights[rows - missing :] = 0.0
        calls.append(call)
    return calls
