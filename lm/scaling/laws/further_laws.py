"""Laws that add something to size and tokens: vocabulary, precision, an exponent that depends on the size, optimisation of a reward."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lm.scaling.laws.formula import Formula, LogFormula

_LARGEST = 200.0  # exp of more has a square that is no float64


class Vocabulary(LogFormula):
    """Loss L_u above that of unigrams, which is negative and does not depend on the vocabulary's size by itself.

    N counts parameters outside the vocabulary, Nv those of the vocabulary. D counts tokens, as the published fit does. The published
    equation has characters, by which the public rows do not determine A2.
    """

    parameters = ("E", "A1", "A2", "B", "alpha", "alpha2")
    inputs = ("N", "Nv", "D")
    start = (
        (4.0, 6.0),
        (1e2, 1e3),
        (1e1, 1e3, 1e5),
        (1e3, 1e4, 1e5),
        (0.3, 0.5),
        (0.4, 0.7, 1.0),
    )
    pairs = (("A1", "alpha", "N"), ("A2", "alpha2", "Nv"), ("B", "alpha", "D"))
    equation = "L_u = -E + A1 / N^alpha + A2 / Nv^alpha2 + B / D^alpha"
    source = "Tao et al. 2024, approach 3, with the exponents of N and D equal"

    def log(self, p: Any, x: Any) -> Any:
        return p.A1 * x.N**-p.alpha + p.A2 * x.Nv**-p.alpha2 + p.B * x.D**-p.alpha - p.E


def effective_size(n: Any, bits: Mapping[str, Any], scale: Mapping[str, Any]) -> Any:
    """Returns the effective parameters N prod_x (1 - exp(-P_x / gamma_x)) of training at P_x bits (Kumar et al. 2024, eq. 4)."""
    for name, value in bits.items():
        n = n * -jnp.expm1(-value / scale[name])
    return n


class Precision(Formula):
    """Loss of a model trained with weights, activations and cache of Pw, Pa and Pkv bits, and quantized to P bits afterwards.

    Without quantization after training P is 16 or more: its term is then nothing.
    """

    parameters = ("E", "A", "B", "alpha", "beta", "gamma_w", "gamma_a", "gamma_kv", "C_T", "gamma_D", "gamma_N", "gamma")
    inputs = ("N", "D", "Pw", "Pa", "Pkv", "P")
    start = (
        (1.0, 2.5),
        (1e2, 1e4),
        (1e2, 1e4),
        (0.3, 0.5),
        (0.3, 0.5),
        (2.5,),
        (2.5,),
        (1.0,),
        (0.1, 1.0),
        (0.3, 0.6),
        (0.3, 0.6),
        (0.4, 0.8),
    )
    pairs = (("A", "alpha", "N"), ("B", "beta", "D"), ("C_T", "gamma_D", "1/D"), ("C_T", "gamma_N", "N"))
    linear = ("E", "A", "B", "C_T")
    equation = (
        "L = E + A / N'^alpha + B / D^beta + C_T D^gamma_D / N^gamma_N exp(-P / gamma); "
        "N' = N (1 - exp(-Pw / gamma_w)) (1 - exp(-Pa / gamma_a)) (1 - exp(-Pkv / gamma_kv))"
    )
    source = "Kumar et al. 2024, eq. 1-4"

    def loss(self, p: Any, x: Any) -> Any:
        n = effective_size(x.N, {"w": x.Pw, "a": x.Pa, "kv": x.Pkv}, {"w": p.gamma_w, "a": p.gamma_a, "kv": p.gamma_kv})
        quantized = p.C_T * x.D**p.gamma_D * x.N**-p.gamma_N * jnp.exp(-x.P / p.gamma)
        return p.E + p.A * n**-p.alpha + p.B * x.D**-p.beta + quantized

    def derived(self, p: Any, sampled: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
        n, bits = sampled["N"][1], sampled["P"][0]
        return {f"D_crit at N = {n:.3g} and P = {bits:g}": critical_tokens(p, n, bits)}


def critical_tokens(p: Any, n: Any, bits: Any) -> Any:
    """Returns D_crit, the tokens beyond which more training raises the loss of a model quantized to P bits afterwards.

    There dL / dD = 0: beta B D^(-beta - 1) = gamma_D C_T D^(gamma_D - 1) / N^gamma_N exp(-P / gamma).
    """
    ratio = p.beta * p.B * n**p.gamma_N * np.exp(bits / p.gamma) / (p.gamma_D * p.C_T)
    return ratio ** (1 / (p.gamma_D + p.beta))


def _stretched(coefficient: Any, log_power: Any) -> Any:
    """Returns coefficient * exp(log_power), finite with its derivatives wherever a descent may come."""
    return jnp.exp(jnp.minimum(jnp.log(jnp.maximum(coefficient, 1e-300)) + log_power, _LARGEST))


class Farseer(Formula):
    """A law whose coefficient and exponent of D, and whose floor, depend on N by stretched exponentials.

    All parameters but b1, b2 and b3 are positive here; the paper writes a1, a3 and beta with the other sign.
    """

    parameters = ("a1", "b1", "alpha", "a2", "b2", "beta", "a3", "b3", "gamma")
    inputs = ("N", "D")
    start = (
        (0.1, 0.3),
        (0.0, 0.5),
        (0.1, 0.2),
        (1e1, 1e2),
        (-5.0, 0.0),
        (0.1, 0.2),
        (0.02, 0.1),
        (0.0, 1.0),
        (0.1, 0.2),
    )
    signed = ("b1", "b2", "b3")
    pairs = (("a1", "alpha", "1/N"), ("a2", "beta", "N"), ("a3", "gamma", "1/N"))
    equation = "L = exp(b3 - a3 N^gamma) + exp(b2 + a2 / N^beta) / D^exp(b1 - a1 N^alpha)"
    source = "Li et al. 2025 (Farseer), eq. 3"

    def log(self, p: Any, x: Any) -> Any:
        log_n = jnp.log(x.N)
        exponent = jnp.exp(jnp.minimum(p.b1 - _stretched(p.a1, p.alpha * log_n), _LARGEST))
        floor = p.b3 - _stretched(p.a3, p.gamma * log_n)
        return jnp.logaddexp(floor, p.b2 + _stretched(p.a2, -p.beta * log_n) - exponent * jnp.log(x.D))

    def loss(self, p: Any, x: Any) -> Any:
        return jnp.exp(self.log(p, x))


class Reward(LogFormula):
    """Gold reward R of a policy, against d, the square root of its divergence KL from the first policy (Gao et al. 2022)."""

    parameters = ("alpha", "beta")
    inputs = ("d",)
    start = (
        (0.5, 1.0),
        (0.1,),
    )
    signed = ("alpha", "beta")


class RewardBestOfN(Reward):
    """Gold reward R after best-of-n sampling by a proxy, where KL = log n - (n - 1) / n."""

    equation = "R = d (alpha - beta d)"
    source = "Gao et al. 2022, best of n"

    def log(self, p: Any, x: Any) -> Any:
        return x.d * (p.alpha - p.beta * x.d)

    def derived(self, p: Any, sampled: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
        peak = np.where(p.beta > 0, p.alpha / (2 * p.beta), np.nan)
        return {"d of the highest reward": peak, "highest reward": peak * (p.alpha - p.beta * peak)}


class RewardRl(Reward):
    """Gold reward R after reinforcement learning on a proxy."""

    equation = "R = d (alpha - beta ln d)"
    source = "Gao et al. 2022, reinforcement learning"

    def log(self, p: Any, x: Any) -> Any:
        return x.d * (p.alpha - p.beta * jnp.log(x.d))

    def derived(self, p: Any, sampled: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
        peak = np.where(p.beta > 0, np.exp(p.alpha / p.beta - 1), np.nan)
        return {"d of the highest reward": peak, "highest reward": p.beta * peak}
