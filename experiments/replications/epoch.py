"""Besiroglu et al. 2024: Hoffmann's approach 3 on the runs digitised from their figure 4.

D = C / 6 N. The standard filter drops the five highest losses, all below .41 tokens per parameter. Their published point is the optimum
of a Huber likelihood with a fitted scale, near to that of the sum of Huber costs, which is what is compared here.
"""

import pathlib
from collections.abc import Mapping
from typing import Union

import numpy as np

from experiments.replications import tables
from experiments.replications.published_numbers import Check, Replication, at_least, at_most, within
from lm.scaling import runs
from lm.scaling.filters import WithoutHighest
from lm.scaling.fits import fit, frontier, solver
from lm.scaling.fits.objectives import HuberLog, SquaredRaw
from lm.scaling.fits.projection import project
from lm.scaling.fitted_law import FittedLaw, fit_runs, points_of
from lm.scaling.laws.law import Chinchilla
from lm.scaling.results import Refusal
from lm.scaling.runs import Runs

NAME = "epoch"
PUBLISHED = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
OPTIMUM = {"E": (1.8172, 0.0002), "A": (477.8, 1), "B": (2143, 5), "alpha": (0.3473, 0.0002), "beta": (0.3672, 0.0003)}
ALL_PUBLISHED = {"E": 1.892, "A": 535, "B": 13530, "alpha": 0.353, "beta": 0.456}
ALL_OPTIMUM = {"E": (1.8913, 0.0002), "A": (495.7, 1), "B": (12846, 30), "alpha": (0.3493, 0.0002), "beta": (0.4530, 0.0003)}
LEAST_OBJECTIVE = 1.0182741e-3
HOFFMANN = {  # their parameters: (A, B, E, alpha, beta), the sum of Huber costs there
    "as printed": ((406.4, 410.7, 1.69, 0.34, 0.28), 0.0041210),
    "as in the TeX source": ((np.exp(6.0073404), np.exp(6.0179186), np.exp(0.5267228), 0.33917084, 0.2849083), 0.0012312),
}
SQUARED = {  # squared error in nats: points, (E, alpha, beta, a, residual sum of squares or None), as published and held against
    "217 points": (1.9051, 0.35106, 0.45874, 0.5665, 0.062414),
    "240 points": (1.8828, 0.3576, 0.4276, 0.545, None),
}
DRAWS = 4000  # as many as theirs


def table(data: pathlib.Path) -> Runs:
    """Reads all 245 points."""
    column = tables.read(data / "epoch_chinchilla" / "svg_extracted_data.csv")
    n, c = column["Model Size"], column["Training FLOP"]
    return runs.from_frame({"N": n, "D": c / (6 * n), "loss": column["loss"]}, source="epoch_chinchilla")


def filtered(points: Runs) -> Runs:
    """Returns the 240 points without the five highest losses."""
    return points.take(WithoutHighest(5).keep(points))


def exponent(values: Mapping[str, float]) -> float:
    """Returns a of N* ~ C^a."""
    return values["beta"] / (values["alpha"] + values["beta"])


def tokens_per_parameter(values: Mapping[str, float], flops: float) -> float:
    """Returns D* / N* at C = 6 N D."""
    natural = np.array([[values[name] for name in Chinchilla().names]])
    best = frontier.optimum(natural, frontier.six_nd(1e6, 1e13), np.log([flops]))
    return float(np.exp(best.log_d - best.log_n)[0, 0])


def huber(points: Runs, natural: np.ndarray) -> float:
    """Returns the objective of `fit` (Huber, delta 1e-3) at given parameters."""
    return tables.huber_sum(solver.loss(Chinchilla(), natural, np.stack([points.n, points.d], axis=1)), points.loss)


def parameter_checks(
    which: str, made: Union[fit.Fit, Refusal], optimum: Mapping[str, tuple[float, float]], published: Mapping[str, float]
) -> list[Check]:
    """Checks the five parameters of a fit."""
    return [
        within(f"{which}: {name}", made if isinstance(made, Refusal) else made.natural[name], target, tolerance, published[name])
        for name, (target, tolerance) in optimum.items()
    ]


