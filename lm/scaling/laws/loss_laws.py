"""Published laws of loss in size, tokens, compute, unique tokens and shape, each with its equation and source."""

from typing import Any

import jax.numpy as jnp

from lm.scaling.laws.formula import Formula

_COEFFICIENT = (1.0, 1e2, 1e4, 1e6)
_EXPONENT = (0.1, 0.3, 0.6, 1.0)
_FLOOR = (0.1, 0.5, 1.0, 2.0)  # irreducible loss in nats, per token or per byte


class NoIrreducible(Formula):
    """Two power laws without an irreducible loss, for tables whose losses stay far above it."""

    parameters = ("A", "B", "alpha", "beta")
    inputs = ("N", "D")
    start = (
        _COEFFICIENT,
        _COEFFICIENT,
        _EXPONENT,
        _EXPONENT,
    )
    pairs = (("A", "alpha", "N"), ("B", "beta", "D"))
    linear = ("A", "B")
    equation = "L = A / N^alpha + B / D^beta"
    source = "Hoffmann et al. 2022, eq. 2, with E = 0"

    def loss(self, p: Any, x: Any) -> Any:
        return p.A * x.N**-p.alpha + p.B * x.D**-p.beta


class Kaplan(Formula):
    """Loss limited by size or by data. Nc and Dc are the critical sizes of Kaplan's table 3."""

    parameters = ("Nc", "Dc", "alpha_N", "alpha_D")
    inputs = ("N", "D")
    start = (
        (1e10, 1e13, 1e16),
        (1e10, 1e13, 1e16),
        (0.05, 0.1, 0.3),
        (0.05, 0.1, 0.3),
    )
    equation = "L = ((Nc / N)^(alpha_N / alpha_D) + Dc / D)^alpha_D"
    source = "Kaplan et al. 2020, eq. 1.5"

    def loss(self, p: Any, x: Any) -> Any:
        return ((p.Nc / x.N) ** (p.alpha_N / p.alpha_D) + p.Dc / x.D) ** p.alpha_D


class KaplanSteps(Formula):
    """Loss after S steps, where S is the minimum number of steps: those of training far above the critical batch size."""

    parameters = ("Nc", "Sc", "alpha_N", "alpha_S")
    inputs = ("N", "S")
    start = (
        (1e10, 1e13, 1e16),
        (1e1, 1e3, 1e5),
        (0.05, 0.1, 0.3),
        (0.3, 0.6, 1.0),
    )
    equation = "L = (Nc / N)^alpha_N + (Sc / S)^alpha_S"
    source = "Kaplan et al. 2020, eq. 1.6"

    def loss(self, p: Any, x: Any) -> Any:
        return (p.Nc / x.N) ** p.alpha_N + (p.Sc / x.S) ** p.alpha_S


class ComputePower(Formula):
    """Loss of compute-optimal models against compute."""

    parameters = ("E", "A", "gamma")
    inputs = ("C",)
    start = (
        _FLOOR,
        (1.0, 1e1, 1e2, 1e3),
        (0.03, 0.06, 0.15, 0.3),
    )
    pairs = (("A", "gamma", "C"),)
    linear = ("E", "A")
    equation = "L = E + A / C^gamma"
    source = "Henighan et al. 2020, eq. 1.1"

    def loss(self, p: Any, x: Any) -> Any:
        return p.E + p.A * x.C**-p.gamma


class DataConstrained(Formula):
    """Loss after D tokens that repeat U unique ones. The worth of repeats, and of parameters beyond N_opt(U), decays exponentially.

    N_opt(U) is the size whose compute-optimal tokens are U under the same A, B, alpha, beta. The paper fits these and E in a first stage:
    give them as `fixed` to fit R_D and R_N alone.
    """

    parameters = ("E", "A", "B", "alpha", "beta", "R_D", "R_N")
    inputs = ("N", "D", "U")
    start = (
        (0.5, 1.5),
        (1e1, 1e3),
        (1e1, 1e3),
        (0.2, 0.4),
        (0.2, 0.4),
        (1.0, 5.0, 20.0, 100.0),
        (1.0, 5.0, 20.0, 100.0),
    )
    pairs = (("A", "alpha", "N"), ("B", "beta", "D"))
    linear = ()  # A and B also set N_opt
    equation = (
        "L = E + A / N'^alpha + B / D'^beta; N' = U_N + U_N R_N (1 - exp(-(N / U_N - 1) / R_N)), "
        "D' = U + U R_D (1 - exp(-(D / U - 1) / R_D)), U_N = min(N, N_opt(U)); U stands for min(U, D)"
    )
    source = "Muennighoff et al. 2023, eq. 5-6"

    def loss(self, p: Any, x: Any) -> Any:
        g = (p.alpha * p.A / (p.beta * p.B)) ** (1 / (p.alpha + p.beta))
        unique = jnp.minimum(x.U, x.D)  # of fewer tokens than there are, none repeats
        u_n = jnp.minimum(x.N, g * (unique * g) ** (p.beta / p.alpha))
        return p.E + p.A * self._worth(x.N, u_n, p.R_N) ** -p.alpha + p.B * self._worth(x.D, unique, p.R_D) ** -p.beta

    def _worth(self, used: Any, unique: Any, decay: Any) -> Any:
        return unique * (1 - decay * jnp.expm1(-(used / unique - 1) / decay))


