"""The catalogue of laws by name. A new law is a class in a file of this folder and an entry here (docs/scaling.md, "Add a law").

An entry names its class as MODULE:CLASS, so that `--help` lists the laws without an import of jax.
"""

import importlib
from typing import TYPE_CHECKING

from lm.errors import UserError, nearest

if TYPE_CHECKING:
    from lm.scaling.laws.law import Law

LAWS = {  # fitted to the columns of a table: `--law=NAME`
    "chinchilla": "law:Chinchilla",
    "tied": "law:TiedChinchilla",
    "no_irreducible": "loss_laws:NoIrreducible",
    "kaplan": "loss_laws:Kaplan",
    "kaplan_steps": "loss_laws:KaplanSteps",
    "compute_power": "loss_laws:ComputePower",
    "data_constrained": "loss_laws:DataConstrained",
    "over_training": "loss_laws:OverTraining",
    "downstream": "loss_laws:Downstream",
    "sigmoid": "loss_laws:Sigmoid",
    "width_depth": "loss_laws:WidthDepth",
    "width_depth_size": "loss_laws:WidthDepthSize",
    "routed": "routed_laws:Routed",
    "granular": "routed_laws:Granular",
    "joint_experts": "routed_laws:JointExperts",
    "sparse": "routed_laws:Sparse",
    "vocabulary": "further_laws:Vocabulary",
    "precision": "further_laws:Precision",
    "farseer": "further_laws:Farseer",
    "reward_best_of_n": "further_laws:RewardBestOfN",
    "reward_rl": "further_laws:RewardRl",
}
CURVE_LAWS = {  # fitted to whole loss curves, with `schedule_laws.curve_points`
    "multi_power": "schedule_laws:MultiPower",
}


def law(name: str) -> "Law":
    """Returns the law of this name.

    Raises:
      UserError: no law has the name.
    """
    entries = LAWS | CURVE_LAWS
    if name not in entries:
        raise UserError(f"unknown law {name!r}: {nearest(name, entries)}")
    module, _, class_name = entries[name].partition(":")
    return getattr(importlib.import_module(f"lm.scaling.laws.{module}"), class_name)()
