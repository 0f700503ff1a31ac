"""Laws of models with experts, of which each token uses some: by number of experts, granularity, and share of active parameters."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lm.scaling.laws.formula import Formula, LogFormula

_LEAST = 1e-12  # of a difference that is positive where a law is one


def effective_experts(experts: Any, start: Any, most: Any) -> Any:
    """Returns the effective number of experts E^: `start` for a dense model (E = 1), and at most `most` (Clark et al. 2022, eq. 1)."""
    head = jnp.maximum(1 / start - 1 / most, _LEAST)
    return 1 / (1 / (experts - 1 + 1 / head) + 1 / most)


class Routed(LogFormula):
    """Loss of routed models with E experts against their dense parameters N, at one number of tokens. Dense models are those with E = 1.

    Logarithms are to base 10, as the published coefficients are.
    """

    parameters = ("a", "b", "c", "d", "E_start", "E_max")
    inputs = ("N", "E")
    start = (
        (-0.05, -0.1),
        (-0.05, -0.15),
        (0.0, 0.015),
        (0.8, 1.2),
        (1.5, 4.0),
        (100.0, 400.0, 2000.0),
    )
    signed = ("a", "b", "c", "d")
    equation = "lg L = a lg N + b lg E^ + c lg N lg E^ + d; 1 / E^ = 1 / (E - 1 + 1 / (1 / E_start - 1 / E_max)) + 1 / E_max"
    source = "Clark et al. 2022, eq. 1"

    def log(self, p: Any, x: Any) -> Any:
        n, experts = jnp.log10(x.N), jnp.log10(effective_experts(x.E, p.E_start, p.E_max))
        return math.log(10) * (p.a * n + p.b * experts + p.c * n * experts + p.d)

    def derived(self, p: Any, sampled: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
        return {"N above which experts do not help": np.where(p.c > 0, 10 ** (-p.b / p.c), np.nan)}


class Granular(Formula):
    """Loss of models whose experts are smaller than a dense layer by the granularity G, at one expansion rate."""

    parameters = ("c", "a", "b", "g", "alpha", "beta", "gamma")
    inputs = ("N", "D", "G")
    start = (
        (0.3, 1.5),
        (1e1, 1e3),
        (1e1, 1e3),
        (1.0, 1e2),
        (0.1, 0.3),
        (0.1, 0.3),
        (0.3, 1.0),
    )
    pairs = (("a", "alpha", "N"), ("b", "beta", "D"), ("g", "gamma", "G"), ("g", "alpha", "N"))
    linear = ("c", "a", "b", "g")
    equation = "L = c + (g / G^gamma + a) / N^alpha + b / D^beta"
    source = "Krajewski et al. 2024, eq. 9"

    def loss(self, p: Any, x: Any) -> Any:
        return p.c + (p.g * x.G**-p.gamma + p.a) * x.N**-p.alpha + p.b * x.D**-p.beta


class JointExperts(Formula):
    """Loss of models with E experts, N active parameters and D tokens: E moves coefficients and exponents of both terms.

    E is the effective number of experts of the paper, which is near the number itself while that is small.
    """

    parameters = ("c", "a", "b", "delta", "omega", "alpha", "beta", "gamma", "zeta")
    inputs = ("N", "D", "E")
    start = (
        (0.5, 1.5),
        (1e1, 1e3),
        (1e1, 1e3),
        (0.0, 0.3),
        (-0.5, 0.0),
        (0.15, 0.35),
        (0.15, 0.35),
        (0.0,),
        (0.0,),
    )
    signed = ("delta", "omega", "gamma", "zeta")
    pairs = (("a", "alpha", "N"), ("b", "beta", "D"))
    linear = ("c", "a", "b")
    equation = "L = c + a E^delta / N^(alpha - gamma ln E) + b E^omega / D^(beta + zeta ln E)"
    source = "Ludziejewski et al. 2025, joint law of experts, active parameters and tokens"

    def loss(self, p: Any, x: Any) -> Any:
        log_e = jnp.log(x.E)
        size = p.a * jnp.exp(p.delta * log_e) * x.N ** (p.gamma * log_e - p.alpha)
        return p.c + size + p.b * jnp.exp(p.omega * log_e) * x.D ** -(p.beta + p.zeta * log_e)


class Sparse(Formula):
    """Loss of models with N parameters in all, of which the share `active` = 1 - S works on a token."""

    parameters = ("e", "a", "b", "c", "d", "alpha", "beta", "lambda", "delta", "gamma")
    inputs = ("N", "D", "active")
    start = (
        (0.5, 1.5),
        (1e2, 1e4),
        (1e2, 1e4),
        (0.5,),
        (1e1,),
        (0.3, 0.6),
        (0.3, 0.6),
        (-0.2, 0.1),
        (0.1, 0.3),
        (0.1, 0.3),
    )
    signed = ("lambda",)
    pairs = (("a", "alpha", "N"), ("b", "beta", "D"), ("c", "lambda", "active"), ("d", "delta", "active"), ("d", "gamma", "N"))
    linear = ("e", "a", "b", "c", "d")
    equation = "L = e + a / N^alpha + b / D^beta + c / active^lambda + d / (active^delta N^gamma)"
    source = "Abnar et al. 2025, eq. 6"

    def loss(self, p: Any, x: Any) -> Any:
        shares = p.c * x.active ** -getattr(p, "lambda") + p.d * x.active**-p.delta * x.N**-p.gamma
        return p.e + p.a * x.N**-p.alpha + p.b * x.D**-p.beta + shares