def bootstrap_checks(made: FittedLaw) -> list[Check]:
    """Checks the standard error and the intervals of a = beta / (alpha + beta) over rows, percentiles."""
    drawn = made.draws[:, 4] / (made.draws[:, 3] + made.draws[:, 4])
    low80, high80, low95, high95 = np.quantile(drawn, [0.1, 0.9, 0.025, 0.975])
    return [
        within("240 points: standard error of a", float(np.std(drawn, ddof=1)), 0.020, 0.002, 0.020),
        within("240 points: 80% interval of a, low", low80, 0.494, 0.006),
        within("240 points: 80% interval of a, high", high80, 0.541, 0.006),
        within("240 points: 80% interval of a, width", high80 - low80, 0.051, 0.008, 0.051),
        within("240 points: 95% interval of a, low", low95, 0.482, 0.008),
        within("240 points: 95% interval of a, high", high95, 0.558, 0.008),
    ]


def squared_checks(points: Runs) -> list[Check]:
    """Checks how much the objective alone moves a: squared error in nats, by variable projection."""
    found: list[Check] = []
    kept = {"217 points": points.take(points.c < 1e21), "240 points": points}
    for name, (e, alpha, beta, a, residual) in SQUARED.items():
        law = Chinchilla()
        where = points_of(kept[name], law)
        made = project(law, where, SquaredRaw())
        assert made is not None, "Chinchilla's law has linear parameters"
        values = dict(zip(law.names, law.natural(made.theta, where.centre).tolist(), strict=True))
        targets = {"E": (e, 1e-4), "alpha": (alpha, 1e-4), "beta": (beta, 1e-4)}
        found += [within(f"{name}, squared error: {k}", values[k], target, tol, target) for k, (target, tol) in targets.items()]
        found.append(within(f"{name}, squared error: a", exponent(values), a, 5e-4, a))
        if residual is not None:
            found.append(within(f"{name}, squared error: residual sum of squares", made.value, residual, 1e-6, residual))
    return found


def run(data: pathlib.Path) -> Replication:
    everything = table(data)
    points = filtered(everything)
    law = Chinchilla()
    surface = fit_runs(points, law, draws=DRAWS)
    made = surface if isinstance(surface, Refusal) else surface.fit
    checks = [at_most("240 points: sum of Huber costs", made if isinstance(made, Refusal) else made.value, LEAST_OBJECTIVE)]
    checks += parameter_checks("240 points", made, OPTIMUM, PUBLISHED)
    at_published = huber(points, np.array([PUBLISHED[name] for name in law.names]))
    checks.append(at_least("240 points: sum of Huber costs at the published parameters", at_published, LEAST_OBJECTIVE))
    checks += [
        within(f"240 points: sum of Huber costs at Hoffmann's, {name}", huber(points, np.array(natural)), target, 1e-7)
        for name, (natural, target) in HOFFMANN.items()
    ]
    if not isinstance(made, Refusal) and not isinstance(surface, Refusal):
        checks.append(within("240 points: a", exponent(made.natural), 0.5139, 0.0005, 0.5126))
        checks.append(within("240 points: D / N at 5.76e23", tokens_per_parameter(made.natural, 5.76e23), 17.9, 0.2, 20))
        checks += bootstrap_checks(surface)
    full = fit.fit(law, points_of(everything, law), HuberLog())
    checks += parameter_checks("245 points", full, ALL_OPTIMUM, ALL_PUBLISHED)
    checks.append(within("245 points: a", full if isinstance(full, Refusal) else exponent(full.natural), 0.565, 0.001))
    checks += squared_checks(points)
    notes = (
        "the published parameters are not the optimum of the sum of Huber costs, which is the target; their own 4,500-start cell finds it",
        f"intervals: percentiles of {DRAWS:,} bootstraps over rows, each fitted from three places, seed 0",
        "the squared-error rows are those of arXiv 2603.22339: the objective alone moves a from .514 to .545 on the same points",
    )
    return Replication(NAME, checks=tuple(checks), notes=notes)
