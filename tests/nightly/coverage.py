"""Whether nominal 80% and 95% intervals cover that often: `python -m tests.nightly.coverage [--studies=500]` prints a table.

500 studies of two designs, each with a named noise model: the default study's four budgets of seven sizes with its seeds' relative
standard deviation (.69% at the lowest budget, .71% to .74% at the others: .72%), and twelve doubling budgets of seven sizes with Porian's
sigma(L). Every study is fitted by Huber's cost, resampled 119 times (percentiles at p (R + 1) are exact for any R), and asked for E, the
exponents, N*, D* / N* and the loss. The profile's interval covers where the rise at the truth lies below its calibrated cut-off.

The exit status is 1 where percentiles or the calibrated profile lie further than three standard errors below their level; BCa is shown,
and so is approach 2's residual bootstrap, of seven residuals a budget.
"""

import argparse
import math
import sys
import time

import numpy as np

from lm.scaling import coverage
from lm.scaling.approaches import isoflop, profiles
from lm.scaling.fits import constrained, fit, frontier
from lm.scaling.intervals import bootstrap, noise, profile_likelihood, resampling
from lm.scaling.laws.law import Chinchilla
from lm.scaling.runs import Columns, from_frame
from lm.scaling.settings import AnalysisSettings
from tests import synthetic
from tests.scaling import known

LEVELS = (0.8, 0.95)
DRAWS = 119
FEW_RUNS = (8, 12, 20)  # with fewer than 20 runs a law of five parameters gets no interval
DESIGNS = {"own seeds, sigma .72%": known.own_design(), "Porian's sigma(L)": known.porian_design(resampling.PORIAN)}


def quantities(design):
    """Functions of the parameters; "at C" is the largest budget, "at 10 C" ten times beyond it."""
    cost = frontier.six_nd(design.runs.n.min(), design.runs.n.max())
    log_c = np.log(design.runs.c.max()) + np.array([0.0, math.log(10)])

    def best(of):
        return lambda p: of(frontier.optimum(p, cost, log_c))

    return {
        "E": lambda p: p[:, 2],
        "alpha": lambda p: p[:, 3],
        "beta": lambda p: p[:, 4],
        "a": lambda p: np.maximum(p[:, 4], 0) / np.maximum(np.maximum(p[:, 3], 0) + np.maximum(p[:, 4], 0), 1e-300),
        "N* at C": best(lambda o: o.log_n[:, 0]),
        "D*/N* at 10 C": best(lambda o: (o.log_d - o.log_n)[:, 1]),
        "L* at C": best(lambda o: o.log_loss[:, 0]),
        "L* at 10 C": best(lambda o: o.log_loss[:, 1]),
    }


def profiled(design, studies, draws):
    """Shares of studies whose calibrated profile holds the truth: {(quantity, level): share}."""
    law, base = design.law, coverage.fitted(design)
    top = float(design.runs.c.max())
    cost = frontier.six_nd(design.runs.n.min(), design.runs.n.max())
    targets = {
        "alpha": constrained.parameter(law, "alpha"),
        "a": constrained.Derived("a", (top / 10, top), cost),
        "L* at C": constrained.Derived("loss", (top,), cost),
    }
    hits = {(name, level): [] for name in targets for level in LEVELS}
    for study, made in enumerate(coverage.studies_of(base, design.simulate(studies, 0))):
        losses = profile_likelihood.simulated(made, design.runs, resampling.Noise(design.noise), draws, study)
        free = fit.refit(made, losses, extra=0).value
        natural = law.natural(made.theta[None], made.points.centre)
        for name, target in targets.items():
            truth, value = (float(target.of(law, p)[0]) for p in (design.values[None], natural))
            at_truth = profile_likelihood.constrained_rise(made, target, truth, made.points.log_loss[None], np.array([made.value]))[0]
            rises = profile_likelihood.constrained_rise(made, target, value, losses, free)
            for level in LEVELS:
                hits[name, level].append(at_truth <= np.quantile(rises, level, method="weibull"))
    return {key: float(np.mean(found)) for key, found in hits.items()}


