"""The configuration of optimizers (imports no jax). Schedules are in lm.optim.schedules and can be imported from here too."""

import dataclasses
from typing import ClassVar, Optional, Union

from lm.optim.schedules import WSD, Cosine, Linear, Rsqrt, Schedule

__all__ = ["WSD", "Adafactor", "AdamW", "Cosine", "Linear", "OptimConfig", "Rsqrt", "Schedule", "t5"]


@dataclasses.dataclass(frozen=True)
class AdamW:
    """AdamW (Kingma & Ba 2015; Loshchilov & Hutter 2019). Its settings are OptimConfig's beta1, beta2 and epsilon."""

    name: ClassVar[str] = "adamw"
    state_per_weight: ClassVar[float] = 2  # numbers of optimizer state for each weight


@dataclasses.dataclass(frozen=True)
class Adafactor:
    """Adafactor without momentum (Shazeer & Stern 2018); the defaults are T5's (Raffel et al. 2020, section 3.1.2)."""

    name: ClassVar[str] = "adafactor"
    state_per_weight: ClassVar[float] = 0.1  # about: a row and a column of second moments for each matrix
    decay_exponent: float = 0.8  # x in 1 - t^-x, by which means of squared gradients decay at update t
    clipping: Optional[float] = 1.0  # largest root mean square of a weight's update, before its scale (none: no limit)
    scale_by_weight: bool = True  # multiply updates by the weight's root mean square
    smallest_scale: float = 1e-3  # least factor of scale_by_weight
    epsilon: float = 1e-30  # added to squared gradients
    smallest_factored: int = 128  # least side of a matrix whose second moments are factored


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimizer with its schedule, clipping by the global norm, and decoupled weight decay (Loshchilov & Hutter 2019)."""

    learning_rate: float = 3e-3  # peak learning rate
    weight_decay: float = 0.0  # decoupled weight decay of matrices, multiplied by the scheduled rate
    beta1: float = 0.9  # AdamW: decay of the first moment
    beta2: float = 0.98  # AdamW: decay of the second moment
    epsilon: float = 1e-8  # AdamW: added to the root of the second moment
    clip_norm: Optional[float] = 1.0  # largest global norm of the gradient (none: no clipping)
    schedule: Schedule = WSD()  # learning-rate schedule after warm-up
    warmup_fraction: float = 0.1  # learning-rate warm-up, as a share of the run
    warmup_tokens: Optional[int] = None  # longest warm-up, in tokens (default: no limit)
    optimizer: Union[AdamW, Adafactor] = AdamW()  # optimizer


def t5(warmup_steps: int, tokens_per_step: int) -> OptimConfig:
    """Returns T5's recipe: Adafactor at the rate 1 / sqrt(max(n, warm-up)) for update n (Raffel et al. 2020, section 3.1.2).

    Args:
      warmup_steps: steps of warm-up; T5 takes 10,000 of 524,288.
      tokens_per_step: tokens of text that a step consumes, as D counts them.
    """
    return OptimConfig(
        learning_rate=warmup_steps**-0.5,
        clip_norm=None,
        schedule=Rsqrt(rising=False),
        warmup_fraction=1.0,
        warmup_tokens=warmup_steps * tokens_per_step,
        optimizer=Adafactor(),
    )
