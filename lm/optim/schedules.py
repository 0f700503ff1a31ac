"""Learning-rate schedules: frozen dataclasses with one method, a pure function of (step, warm-up, total).

The same code runs on the host with numpy and in the compiled step with jax.numpy (the argument `xp`), in float32. Imports no jax.

Step t is the update that starts from t completed steps, so the first is 0. Warm-up gives (t + 1) / warm-up: no update is made at
rate 0. A decay reaches `final` at t = total, one past the last update, so the last update still moves.
"""

import dataclasses
from types import ModuleType
from typing import Any, ClassVar, Union

import numpy as np


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Half a cosine from the peak to `final` times the peak at the end of the run (Loshchilov & Hutter 2017)."""

    name: ClassVar[str] = "cosine"
    final: float = 0.1  # final rate over the peak rate

    def after_warmup(self, step, warmup, total, xp: ModuleType):
        progress = (step - warmup) / xp.maximum(total - warmup, 1.0)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + xp.cos(np.float32(np.pi) * xp.clip(progress, 0.0, 1.0)))


@dataclasses.dataclass(frozen=True)
class WSD:
    """Warm-up, a constant rate, then a line to `final` times the peak over the last whole steps (Hu et al. 2024)."""

    name: ClassVar[str] = "wsd"
    cooldown: float = 0.3  # share of the run in which the rate falls
    final: float = 0.0  # final rate over the peak rate

    def after_warmup(self, step, warmup, total, xp: ModuleType):
        del warmup
        left = xp.clip((total - step) / xp.maximum(xp.round(self.cooldown * total), 1.0), 0.0, 1.0)
        return self.final + (1.0 - self.final) * left


@dataclasses.dataclass(frozen=True)
class Linear:
    """A line from the peak to `final` times the peak at the end of the run."""

    name: ClassVar[str] = "linear"
    final: float = 0.0  # final rate over the peak rate

    def after_warmup(self, step, warmup, total, xp: ModuleType):
        left = xp.clip((total - step) / xp.maximum(total - warmup, 1.0), 0.0, 1.0)
        return self.final + (1.0 - self.final) * left


@dataclasses.dataclass(frozen=True)
class Rsqrt:
    """The inverse square root of the step, equal to the peak when warm-up ends (Vaswani et al. 2017, eq. 3). It has no final decay."""

    name: ClassVar[str] = "rsqrt"
    rising: bool = True  # whether warm-up rises in a line; false, as in T5: it is at the peak

    def after_warmup(self, step, warmup, total, xp: ModuleType):
        del total
        peak_step = xp.maximum(warmup, 1.0)
        return xp.sqrt(peak_step / xp.maximum(step + 1.0, peak_step))


Schedule = Union[Cosine, WSD, Linear, Rsqrt]


def rate_ratio(schedule: Schedule, step, warmup_steps, total_steps, xp: ModuleType = np) -> Any:
    """Returns the learning rate of update `step` over the peak rate, float32; scalars or arrays of numpy or (xp=jax.numpy) of jax."""
    step, warmup, total = (xp.asarray(x).astype(np.float32) for x in (step, warmup_steps, total_steps))
    if isinstance(schedule, Rsqrt) and not schedule.rising:
        return schedule.after_warmup(xp.maximum(step, warmup - 1.0), warmup, total, xp)
    rising = (step + 1.0) / xp.maximum(warmup, 1.0)
    return xp.minimum(rising, 1.0) * schedule.after_warmup(xp.maximum(step, warmup - 1.0), warmup, total, xp)


def warmup_steps(fraction: float, tokens: int | None, total_steps: int, tokens_per_step: int) -> int:
    """Returns the steps of learning-rate warm-up: the smaller of a share of the run and a token count.

    A long warm-up penalises short runs (Porian et al. 2024).
    """
    by_share = int(fraction * total_steps)
    return by_share if tokens is None else min(by_share, tokens // tokens_per_step)


def decay_start(schedule: Schedule, warmup: int, total: int) -> int:
    """Returns the number of steps after which the rate begins to fall; `total` when it never does before the run's end."""
    if isinstance(schedule, WSD):
        return max(warmup, total - int(np.round(np.float32(schedule.cooldown) * np.float32(total))))
    return min(warmup, total)


def is_decayed(schedule: Schedule, step: int, total: int) -> bool:
    """Says whether the weights after `step` updates stand at the end of a finished decay (rsqrt has none)."""
    decays = not isinstance(schedule, Rsqrt) and not (isinstance(schedule, WSD) and schedule.cooldown == 0.0)
    return decays and step >= total
