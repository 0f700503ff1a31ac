"""Laws by name, as the commands and the documentation know them."""

from typing import Union

from lm.scaling.laws.formula import Formula
from lm.scaling.laws.law import Chinchilla, TiedChinchilla
from lm.scaling.laws.loss_laws import (
    ComputePower,
    DataConstrained,
    Downstream,
    Kaplan,
    KaplanSteps,
    NoIrreducible,
    OverTraining,
    WidthDepth,
    WidthDepthSize,
)
from lm.scaling.laws.schedule_laws import MultiPower

LAWS: dict[str, Union[Chinchilla, TiedChinchilla, Formula, MultiPower]] = {
    "chinchilla": Chinchilla(),
    "tied": TiedChinchilla(),
    "no_irreducible": NoIrreducible(),
    "kaplan": Kaplan(),
    "kaplan_steps": KaplanSteps(),
    "compute_power": ComputePower(),
    "data_constrained": DataConstrained(),
    "over_training": OverTraining(),
    "downstream": Downstream(),
    "width_depth": WidthDepth(),
    "width_depth_size": WidthDepthSize(),
    "multi_power": MultiPower(),  # fitted to whole curves: schedule_laws.curve_points
}