class OverTraining(Formula):
    """Loss at C FLOPs and M = D / N tokens per parameter, with one slope in C for all M: Hoffmann's law with alpha = beta = 2 eta."""

    parameters = ("E", "a", "b", "eta")
    inputs = ("C", "M")
    start = (
        _FLOOR,
        (1.0, 1e2, 1e4),
        (1.0, 1e2, 1e4),
        (0.05, 0.15, 0.3),
    )
    pairs = (("a", "eta", "C"), ("b", "eta", "C"))
    linear = ("E", "a", "b")
    equation = "L = E + (a M^eta + b M^-eta) / C^eta"
    source = "Gadre et al. 2024, eq. 4"

    def loss(self, p: Any, x: Any) -> Any:
        return p.E + p.a * x.C**-p.eta * x.M**p.eta + p.b * x.C**-p.eta * x.M**-p.eta


class Downstream(Formula):
    """Mean error of downstream tasks against loss L. The error is fitted: --loss names its column, --input=L=COLUMN that of L."""

    parameters = ("epsilon", "k", "gamma")
    inputs = ("L",)
    start = (
        (0.6, 0.8, 1.0),
        (0.3, 1.0, 3.0, 10.0),
        (0.3, 1.0, 3.0),
    )
    equation = "Err = epsilon - k exp(-gamma L)"
    source = "Gadre et al. 2024, eq. 5"

    def loss(self, p: Any, x: Any) -> Any:
        return p.epsilon - p.k * jnp.exp(-p.gamma * x.L)


class Sigmoid(Formula):
    """Mean accuracy of downstream tasks against their loss L. --loss names the accuracy's column, --input=L=COLUMN that of L."""

    parameters = ("b", "a", "k", "L0")
    inputs = ("L",)
    start = ((0.1, 0.25), (0.3, 0.7), (1.0, 4.0, 12.0), (0.5, 1.0, 2.0, 4.0))
    linear = ("b", "a")
    equation = "Acc = b + a / (1 + exp(k (L - L0)))"
    source = "Bhagia et al. 2024, eq. 3"

    def loss(self, p: Any, x: Any) -> Any:
        return p.b + p.a / (1 + jnp.exp(jnp.clip(p.k * (x.L - p.L0), -300.0, 300.0)))


class WidthDepth(Formula):
    """Width, depth and tokens: the shape in the place of the number of parameters."""

    parameters = ("E", "A", "B", "G", "alpha", "beta", "gamma")
    inputs = ("width", "depth", "D")
    start = (
        (0.5, 2.0),
        (1.0, 1e2),
        (0.3, 3.0),
        (1e3, 1e6),
        (0.2, 0.6),
        (0.2, 0.6),
        (0.3, 0.6),
    )
    pairs = (("A", "alpha", "width"), ("B", "beta", "depth"), ("G", "gamma", "D"))
    linear = ("E", "A", "B", "G")
    equation = "L = E + A / width^alpha + B / depth^beta + G / D^gamma"
    source = "McLeish et al. 2025, width-depth fit without parameters"

    def loss(self, p: Any, x: Any) -> Any:
        return p.E + p.A * x.width**-p.alpha + p.B * x.depth**-p.beta + p.G * x.D**-p.gamma


class WidthDepthSize(Formula):
    """Width, depth, number of parameters and tokens: the four terms of the Gemstones' width-depth law."""

    parameters = ("E", "A", "B", "P", "G", "alpha", "beta", "pi", "gamma")
    inputs = ("width", "depth", "N", "D")
    start = (
        (0.5, 2.0),
        (1.0, 1e2),
        (0.3, 3.0),
        (1e1, 1e3),
        (1e3, 1e6),
        (0.2, 0.6),
        (0.2, 0.6),
        (0.2, 0.6),
        (0.3, 0.6),
    )
    pairs = (("A", "alpha", "width"), ("B", "beta", "depth"), ("P", "pi", "N"), ("G", "gamma", "D"))
    linear = ("E", "A", "B", "P", "G")
    equation = "L = E + A / width^alpha + B / depth^beta + P / N^pi + G / D^gamma"
    source = "McLeish et al. 2025, width-depth law"

    def loss(self, p: Any, x: Any) -> Any:
        terms = p.A * x.width**-p.alpha + p.B * x.depth**-p.beta + p.P * x.N**-p.pi
        return p.E + terms + p.G * x.D**-p.gamma
