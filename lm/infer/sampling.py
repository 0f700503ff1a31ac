"""Strategies that draw the next token from its logits: frozen dataclasses with one method."""

import dataclasses
from collections.abc import Hashable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lm.errors import UserError


@runtime_checkable
class Sampler(Hashable, Protocol):
    """A strategy that draws one token per row. `keys_B` has a random key per row, so that a row's draw does not depend on the others."""

    def sample(self, logits_BV: Float[Array, "B V"], keys_B: jax.Array) -> Int[Array, " B"]: ...


@dataclasses.dataclass(frozen=True)
class Greedy:
    """Takes the most likely token, and the lowest id among equals."""

    def sample(self, logits_BV: Float[Array, "B V"], keys_B: jax.Array) -> Int[Array, " B"]:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Temperature:
    """Draws from softmax(logits / temperature)."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature={self.temperature} must be above 0 (greedy decoding needs none)")

    def sample(self, logits_BV: Float[Array, "B V"], keys_B: jax.Array) -> Int[Array, " B"]:
        return jax.vmap(jax.random.categorical)(keys_B, logits_BV / self.temperature).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class TopK:
    """Draws among the k most likely tokens as Temperature does (Fan et al. 2018)."""

    k: int
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"top_k={self.k} must be 1 or more")
        Temperature(self.temperature)

    def sample(self, logits_BV: Float[Array, "B V"], keys_B: jax.Array) -> Int[Array, " B"]:
        values_Bk, ids_Bk = jax.lax.top_k(logits_BV, min(self.k, logits_BV.shape[-1]))
        chosen_B = Temperature(self.temperature).sample(values_Bk, keys_B)
        return jnp.take_along_axis(ids_Bk, chosen_B[:, None], axis=-1)[:, 0].astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class TopP:
    """Draws among the most likely tokens that together reach probability p at this temperature (Holtzman et al. 2020)."""

    p: float
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise UserError(f"top_p={self.p} must be above 0 and at most 1")
        Temperature(self.temperature)

    def sample(self, logits_BV: Float[Array, "B V"], keys_B: jax.Array) -> Int[Array, " B"]:
        order_BV = jnp.argsort(-logits_BV, axis=-1)
        sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1) / self.temperature
        share_BV = jax.nn.softmax(sorted_BV, axis=-1)
        before_BV = jnp.cumsum(share_BV, axis=-1) - share_BV  # probability of the tokens that are likelier
        chosen_B = Temperature().sample(jnp.where(before_BV < self.p, sorted_BV, -jnp.inf), keys_B)
        return jnp.take_along_axis(order_BV, chosen_B[:, None], axis=-1)[:, 0].astype(jnp.int32)
