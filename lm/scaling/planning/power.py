"""The power of a design before it is run: the standard deviation of the exponent by a law and by IsoFLOP minima, and how likely it is that
the optima are interior.

The law's part is to first order in the noise (`spread`). The probability that a parabola's optimum is interior is exact for normal noise:
its slope must be negative at the smallest size and positive at the largest, and both are linear in the losses.
"""

import dataclasses
import pathlib
from typing import Optional, Union

import numpy as np

from lm.errors import UserError, counted
from lm.scaling.approaches import curves, profiles
from lm.scaling.coverage import Design
from lm.scaling.fits import frontier
from lm.scaling.fitted_law import points_of
from lm.scaling.intervals import bootstrap
from lm.scaling.laws.law import Law
from lm.scaling.planning.optimum import splits
from lm.scaling.planning.spread import Local, variance
from lm.scaling.results import Refusal, result
from lm.scaling.runs import Columns, Runs, Selection, from_frame, of_table
from lm.scaling.tables import formats

_STUDIES = 4000
_MOST = 10_000  # runs of a design: studies times runs losses are held at once
_LOSS = "loss of a planned run"


@result
class BudgetPower:
    """One budget of the design. `interior` is the probability that the minimum of its parabola lies within its sizes."""

    budget: float
    sizes: int
    n_star: float  # by the prior law
    interior: float
    sd: float  # standard deviation of the minimum's log N* over the simulated studies that keep it interior; 0 where none does


@result
class IsoflopPower:
    """Approach 2: the probability that every optimum is interior, and the slope of log N* on log C over the studies where it is."""

    interior: float
    exponent: float  # mean
    sd: float
    studies: int  # simulated studies; about a share `interior` of them counts
    budgets: tuple[BudgetPower, ...]


@result
class TargetPower:
    """The optimum of a compute that the design does not reach: N* by the prior law, and the standard deviation of its logarithm.

    `sd` is that of the law fitted to all runs, `isoflop_sd` that of the regression of the minima, over the studies whose minima are all
    interior. `isoflop_shift` is the mean of log N* by the regression less the prior law's.
    """

    flops: float
    n_star: float
    sd: Union[float, Refusal]
    isoflop_sd: Union[float, Refusal]
    isoflop_shift: Optional[float]


@result
class Power:
    """The power of a design.

    `exponent` is a of N* ~ C^a by the prior law, `sd` its expected standard deviation when the law is fitted to the runs of the design, and
    `log_n_sd` that of log N* at the largest compute. `isoflop` needs budgets. `targets` lie beyond the design.
    """

    rows: int
    flops: float
    exponent: float
    sd: Union[float, Refusal]
    log_n_sd: Union[float, Refusal]
    isoflop: Union[IsoflopPower, Refusal]
    targets: tuple[TargetPower, ...] = ()


def grid(law: Law, values: np.ndarray, budgets: tuple[float, ...], sizes: int, spread: float, seeds: int = 1, off: float = 1.0) -> Runs:
    """Returns a design of IsoFLOP profiles under C = 6 N D.

    A budget has `sizes` sizes from N* / spread to N* x spread of the law, times `off`. Losses are 1, since a design has none.
    """
    splits(law)
    if not budgets or min(budgets) <= 0:
        raise UserError("a design needs positive budgets, such as --budgets 1e18 3e18 1e19")
    if sizes < 3 or seeds < 1 or not spread > 1 or off <= 0:
        raise UserError(
            f"--sizes={sizes} --spread={spread:g} --seeds={seeds} --off={off:g}: give 3 sizes, a spread above 1 and 1 seed at least"
        )
    if (rows := len(budgets) * sizes * seeds) > _MOST:
        raise UserError(f"{rows:,} runs are more than a design can have here, {_MOST:,}: give fewer sizes, seeds or budgets")
    c = np.array(sorted(budgets))
    guess = np.sqrt(c / 120)
    star = frontier.allocate(law, values[None], frontier.six_nd(guess.min() / 30, guess.max() * 30), np.log(c)).log_n[0]
    n = off * np.exp(star[:, None] + np.linspace(-1, 1, sizes) * np.log(spread))
    cells = [(size, c_i / 6 / size, c_i, seed) for c_i, row in zip(c, n, strict=True) for size in row for seed in range(seeds)]
    n_all, d_all, c_all, seed_all = zip(*cells, strict=True)
    frame = {"N": n_all, "D": d_all, "budget": c_all, "seed": seed_all, "loss": [1.0] * len(cells)}
    return from_frame(frame, Columns(budget="budget", seed="seed"), source="design")


