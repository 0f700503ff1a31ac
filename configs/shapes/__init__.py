"""Shapes of published models: tables that the configurations of configs/ read, with the parameter counts that their authors state."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Optional

from lm.errors import UserError
from lm.model.config import ModelConfig
from lm.train.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model and the count that is published of it: `published` = ours - `difference`, within a share `within` (0: exactly)."""

    model: ModelConfig
    published: Optional[int]  # None: nobody states one
    within: float = 0.0
    difference: int = 0  # ours less theirs, for the reason that the family's function gives


def choose(file: str, configs: Mapping[str, Callable[[], RunConfig]], name: str) -> RunConfig:
    """Returns the configuration called `name`. Raises UserError that names the nearest one."""
    if name not in configs:
        near = difflib.get_close_matches(name, configs, n=1, cutoff=0.0)
        raise UserError(f"{file} has no {name!r}; the nearest is {near[0]!r}, all are:", names=list(configs))
    return configs[name]()
