"""The mixture with the least predicted loss, with an interval for the share of every domain."""

import numpy as np

from lm.scaling.intervals import bootstrap
from lm.scaling.mixtures.models import MODELS, Fitted
from lm.scaling.mixtures.table import Mixtures
from lm.scaling.results import Estimate, result

CANDIDATES, BEST = 100_000, 128  # mixtures that are drawn, and those whose mean is the optimum (Liu et al. 2024)
_DRAWN = 3000  # candidates of the least loss over which functions are drawn: with 1,500 one in ten of the best are left out on RegMix


@result
class Held:
    """The rank correlation of predicted and measured losses over mixtures that were not fitted."""

    name: str
    mixtures: int
    spearman: float


@result
class BestMixture:
    """The mixture with the least predicted loss. `shares` are by domain, and `loss` is at their mean."""

    model: str
    equation: str
    source: str
    rows: int
    target: str
    shares: dict[str, Estimate]
    loss: Estimate
    lowest: float  # loss of the best mixture that was trained
    held: tuple[Held, ...]


def candidates(share: np.ndarray, seed: int, count: int = CANDIDATES, centre: np.ndarray | None = None) -> np.ndarray:
    """Draws mixtures from a Dirichlet distribution about `centre` (default: the mean of the trained mixtures): [count, m].

    Its parameters sum to 1, as in Liu et al. 2024, so that many of its mixtures are nearly of one domain and none leaves the simplex.
    """
    mean = share.mean(axis=0) if centre is None else centre
    return bootstrap.generator(seed, "candidates").dirichlet(np.maximum(mean / mean.sum(), 1e-4), count)


def best(
    data: Mixtures, fitted: Fitted, seed: int, level: float, draws: int, centre: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean of the BEST candidates under the fitted model [m], and under each of `draws` further functions [draws, m]."""
    drawn = candidates(data.share, seed, centre=centre)
    near = drawn[np.argsort(fitted.predict(drawn), kind="stable")[:_DRAWN]]
    others = fitted.draws(near, draws, seed)
    means = np.stack([near[index].mean(axis=0) for index in np.argsort(others, axis=1, kind="stable")[:, :BEST]])
    return near[:BEST].mean(axis=0), means


def rank_correlation(fitted: Fitted, held: Mixtures) -> float:
    """Returns Spearman's rank correlation of predicted and measured losses."""
    from scipy import stats

    return float(stats.spearmanr(fitted.predict(held.share), held.loss).statistic)


def best_mixture(
    data: Mixtures, model: str, target: str, held: dict[str, Mixtures], level: float = 0.8, draws: int = 200, seed: int = 0,
    centre: np.ndarray | None = None,
) -> BestMixture:  # fmt: skip
    """Fits a model to mixtures and finds the one with the least predicted loss; `held` are mixtures to judge the model by."""
    kind = MODELS[model]
    fitted = kind.fit(data.share, data.loss)
    share, others = best(data, fitted, seed, level, draws, centre)
    judged = tuple(Held(name, len(one.loss), rank_correlation(fitted, one)) for name, one in held.items())
    at = np.exp(np.concatenate([fitted.predict(share[None]), fitted.draws(share[None], draws, seed)[:, 0]]))
    method = "posterior draws" if model == "process" else "refits to resampled mixtures"
    shares = {name: bootstrap.estimate(share[i], others[:, i], level, method) for i, name in enumerate(data.names)}
    loss = bootstrap.estimate(at[0], at[1:], level, method)
    return BestMixture(model, kind.equation, kind.source, len(data.loss), target, shares, loss, float(data.loss.min()), judged)