def by_isoflop(studies, draws=DRAWS):
    """Shares of studies whose interval of a by approach 2 holds the truth, with seeds and without: {(method, level): share}."""
    exact = synthetic.cells(synthetic.study())
    flops = np.log(sorted(set(exact.budget.tolist())))
    truth = np.polyfit(flops, frontier.optimum(np.array([synthetic.LAW]), frontier.cost_of(exact), flops).log_n[0], 1)[0]
    hits = {}
    for study in range(studies):
        for replicas in (True, False):
            table = synthetic.table(synthetic.study(sigma=0.0072, seed=study, replicas=replicas))
            for level in LEVELS:
                settings = AnalysisSettings(draws=draws, level=level)
                cells, seeds = table.cells(), noise.fit_noise(table, settings)
                made = isoflop.fit_isoflop(profiles.by_budget(cells), cells, seeds, settings)[0].a
                hits.setdefault((made.method, level), []).append(made.covers(truth))
    return {key: float(np.mean(found)) for key, found in hits.items()}


def by_runs(runs, studies, points=6, shared=0.005, own=0.002):
    """Shares of studies whose bootstrap over runs holds the truth, where the points of a run share most of their noise."""
    sizes, lengths = np.geomspace(5e7, 5e9, runs), np.geomspace(2e9, 2e11, points)
    n, d = np.repeat(np.random.default_rng(0).permutation(sizes), points), np.tile(lengths, runs)
    names = [str(run) for run in np.repeat(np.arange(runs), points)]
    table = from_frame({"N": n, "D": d, "loss": np.ones(len(n)), "run": names}, Columns(run="run"))
    design = coverage.Design(table, Chinchilla(), np.array(known.EPOCH), known.Flat())
    base, asked, random = coverage.fitted(design), quantities(design), np.random.default_rng(1)
    noise = shared * np.repeat(random.standard_normal((studies, runs)), points, axis=1)
    log_loss = np.log(design.exact().loss) + noise + own * random.standard_normal(noise.shape)
    truth = {name: float(of(design.values[None])[0]) for name, of in asked.items()}
    hits = {(name, level): [] for name in asked for level in LEVELS}
    for study, made in enumerate(coverage.studies_of(base, log_loss)):
        weights = resampling.ByRun().draw(made, table, DRAWS, study)[1]
        drawn = design.law.natural(fit.refit(made, made.points.log_loss, weights, extra=0).theta, made.points.centre)
        for name, of in asked.items():
            for level in LEVELS:
                low, high = bootstrap.quantiles(of(drawn), level)
                hits[name, level].append(low <= truth[name] <= high)
    return {key: float(np.mean(found)) for key, found in hits.items()}


def show(title, shares, studies, judged):
    """Prints a line per level; returns whether one lies three standard errors below its level."""
    low = False
    for level in LEVELS:
        error = math.sqrt(level * (1 - level) / studies)
        cells = [(name, share) for (name, at), share in shares.items() if at == level]
        marked = ["!" if share < level - 3 * error else "" for _, share in cells]
        low |= judged and any(marked)
        print(f"{title:44s} {level:.0%} +-{error:.1%}  " + "  ".join(f"{n} {s:.1%}{m}" for (n, s), m in zip(cells, marked, strict=True)))
    sys.stdout.flush()
    return low


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument(
        "--profile-studies", type=int, default=200, help="of the calibrated profile, whose every study is fitted five times"
    )
    args = parser.parse_args()
    failed, began = False, time.monotonic()
    for name, design in DESIGNS.items():
        print(f"{name}: {len(design.runs)} rows, {args.studies} studies, {DRAWS} draws each")
        strategies = (resampling.Noise(design.noise), resampling.Rows(), resampling.RowsBCa())
        for strategy in strategies:
            found = coverage.coverage(design, strategy, quantities(design), args.studies, DRAWS, LEVELS)
            shares = {(one.quantity, one.level): one.share for one in found}
            failed |= show(strategy.name + ("" if strategy.bca else ", percentile"), shares, args.studies, not strategy.bca)
        failed |= show(profile_likelihood.PROFILE, profiled(design, args.profile_studies, 59), args.profile_studies, True)
    found = by_isoflop(args.studies)
    print(f"approach 2: 28 cells, sigma .72%, {args.studies} studies, {DRAWS} draws each")
    for method, judged in ((isoflop.PARAMETRIC, True), (isoflop.RESIDUAL, False)):
        shares = {("a", level): share for (name, level), share in found.items() if name == method}
        failed |= show(f"{method}, percentile", shares, args.studies, judged)
    for runs in FEW_RUNS:
        title = f"bootstrap over {runs} runs of 6 points"
        failed |= show(title, by_runs(runs, args.profile_studies), args.profile_studies, runs >= resampling.PER_PARAMETER * 5)
    print(f"{time.monotonic() - began:.0f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
