"""Random draws and percentile intervals. Every stream of random numbers is named, so that a new one moves no other."""

import hashlib
from typing import Optional

import numpy as np

from lm.scaling.results import Estimate, Refusal


def generator(seed: int, name: str) -> np.random.Generator:
    """Returns the stream of random numbers of this name."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])


def quantiles(draws: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns equal-tailed percentiles over the first axis.

    They stand at p (R + 1) of R draws: a truth from the distribution of the draws is then covered at the nominal level, whatever R is.
    """
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
    return low, high


def estimate(value: float, draws: np.ndarray, level: float, method: str, refused: Optional[Refusal] = None) -> Estimate:
    """Returns a number with its equal-tailed percentile interval; without one where `refused` says so, or where draws failed."""
    if refused is None and not np.all(np.isfinite(draws)):
        refused = Refusal("interval", f"{np.mean(~np.isfinite(draws)):.0%} of the bootstrap fits failed")
    if refused is not None:
        return Estimate(float(value), None, None, level, method, refused)
    low, high = quantiles(draws, level)
    return Estimate(float(value), float(low), float(high), level, method)


def lost_share(share: float, limit: float, where: str) -> Optional[Refusal]:
    """Refuses the interval when too many draws lost their minimum."""
    if share <= limit:
        return None
    reason = f"{share:.0%} of the draws at {where} have no interior minimum (limit {limit:.0%}): add points further out, or seeds"
    return Refusal("interval", reason)


def within_budget(residuals: np.ndarray, leverage: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """Resamples residuals with replacement, inflated by 1 / sqrt(1 - leverage) and centred: [draws, n] (Davison and Hinkley 1997, 6.3)."""
    scaled = residuals / np.sqrt(np.maximum(1 - leverage, 1e-6))
    scaled = scaled - scaled.mean()
    return scaled[random.integers(0, len(scaled), (draws, len(scaled)))]