def planned(path: Union[str, pathlib.Path], columns: Columns, select: Selection = Selection()) -> Runs:
    """Reads planned runs from a file of any kind that tables come in; no loss is read."""
    table = formats.read(path)
    filled = dataclasses.replace(table, columns=dict(table.columns) | {_LOSS: [1.0] * len(table)})
    made = of_table(filled, dataclasses.replace(columns, loss=_LOSS), select)
    return dataclasses.replace(made, read=tuple(one for one in made.read if one.column != _LOSS))


def power(design: Design, studies: int = _STUDIES, seed: int = 0, targets: tuple[float, ...] = ()) -> Power:
    """Returns the power of a design. Nothing is fitted; `studies` sets of losses are drawn for the IsoFLOP minima.

    Args:
      targets: compute at which N* is foreseen (default: ten times the largest of the design).
    """
    splits(design.law)
    runs, cost = design.exact(), frontier.cost_of(design.runs)
    at = np.log(targets or (10 * float(runs.c.max()),))
    exponent, sd, log_n_sd, beyond = _of_law(design, runs, cost, at)
    missing = Refusal("missing", "no column of budgets: name it with --budget")
    found = missing if runs.budget is None else isoflop(design, studies, seed)
    minima, lines = (found, found) if isinstance(found, Refusal) else found
    star = frontier.allocate(design.law, design.values[None], cost, at).log_n[0]
    return Power(
        len(runs), float(runs.c.sum()), exponent, sd, log_n_sd, minima,
        tuple(_target(c, n, one, lines) for c, n, one in zip(at, star, beyond, strict=True)),
    )  # fmt: skip


def _target(log_c: float, log_n: float, sd: Union[float, Refusal], lines: Union[np.ndarray, Refusal]) -> TargetPower:
    """Reads N* at a compute off the lines [studies, 2] through the minima of simulated studies."""
    flops, n_star = float(np.exp(log_c)), float(np.exp(log_n))
    if isinstance(lines, Refusal):
        return TargetPower(flops, n_star, sd, lines, None)
    found = lines @ np.array([1.0, log_c])
    return TargetPower(flops, n_star, sd, float(found.std(ddof=1)), float(found.mean() - log_n))


Sd = Union[float, Refusal]


def _of_law(design: Design, runs: Runs, cost: frontier.Cost, targets: np.ndarray) -> tuple[float, Sd, Sd, list[Sd]]:
    """Returns a, then the standard deviations of a, of log N* at the largest compute, and of log N* at log C of the targets."""
    points = points_of(runs, design.law)
    local = Local(design.law, design.values, points.centre, design.objective)
    log_c = np.linspace(np.log(runs.c.min()), np.log(runs.c.max()), 9)
    if log_c[-1] - log_c[0] < np.log(1.5):
        raise UserError("the design spans less than a factor 1.5 of compute, so it has no exponent: add budgets")
    slope = np.linalg.pinv(np.stack([np.ones_like(log_c), log_c], axis=1))[1]
    log_n, gradient = local.gradient(cost, log_c)
    sigma = np.asarray(design.noise.sigma(np.log(runs.c), points.log_loss), float)
    if np.min(sigma) <= 0:
        raise UserError("the noise of a design must be positive: give --sigma as a relative standard deviation, such as .003")
    curvature, scatter = (part.sum(axis=0) for part in local.terms(points.log_x, sigma))
    found: list[Sd] = []
    for h in (slope @ gradient, gradient[-1], *local.gradient(cost, targets)[1]):
        value = float(variance(curvature, scatter, h))
        why = Refusal(
            "unidentified",
            f"{counted(len(runs), 'run')} cannot determine {counted(len(design.values), 'parameter')}: add sizes off N*, or budgets",
        )
        found.append(why if not np.isfinite(value) else float(np.sqrt(value)))
    return float(slope @ log_n), found[0], found[1], found[2:]


