"""What may be drawn: filters of logits, as frozen dataclasses that `lm.infer.strategy` composes. Each does what transformers' does.

A filter is called with logits_BV and the history of the rows, and returns logits_BV in which what may not come is -inf. Its numbers of type
float are arguments of the compiled program, so that another temperature compiles nothing; whole numbers are part of the program.
"""

import dataclasses
import math
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lm.errors import UserError

NO_ID = 2**30  # an id that no vocabulary has; writes to it are dropped
T = TypeVar("T")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class History:
    """The ids of each row so far: ids_BL[b, :length_B[b]], of which the model has written those from begin_B[b] on."""

    ids_BL: Int[Array, "B L"]
    length_B: Int[Array, " B"]
    begin_B: Int[Array, " B"]
    ends_E: Int[Array, " E"]  # ids that end a text, or NO_ID
    most: Int[Array, ""]  # tokens that a row has at most

    @property
    def new_B(self) -> Int[Array, " B"]:
        """The number of tokens that the model has written."""
        return self.length_B - self.begin_B


def step(kind: type[T]) -> type[T]:
    """Makes a frozen dataclass a pytree whose leaves are its floats. It is checked when a user makes it, and not when JAX does."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    traced = tuple(field.name for field in fields if field.type is float)
    static = tuple(field.name for field in fields if field.name not in traced)

    def flatten(value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(value, name) for name in traced), tuple(getattr(value, name) for name in static)

    def unflatten(fixed: tuple[Any, ...], leaves: tuple[Any, ...]) -> Any:
        made = object.__new__(kind)
        for name, value in (*zip(traced, leaves, strict=True), *zip(static, fixed, strict=True)):
            object.__setattr__(made, name, value)
        return made

    jax.tree_util.register_pytree_node(kind, flatten, unflatten)
    return kind


@step
@dataclasses.dataclass(frozen=True)
class Greedy:
    """Takes the most likely token, and the lowest id among equals. It is what comes without any other choice."""

    samples: ClassVar[bool] = False

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        return logits_BV


@step
@dataclasses.dataclass(frozen=True)
class Temperature:
    """Draws from softmax(logits / temperature)."""

    samples: ClassVar[bool] = True
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature == 0:
            raise UserError("temperature=0 divides by zero: ask for greedy decoding, which always takes the most likely token")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"temperature={self.temperature:g}: give a number above 0")

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        return logits_BV / self.temperature


@step
@dataclasses.dataclass(frozen=True)
class TopK:
    """Draws among the k most likely tokens, and those as likely as the last of them (Fan et al. 2018, section 5.1)."""

    samples: ClassVar[bool] = True
    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"top_k={self.k}: give 1 or more")

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        least_B1 = jax.lax.top_k(logits_BV, min(self.k, logits_BV.shape[-1]))[0][:, -1:]
        return jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)


@step
@dataclasses.dataclass(frozen=True)
class TopP:
    """Draws from the nucleus: the fewest, most likely tokens that together reach probability p (Holtzman et al. 2020, section 3.1)."""

    samples: ClassVar[bool] = True
    p: float

    def __post_init__(self) -> None:
        _probability("top_p", self.p)

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        rising_BV = jnp.sort(logits_BV, axis=-1)
        share_BV = jax.nn.softmax(rising_BV, axis=-1)
        kept_B1 = jnp.maximum(jnp.sum(jnp.cumsum(share_BV, axis=-1) > 1 - self.p, axis=-1, keepdims=True), 1)
        least_B1 = jnp.take_along_axis(rising_BV, logits_BV.shape[-1] - kept_B1, axis=-1)
        # Of tokens as likely as the least likely one, the highest ids are kept, as a stable sort keeps them.
        above_BV, equal_BV = logits_BV > least_B1, logits_BV == least_B1
        rank_BV = jnp.cumsum(equal_BV[:, ::-1], axis=-1)[:, ::-1]
        room_B1 = kept_B1 - jnp.sum(above_BV, axis=-1, keepdims=True)
        return jnp.where(above_BV | (equal_BV & (rank_BV <= room_B1)), logits_BV, -jnp.inf)


@step
@dataclasses.dataclass(frozen=True)
class MinP:
    """Draws among the tokens whose probability is at least p times that of the most likely one (Nguyen et al. 2024, section 3)."""

    samples: ClassVar[bool] = True
    p: float

    def __post_init__(self) -> None:
        _probability("min_p", self.p)

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        share_BV = jax.nn.softmax(logits_BV, axis=-1)
        return jnp.where(share_BV < self.p * jnp.max(share_BV, axis=-1, keepdims=True), -jnp.inf, logits_BV)


@step
@dataclasses.dataclass(frozen=True)
class Typical:
    """Draws among the tokens of a surprise nearest to its mean, the fewest that reach probability p (Meister et al. 2023, section 4)."""

    samples: ClassVar[bool] = True
    p: float

    def __post_init__(self) -> None:
        _probability("typical_p", self.p)

    def __call__(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        log_p_BV = jax.nn.log_softmax(logits_BV, axis=-1)
        p_BV = jnp.exp(log_p_BV)
        entropy_B1 = -jnp.sum(jnp.where(p_BV > 0, log_p_BV * p_BV, 0.0), axis=-1, keepdims=True)
        off_BV = jnp.abs(-log_p_BV - entropy_B1)
        order_BV = jnp.argsort(off_BV, axis=-1)
        reached_BV = jnp.cumsum(jnp.take_along_axis(p_BV, order_BV, axis=-1), axis=-1)
        last_B1 = jnp.minimum(jnp.sum(reached_BV < self.p, axis=-1, keepdims=True), logits_BV.shape[-1] - 1)
        furthest_B1 = jnp.take_along_axis(off_BV, jnp.take_along_axis(order_BV, last_B1, axis=-1), axis=-1)
        return jnp.where(off_BV > furthest_B1, -jnp.inf, logits_BV)


def _probability(name: str, p: float) -> None:
    if not 0 < p <= 1:
        raise UserError(f"{name}={p:g}: give a probability above 0 and at most 1")


def most_likely(logits_BV: Float[Array, "B V"]) -> Int[Array, " B"]:
    """Returns the most likely token of each row, and the lowest id among equals."""
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)


def draw(logits_BV: Float[Array, "B V"], keys_B: jax.Array) -> Int[Array, " B"]:
    """Returns a token of each row from softmax(logits). A row has a random key of its own, so that its draw does not depend on others."""
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def among(ids_E: Int[Array, " E"], vocabulary: int) -> Bool[Array, " V"]:
    """Returns True at the ids that are given."""
    return jnp.zeros((vocabulary,), bool).at[ids_E].set(True, mode="drop")
