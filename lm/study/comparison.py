"""A comparison asks which of some configurations is best: a frozen, hashed value (imports no jax). Nothing here touches the disk.

The runs of one seed see the same data in the same order, since a run's seed decides the order and not its model: differences between
variants are taken seed by seed.
"""

import dataclasses
import json
from typing import Any, Optional

from lm import config as config_lib
from lm.errors import UserError
from lm.study.cell import Cell, Limits, Speed, plain
from lm.study.execution import ExecutionRule, carried_out
from lm.train.config import RunConfig

ROLE = "variant"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One configuration under comparison. Held-out losses are compared inside a group only; `config.seed` is not read."""

    group: str
    name: str
    config: RunConfig


@dataclasses.dataclass(frozen=True)
class Published:
    """Scores of the same variants in a paper, one for each measure; more is better.

    `sd` is each measure's standard deviation over seeds in the paper.
    """

    source: str
    measures: tuple[str, ...]
    sd: tuple[float, ...]
    scores: tuple[tuple[str, str, tuple[float, ...]], ...]  # (group, variant, scores)

    def of(self, group: str, variant: str) -> Optional[tuple[float, ...]]:
        """Returns a variant's scores; None where the paper has none."""
        return next((scores for g, v, scores in self.scores if (g, v) == (group, variant)), None)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The rules by which the order of two variants counts as resolved, and a variant as trained."""

    factor: float = 2.0  # an order is resolved when the mean difference exceeds this many standard deviations over seeds
    margin: float = 0.5  # nats per target that every run must lie below the entropy of the targets' own frequencies


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantCell(Cell):
    """One run of a variant."""

    group: str
    variant: str

    @property
    def place(self) -> dict[str, Any]:
        return {"role": ROLE, "group": self.group, "variant": self.variant}

    @property
    def columns(self) -> dict[str, str]:
        return {"group": self.group, "variant": self.variant, "seed": str(self.config.seed)}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A question about which of some configurations is better, and the runs that answer it: every variant under every seed.

    `execution` gives each run's mesh and how it is carried out (default: as in its configuration), which changes no run's id.
    """

    name: str
    question: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    published: Optional[Published] = None
    judgement: Judgement = Judgement()
    limits: Limits = Limits()
    speed: Speed = Speed()
    execution: Optional[ExecutionRule] = None

    @property
    def base(self) -> RunConfig:
        return self.variants[0].config

    def cells(self) -> tuple[VariantCell, ...]:
        """Returns every variant under every seed.

        Raises: UserError for variants of one name, that read different text, or whose held-out losses are of text and not of pairs.
        """
        names = [(v.group, v.name) for v in self.variants]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"study {self.name}: variant {twice[0][1]} of group {twice[0][0]} is there twice; rename one")
        for v in self.variants:
            if v.config.likelihood != "pairs":
                learns = f"variant {v.name} learns by objective {v.config.data.objective.name}, whose losses are of whole text"
                raise UserError(
                    f"study {self.name}: {learns}; a comparison is judged by those of pairs: give an objective such as prefix_lm or"
                    " denoising, or make a Study of each"
                )
            if changed := config_lib.differences(_text(self.base), _text(v.config)):
                raise UserError(
                    f"study {self.name}: variant {v.name} reads other text than {names[0][1]} ({changed[0]}); give all the same data"
                )
        return tuple(
            VariantCell(config=dataclasses.replace(carried_out(v.config, self.execution), seed=seed), group=v.group, variant=v.name)
            for v in self.variants
            for seed in self.seeds
        )

    def definition(self) -> dict[str, Any]:
        """Returns everything that decides which runs there are and how they are judged, as JSON values."""
        fields = {
            f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in ("speed", "variants", "execution")
        }
        variants = [{"group": v.group, "name": v.name, "config": config_lib.experiment_part(v.config)} for v in self.variants]
        return json.loads(json.dumps(fields | {"variants": variants}))


def _text(config: RunConfig) -> dict[str, Any]:
    """Returns the fields of a configuration that decide which text its runs read: its data without the objective."""
    data = config_lib.to_dict(config.data)
    return {key: value for key, value in data.items() if key != "objective"}
