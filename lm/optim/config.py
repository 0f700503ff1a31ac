"""Optimizer and schedule configurations, and the schedules themselves as pure functions (imports no jax)."""

import dataclasses
from typing import ClassVar, Optional, Union


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Half a cosine from the peak to `final` times the peak at the end of the run."""

    name: ClassVar[str] = "cosine"
    final: float = 0.1


@dataclasses.dataclass(frozen=True)
class WSD:
    """Warm-up, stable, decay: constant, then to `final` times the peak over the last `cooldown` of the run."""

    name: ClassVar[str] = "wsd"
    cooldown: float = 0.3
    final: float = 0.0


@dataclasses.dataclass(frozen=True)
class Linear:
    """A line from the peak to `final` times the peak at the end of the run."""

    name: ClassVar[str] = "linear"
    final: float = 0.0


@dataclasses.dataclass(frozen=True)
class Rsqrt:
    """Inverse square root of the step, equal to the peak when warm-up ends."""

    name: ClassVar[str] = "rsqrt"


Schedule = Union[Cosine, WSD, Linear, Rsqrt]


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
