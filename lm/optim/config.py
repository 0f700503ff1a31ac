"""Optimizer configuration (imports no jax). The schedules are in lm.optim.schedules; their names stay importable from here."""

import dataclasses
from typing import Optional

from lm.optim.schedules import WSD, Cosine, Linear, Rsqrt, Schedule

__all__ = ["WSD", "Cosine", "Linear", "OptimConfig", "Rsqrt", "Schedule"]


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with decoupled decay on matrices only (Loshchilov & Hutter 2019), after clipping by the global norm."""

    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8
    clip_norm: Optional[float] = 1.0
    schedule: Schedule = WSD()
    warmup_fraction: float = 0.1  # warm-up is the smaller of this share of the run ...
    warmup_tokens: Optional[int] = None  # ... and this many tokens
