"""What the ids so far forbid or make less likely: penalties, n-grams that may not come again, banned and forced ids, a least length."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lm.errors import UserError
from lm.infer.sampling import NO_ID, History, among, step


@step
@dataclasses.dataclass(frozen=True)
class RepetitionPenalty:
    """Divides the positive logits of ids that are there already, prompt included, and multiplies the negative ones (Keskar et al. 2019)."""

    samples: ClassVar[bool] = False
    penalty: float

    def __post_init__(self) -> None:
        if not self.penalty > 0:
            raise UserError(f"repetition_penalty={self.penalty:g}: give a number above 0; 1 changes nothing")

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        seen_BV = _counts(history, logits_BV.shape[-1], from_begin=False) > 0
        less_BV = jnp.where(logits_BV < 0, logits_BV * self.penalty, logits_BV / self.penalty)
        return jnp.where(seen_BV, less_BV, logits_BV)


@step
@dataclasses.dataclass(frozen=True)
class PresencePenalty:
    """Subtracts a number from the logit of each id that the model has written (OpenAI's API)."""

    samples: ClassVar[bool] = False
    penalty: float

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        return logits_BV - self.penalty * (_counts(history, logits_BV.shape[-1]) > 0)


@step
@dataclasses.dataclass(frozen=True)
class FrequencyPenalty:
    """Subtracts a number from the logit of an id for each time that the model has written it (OpenAI's API)."""

    samples: ClassVar[bool] = False
    penalty: float

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        return logits_BV - self.penalty * _counts(history, logits_BV.shape[-1])


@step
@dataclasses.dataclass(frozen=True)
class NoRepeatNGram:
    """Forbids ids that would complete a sequence of n ids that is there already, prompt included (Paulus et al. 2017, section 2.5)."""

    samples: ClassVar[bool] = False
    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"no_repeat_ngram={self.n}: give 1 or more")

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        ids_BL, before = history.ids_BL, self.n - 1
        starts = ids_BL.shape[1] - before
        if starts < 1:
            return logits_BV
        begins_again_BS = jnp.arange(starts) + before < history.length_B[:, None]
        for i in range(before):
            last_B1 = _at(ids_BL, history.length_B - before + i)[:, None]
            begins_again_BS &= ids_BL[:, i : i + starts] == last_B1
        return _forbid(logits_BV, jnp.where(begins_again_BS, ids_BL[:, before:], NO_ID))


@step
@dataclasses.dataclass(frozen=True)
class Banned:
    """Forbids sequences of ids: the last id of one may not come after its others. A sequence of one id forbids it."""

    samples: ClassVar[bool] = False
    sequences: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not all(self.sequences):
            raise UserError("a banned sequence is empty: give at least one id")

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        columns = []
        for *before, last in self.sequences:
            here_B = history.length_B >= len(before)
            for i, token in enumerate(before):
                here_B &= _at(history.ids_BL, history.length_B - len(before) + i) == token
            columns.append(jnp.where(here_B, last, NO_ID))
        return _forbid(logits_BV, jnp.stack(columns, axis=1)) if columns else logits_BV


@step
@dataclasses.dataclass(frozen=True)
class MinLength:
    """Forbids the ids that end a text before the model has written so many tokens."""

    samples: ClassVar[bool] = False
    tokens: int

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise UserError(f"min_tokens={self.tokens}: give 1 or more")

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        early_B1 = (history.new_B < self.tokens)[:, None]
        return jnp.where(early_B1 & among(history.ends_E, logits_BV.shape[-1]), -jnp.inf, logits_BV)


@step
@dataclasses.dataclass(frozen=True)
class ForcedFirst:
    """Makes the first tokens that are written these ids."""

    samples: ClassVar[bool] = False
    ids: tuple[int, ...]

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        forced_B = jnp.asarray((*self.ids, NO_ID), jnp.int32)[jnp.minimum(history.new_B, len(self.ids))]
        return _only(logits_BV, forced_B)


@step
@dataclasses.dataclass(frozen=True)
class ForcedLast:
    """Makes the last token that is written this id, where a text would otherwise be cut off (BART ends so)."""

    samples: ClassVar[bool] = False
    id: int

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        return _only(logits_BV, jnp.where(history.new_B == history.most - 1, self.id, NO_ID))


def _counts(history: History, vocabulary: int, *, from_begin: bool = True) -> Int[Array, "B V"]:
    """Returns how often each id is there, in what the model has written or (not `from_begin`) in the prompt too."""
    column = jnp.arange(history.ids_BL.shape[1])
    real_BL = column < history.length_B[:, None]
    if from_begin:
        real_BL &= column >= history.begin_B[:, None]
    counts_BV = jnp.zeros((history.ids_BL.shape[0], vocabulary), jnp.int32)
    return counts_BV.at[_rows(history.ids_BL), jnp.where(real_BL, history.ids_BL, NO_ID)].add(1, mode="drop")


def _at(ids_BL: Int[Array, "B L"], index_B: Int[Array, " B"]) -> Int[Array, " B"]:
    return jnp.take_along_axis(ids_BL, jnp.maximum(index_B, 0)[:, None], axis=1)[:, 0]


def _forbid(logits_BV: Float[Array, "B V"], ids_BX: Int[Array, "B X"]) -> Float[Array, "B V"]:
    return logits_BV.at[_rows(ids_BX), ids_BX].set(-jnp.inf, mode="drop")


def _only(logits_BV: Float[Array, "B V"], forced_B: Int[Array, " B"]) -> Float[Array, "B V"]:
    """Returns logits of 0 at the forced id and -inf elsewhere; rows with NO_ID stay as they are."""
    forced_B1 = forced_B[:, None]
    alone_BV = jnp.where(jnp.arange(logits_BV.shape[-1]) == forced_B1, 0.0, -jnp.inf)
    return jnp.where(forced_B1 == NO_ID, logits_BV, alone_BV)


def _rows(x_BX: jax.Array) -> jax.Array:
    return jnp.arange(x_BX.shape[0])[:, None]
