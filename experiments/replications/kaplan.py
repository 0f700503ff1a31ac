"""Kaplan et al. 2020: their constants as formulas. The laws come back from points that they make, and what the text derives follows.

Laws: (1.5) L(N, D), table 2; (1.6) L(N, S), table 3; L(C_min) = (3.1e8 / C_min)^.050 and L(D) = (5.4e13 / D)^.095 from figure 1; critical
batch 2e8 L^(-1 / .21) tokens; N* = 1.3e9 C_min^.73. N is without embeddings, C in PF-days. No runs are public.
"""

import math
import pathlib
from typing import Optional

import numpy as np

from experiments.replications import tables
from experiments.replications.published_numbers import Check, Replication, within
from lm.scaling.fits import fit, solver
from lm.scaling.fits.objectives import SquaredLog
from lm.scaling.laws.loss_laws import Kaplan, KaplanSteps
from lm.scaling.results import Refusal

NAME = "kaplan"
SIZE_DATA = {"Nc": 6.4e13, "Dc": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
SIZE_STEPS = {"Nc": 6.5e13, "Sc": 2.1e3, "alpha_N": 0.077, "alpha_S": 0.76}
ALPHA_B, BATCH = 0.21, 2e8  # critical batch size BATCH / L^(1 / ALPHA_B) tokens
ALPHA_C, C_C, ALPHA_DATA, D_C = 0.050, 3.1e8, 0.095, 5.4e13
SIZE, SIZE_EXPONENT = 1.3e9, 0.73  # N*(C_min)
PF_DAY = 1e15 * 86400


def recovered() -> list[Check]:
    """Checks that a fit finds their constants in losses at 7 sizes (768 to 1.5e9) and 7 numbers of tokens (2.2e7 to 2.3e10)."""
    n, d = np.meshgrid(np.geomspace(768, 1.5e9, 7), np.geomspace(2.2e7, 2.3e10, 7))
    x = np.stack([n.ravel(), d.ravel()], axis=1)
    loss = solver.loss(Kaplan(), np.array(list(SIZE_DATA.values())), x)
    made = fit.fit(Kaplan(), fit.Points(np.log(x), np.log(loss), np.ones(len(x))), SquaredLog())
    found: list[Check] = []
    for name, true in SIZE_DATA.items():
        error = made if isinstance(made, Refusal) else made.natural[name] / true - 1
        found.append(within(f"L(N, D) fitted to its own points: relative error of {name}", error, 0.0, 1e-6))
    return found


def consequences() -> list[Check]:
    """Checks the numbers that the text derives from the constants, with its rounding."""
    law, constants, much = Kaplan(), np.array(list(SIZE_DATA.values())), 1e30
    loss = solver.loss(law, constants, np.array([[1e9, much], [2e9, much]]))
    excess = [_tokens_for_excess(n) for n in (1e8, 1e9)]
    crossing = _crossing()
    return [
        within("loss at twice the parameters, over loss", loss[1] / loss[0], 0.95, 0.005, published=0.95),
        within("tokens that keep overfitting constant: D ~ N^p, p", math.log10(excess[1] / excess[0]), 0.74, 0.005, published=0.74),
        within("fall of loss that doubles the critical batch, %", 100 * (1 - 2**-ALPHA_B), 13, 1, published=13),
        within("critical batch ~ C_min^p, p", ALPHA_C / ALPHA_B, 0.24, 0.005, published=0.24),
        within("data ~ C_min^p at N*, p", 1 - SIZE_EXPONENT, 0.27, 0.005, published=0.27),
        within("loss once data-limited ~ C_min^-p, p", ALPHA_DATA * (1 - SIZE_EXPONENT), 0.03, 0.005, published=0.03),
        within("log10 of the PF-days where L(C_min) and L(D) contradict", math.log10(crossing), 4, 0.5, published=4),
        within("loss there, nats", (C_C / crossing) ** ALPHA_C, 1.7, 0.1, published=1.7),
    ]


def _tokens_for_excess(n: float, excess: float = 0.02) -> float:
    """Returns the D at which L(N, D) = (1 + excess) L(N, infinity), by bisection of our law."""
    law, constants = Kaplan(), np.array(list(SIZE_DATA.values()))
    low, high = math.log(1e6), math.log(1e16)
    limit = solver.loss(law, constants, np.array([[n, 1e30]]))[0]
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = solver.loss(law, constants, np.array([[n, math.exp(middle)]]))[0] > (1 + excess) * limit
        low, high = (middle, high) if above else (low, middle)
    return math.exp(low)


def _crossing() -> float:
    """Returns PF-days at which data of one epoch at N* and the critical batch, D = 2 C_min / 6 N*, allow no lower loss than L(C_min)."""
    data = 2 * PF_DAY / (6 * SIZE)  # tokens at 1 PF-day; they grow with C_min^(1 - .73)
    slope = ALPHA_C - ALPHA_DATA * (1 - SIZE_EXPONENT)
    return math.exp((ALPHA_C * math.log(C_C) - ALPHA_DATA * math.log(D_C / data)) / slope)


def allocation() -> list[Check]:
    """Checks N* and loss against C_min = 6 N B_crit S from L(N, S), by search; the closed forms of their appendix B are the targets."""
    flops = np.geomspace(1e-6, 1e2, 9)
    log_n = np.linspace(math.log(1e3), math.log(1e13), 4001)
    best = [_lowest(c, log_n) for c in flops]
    n, loss = (np.array(column) for column in zip(*best, strict=True))
    total = 1 / (1 / SIZE_STEPS["alpha_S"] + 1 / ALPHA_B + 1 / SIZE_STEPS["alpha_N"])
    return [
        within("L(N, S): N* ~ C_min^p, p by search", tables.slope(flops, n), total / SIZE_STEPS["alpha_N"], 1e-3, SIZE_EXPONENT),
        within("L(N, S): loss ~ C_min^-p, p by search", -tables.slope(flops, loss), total, 1e-3, ALPHA_C),
    ]


def _lowest(flops: float, log_n: np.ndarray) -> tuple[float, float]:
    """Returns N* and its loss; the loss at each N is that of its own critical batch, found by iteration."""
    n, loss = np.exp(log_n), np.full(len(log_n), 3.0)
    for _ in range(60):
        steps = flops * PF_DAY / (6 * n * BATCH / loss ** (1 / ALPHA_B))
        loss = np.sqrt(loss * solver.loss(KaplanSteps(), np.array(list(SIZE_STEPS.values())), np.stack([n, steps], axis=1)))
    best = int(np.argmin(loss))
    a, b, c = np.log(loss[best - 1 : best + 2])
    return float(np.exp(log_n[best] + 0.5 * (a - c) / (a - 2 * b + c) * (log_n[1] - log_n[0]))), float(loss[best])


def run(data: Optional[pathlib.Path]) -> Replication:
    """Checks everything; needs no data."""
    notes = (
        "L(N, S) predicts N* ~ C_min^.68; the paper's direct fit of the optima is .73 (both printed, the closed form is the target)",
        "Hoffmann's .49 to .54 against .73: Porian et al.'s steps (head, warm-up, decay, tuning) take one to the other",
    )
    return Replication(NAME, checks=(*recovered(), *consequences(), *allocation()), notes=notes)
