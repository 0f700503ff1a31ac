"""Times the fit of a published analysis by this library and by scipy's L-BFGS-B: 4,500 starts, then 4,000 resamples from five starts each.

The table is Epoch's 240 points where it is given, else 240 points drawn from the law that was fitted to them. scipy runs with the analytic
gradient in one process, on a sample of the same problems, and its time is scaled to all of them.
"""

import time
from typing import TYPE_CHECKING, NamedTuple, Optional

import numpy as np

from lm.errors import AGAIN, Parser, counted, run_cli
from lm.scaling.commands import table
from lm.scaling.runs import Runs

if TYPE_CHECKING:
    from lm.scaling.fits.fit import Fit

LAW = np.array([477.8, 2143.4, 1.8172, 0.3473, 0.3672])
STARTS = 5


class Timing(NamedTuple):
    """Seconds that the fit took. `ratio` compares processor times, which other work on the machine leaves alone."""

    fit: float  # the first fit, with its compiling
    resamples: float
    processor: float  # processor time of both
    converged: float  # share of the resamples
    scipy: Optional[float]  # processor time of scipy on the same work; None where it was not asked for
    better: Optional[float]  # share of the resamples where scipy's best end lies more than 1e-9 above ours

    @property
    def total(self) -> float:
        return self.fit + self.resamples

    @property
    def ratio(self) -> Optional[float]:
        return None if self.scipy is None else self.scipy / self.processor


def synthetic(count: int = 240, seed: int = 0) -> Runs:
    """Draws points of the law on the range of Epoch's table, with the spread of its residuals."""
    from lm.scaling.intervals import bootstrap

    random = bootstrap.generator(seed, "benchmark")
    log_n = random.uniform(np.log(5e7), np.log(1.5e10), count)
    log_c = random.uniform(np.log(1e19), np.log(3e21), count)
    log_d = log_c - np.log(6.0) - log_n
    a, b, e, alpha, beta = LAW
    loss = (e + a * np.exp(-alpha * log_n) + b * np.exp(-beta * log_d)) * np.exp(0.0075 * random.standard_normal(count))
    inputs = {"N": np.exp(log_n), "D": np.exp(log_d), "C": np.exp(log_c), "M": np.exp(log_d - log_n)}
    return Runs(inputs, loss, tuple(str(i) for i in range(count)), counted=True, source="240 synthetic points")


def measure(runs: Runs, resamples: int = 4000, sample: int = 100, seed: int = 0) -> Timing:
    """Times our fit, and scipy on `sample` problems of each kind (0 for none)."""
    from lm.scaling.fits import fit
    from lm.scaling.fits.objectives import HuberLog
    from lm.scaling.fitted_law import points_of
    from lm.scaling.intervals import bootstrap
    from lm.scaling.laws.law import Chinchilla

    points = points_of(runs, Chinchilla())
    began, busy = time.perf_counter(), time.process_time()
    made = fit.fit(Chinchilla(), points, HuberLog())
    if not isinstance(made, fit.Fit):
        raise ValueError(made.reason)
    fitted = time.perf_counter()
    picks = bootstrap.generator(seed, "benchmark rows").integers(0, len(runs), (resamples, len(runs)))
    weights = np.stack([np.bincount(pick, minlength=len(runs)) for pick in picks]).astype(float)
    ends = fit.refit(made, points.log_loss, weights, extra=STARTS - 1)
    done = time.perf_counter()
    timing = Timing(fitted - began, done - fitted, time.process_time() - busy, float(ends.converged.mean()), None, None)
    return timing if not sample else _with_scipy(timing, made, weights, ends.value, sample)


def _with_scipy(timing: Timing, made: "Fit", weights: np.ndarray, value: np.ndarray, sample: int) -> Timing:
    from lm.scaling.intervals import bootstrap

    log_n, log_d = made.points.log_x.T
    starts = made.law.starts(np.zeros(2))
    chosen = starts[bootstrap.generator(0, "benchmark starts").permutation(len(starts))[:sample]]
    began = time.process_time()
    for start in chosen:
        _minimise(start, log_n, log_d, made.points.log_loss, made.points.weights)
    fitted = time.process_time() - began
    near = np.concatenate([made.theta[None], made.others[: STARTS - 1]])
    near = made.law.coordinates(made.law.natural(near, made.points.centre), np.zeros(2))
    began, worse = time.process_time(), 0
    for row, best in zip(weights[:sample], value[:sample], strict=True):
        ends = [_minimise(start, log_n, log_d, made.points.log_loss, row) for start in near]
        worse += min(ends) > best * (1 + 1e-9)
    resampled = time.process_time() - began
    scipy = fitted / len(chosen) * len(starts) + resampled / min(sample, len(weights)) * len(weights)
    return timing._replace(scipy=scipy, better=worse / min(sample, len(weights)))


def _minimise(start: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, log_loss: np.ndarray, weights: np.ndarray) -> float:
    """Returns the Huber sum where L-BFGS-B stops with tolerances that let it converge; coordinates are log A, log B, log E, alpha, beta."""
    from scipy.optimize import minimize

    from lm.scaling.fits.objectives import HuberLog

    delta = HuberLog().delta

    def total(theta: np.ndarray) -> tuple[float, np.ndarray]:
        terms = np.stack([theta[0] - theta[3] * log_n, theta[1] - theta[4] * log_d, np.full_like(log_n, theta[2])])
        top = terms.max(axis=0)
        share = np.exp(terms - top)
        whole = share.sum(axis=0)
        r = top + np.log(whole) - log_loss
        clipped = np.clip(r, -delta, delta)
        pull = weights * clipped * share / whole
        a, b, e = pull.sum(axis=1)
        gradient = np.array([a, b, e, -pull[0] @ log_n, -pull[1] @ log_d])
        return float(np.sum(weights * clipped * (r - 0.5 * clipped))), gradient

    made = minimize(total, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-12})
    return float(made.fun)


def main(argv: Optional[list[str]] = None) -> int:
    parser = Parser(prog="python -m experiments.replications.benchmark", description=__doc__)
    parser.add_argument("csv", nargs="?", help="a table (default: 240 points drawn from the law fitted to Epoch's)")
    table.column_arguments(parser)
    parser.add_argument("--resamples", type=int, default=4000, help="bootstrap resamples (default: 4000)")
    parser.add_argument("--sample", type=int, default=40, help="problems of each kind that scipy solves; 0 for none (default: 40)")
    args = parser.parse_args(argv)
    runs = table.table_of(args) if args.csv else synthetic()
    made = measure(runs, args.resamples, args.sample)
    print(f"{runs.source}: {counted(len(runs), 'row')}")
    print(f"4,500 starts                    {made.fit:7.1f} s, compiling included")
    print(f"{args.resamples:,} resamples x 5 starts      {made.resamples:7.1f} s, {made.converged:.2%} converged")
    print(f"total                           {made.total:7.1f} s, {made.processor:.1f} s of processor time")
    if made.scipy is not None and made.better is not None:
        print(f"scipy L-BFGS-B, one process     {made.scipy:7.1f} s of processor time, {made.ratio:.0f} times as much")
        print(f"  scaled from {args.sample} problems of each kind; its best end is above ours at {made.better:.0%} of the resamples")
    return 0


if __name__ == "__main__":
    run_cli(main, AGAIN)
