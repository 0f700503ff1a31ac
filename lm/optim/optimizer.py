"""The optimizer that a configuration names, as a chain of optax's transforms, and where its state lies.

Peak rate, weight decay, warm-up and horizon are arguments of each update (`hyper`), so that runs of one shape share a compiled step.
"""

from typing import Any

import jax
import optax

from lm.errors import UserError
from lm.optim import adafactor, adam
from lm.optim.config import Adafactor, OptimConfig
from lm.optim.descent import decay_and_descend, groups
from lm.types import Params


def make_optimizer(config: OptimConfig, params: Params, axes: Params) -> optax.GradientTransformationExtraArgs:
    """Returns clipping by the global norm, the scaling of AdamW or Adafactor, and decay and descent.

    Clipping (Pascanu et al. 2013) hides nothing: a norm that is NaN makes every gradient NaN, and an infinite one makes finite entries 0
    and infinite ones NaN. The step's `grad_norm` is measured before it.

    Args:
      config: the optimizer's configuration.
      params: the weights, which may be abstract.
      axes: their logical axes.

    Returns:
      A transformation whose update takes the extra arguments `step` (int32), `hyper` (Hyper) and `is_sound` (bool, true by default). Where
      that is false its state stays as it is, and its updates mean nothing.

    Raises:
      UserError: settings that belong to the other optimizer, or leave no update.
    """
    _check(config)
    clip = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    decayed = jax.tree.map(lambda group: group == "matrix", groups(params, axes))
    return optax.chain(*clip, _scale(config, axes), decay_and_descend(config.schedule, decayed))


def _scale(config: OptimConfig, axes: Params) -> optax.GradientTransformationExtraArgs:
    if isinstance(config.optimizer, Adafactor):
        return adam.holding(adafactor.scale_by_adafactor(config.optimizer, axes))
    return adam.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)


def _check(config: OptimConfig) -> None:
    if not isinstance(config.optimizer, Adafactor):
        return
    if config.optimizer.clipping is not None and config.optimizer.clipping <= 0:
        raise UserError(
            f"optim.optimizer.clipping={config.optimizer.clipping:g} leaves no update:"
            " give more than 0, or --config.optim.optimizer.clipping=none"
        )
    default = OptimConfig()
    idle = [name for name in ("beta1", "beta2", "epsilon") if getattr(config, name) != getattr(default, name)]
    if idle:
        raise UserError(f"optim.{idle[0]}={getattr(config, idle[0])} is AdamW's and optim.optimizer is adafactor: leave it out")


def state_shardings(config: OptimConfig, state: Any, params: Params, axes: Params, where: Params, elsewhere: Any) -> Any:
    """Returns a tree of shardings like the abstract `state`: moments lie where their weights lie (`where`), counters `elsewhere`."""
    if isinstance(config.optimizer, Adafactor):
        placed = adafactor.state_shardings(config.optimizer, params, axes, where)
        return tuple(placed if isinstance(part, adafactor.AdafactorState) else part for part in state)
    optimizer = make_optimizer(config, params, axes)
    return optax.tree_utils.tree_map_params(optimizer, lambda _, at: at, state, where, transform_non_params=lambda _: elsewhere)