def isoflop(design: Design, studies: int = _STUDIES, seed: int = 0) -> Union[tuple[IsoflopPower, np.ndarray], Refusal]:
    """Simulates approach 2: parabolas in log N through each budget, and least squares of their minima on log C.

    Returns its power, and (intercept, slope) [studies, 2] of the lines of the studies whose minima are all interior.
    """
    runs = design.exact()
    cells = runs.cells()
    relative = np.asarray(design.noise.sigma(cells.log_c, cells.log_loss), float) * cells.noise_weight
    found = profiles.by_budget(cells)
    if min(len(p.log_n) for p in found) < 3 or len(found) < 2:
        return Refusal("too_few_points", "IsoFLOP minima need at least two budgets of three sizes")
    star = frontier.allocate(design.law, design.values[None], frontier.cost_of(runs), np.array([p.log_c for p in found])).log_n[0]
    log_n, kept, rows = [], np.ones(studies, bool), []
    for profile, at in zip(found, star, strict=True):
        fit = curves.through(profile, cells.noise_weight, "parabola")
        loss = np.exp(profile.log_loss)
        z = bootstrap.generator(seed, f"power {profile.budget:.6e}").standard_normal((studies, len(relative)))
        drawn = curves.lowest(fit, (loss * (1 + (relative * z) @ profile.mix.T)) @ fit.solver.T)
        centred = drawn.u + fit.centre
        log_n.append(centred)
        kept &= ~drawn.lost
        sd = float(np.std(centred[~drawn.lost])) if np.any(~drawn.lost) else 0.0
        rows.append(BudgetPower(profile.budget, len(loss), float(np.exp(at)), chance_interior(fit, loss, profile.mix * relative), sd))
    log_c = np.array([p.log_c for p in found])
    lines = (np.stack(log_n, axis=1) @ np.linalg.pinv(np.stack([np.ones_like(log_c), log_c], axis=1)).T)[kept]
    interior = float(np.prod([row.interior for row in rows]))
    if kept.sum() < 10:
        return Refusal("edge", f"every optimum is interior with probability {interior:.1%}: widen the sizes, or add seeds")
    return IsoflopPower(interior, float(lines[:, 1].mean()), float(lines[:, 1].std(ddof=1)), studies, tuple(rows)), lines


def chance_interior(fit: curves.Curve, loss: np.ndarray, scale: np.ndarray) -> float:
    """Returns the probability that the parabola through losses [k] falls at its first size and rises at its last.

    Args:
      scale: effect of the cells' independent noise, each of relative standard deviation 1, on the losses [k, cells].
    """
    ends = np.array([[0.0, 1.0, 2 * fit.u[0]], [0.0, 1.0, 2 * fit.u[-1]]]) * np.array([[1.0], [-1.0]])
    reads = ends @ fit.solver  # the two slopes as functions of the losses; both must be negative
    mean, factor = reads @ loss, (reads * loss) @ scale
    covariance = factor @ factor.T
    if not np.any(covariance):
        return float(np.all(mean < 0))
    from scipy import stats  # takes half a second to import

    return float(stats.multivariate_normal.cdf(np.zeros(2), mean, covariance, allow_singular=True))
