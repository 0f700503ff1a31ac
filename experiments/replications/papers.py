"""The papers that can be replicated, and the public data that each needs (imports no jax)."""

import dataclasses
import pathlib
import shlex
from collections.abc import Sequence
from typing import Optional

from experiments.replications.sources import SOURCES
from lm.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Paper:
    """One paper, a module of this package. `folders` hold its data, under --data; `sources` says where each is public."""

    name: str
    title: str
    source: str
    folders: tuple[str, ...] = ()

    def missing(self, data: Optional[pathlib.Path]) -> list[str]:
        """Returns the folders that are not there."""
        return [folder for folder in self.folders if data is None or not (data / folder).is_dir()]


TABLES = "tables"  # the folder of --data that is proposed
HOW = f"to get them, git clone their repositories and add --published CLONE ... --data={TABLES}"
PAPERS = {
    paper.name: paper
    for paper in (
        Paper("hoffmann", "Hoffmann et al. 2022, Chinchilla", "arXiv 2203.15556", ("chinchilla_tables", "epoch_chinchilla")),
        Paper("epoch", "Besiroglu et al. 2024, Chinchilla replicated", "arXiv 2404.10102", ("epoch_chinchilla",)),
        Paper("porian", "Porian et al. 2024, from Kaplan's exponent to Chinchilla's", "arXiv 2406.19146", ("porian",)),
        Paper("gemstones", "McLeish et al. 2025, Gemstones", "arXiv 2502.06857", ("gemstones",)),
        Paper("muennighoff", "Muennighoff et al. 2023, data-constrained", "arXiv 2305.16264", ("datablations",)),
        Paper("olmo", "Bhagia et al. 2024, OLMo ladder", "arXiv 2412.04403", ("olmo_ladder",)),
        Paper("multi_power", "Luo et al. 2025, multi-power law", "arXiv 2503.12811", ("multi_power_law",)),
        Paper("regmix", "Liu et al. 2024, RegMix", "arXiv 2407.01492", ("regmix",)),
        Paper("clark", "Clark et al. 2022, routed language models", "arXiv 2202.01169", ("clark_routing",)),
        Paper("tao", "Tao et al. 2024, scaling laws with vocabulary", "arXiv 2407.13623", ("scaling_with_vocab",)),
        Paper("step_law", "Li et al. 2025, Step Law of learning rate and batch size", "arXiv 2503.04715", ("step_law",)),
        Paper("nanochat", "nanochat, three ways of counting N", "github.com/karpathy/nanochat", ("nanochat_isoflop",)),
        Paper("kaplan", "Kaplan et al. 2020, constants as formulas", "arXiv 2001.08361"),
        Paper("synthetic", "approach 2's bias and recovery on known surfaces", "arXiv 2603.22339"),
    )
}


def chosen(names: Sequence[str], data: Optional[pathlib.Path]) -> tuple[list[Paper], list[Paper]]:
    """Returns the papers to run, and those left out because their data is not there.

    Raises: UserError for a name that is unknown, and for a named paper whose data is not there.
    """
    if data is not None and not data.is_dir():
        raise UserError(f"no folder {data}: give --data the folder that holds {', '.join(SOURCES)}")
    unknown = [name for name in names if name not in PAPERS]
    if unknown:
        raise UserError(f"unknown replication {unknown[0]!r}: {nearest(unknown[0], PAPERS)}")
    picked = [PAPERS[name] for name in dict.fromkeys(names or PAPERS)]
    for paper in picked if names else ():
        if lacking := paper.missing(data):
            raise UserError(f"{absent(paper, lacking, data)}; {remedy(paper, lacking, data)}")
    return [paper for paper in picked if not paper.missing(data)], [paper for paper in picked if paper.missing(data)]


def absent(paper: Paper, lacking: Sequence[str], data: Optional[pathlib.Path]) -> str:
    """Returns a line that names the folders that a paper lacks and where they are public."""
    where = TABLES if data is None else str(data)
    return f"{paper.name} needs " + " and ".join(f"{where}/{folder} ({SOURCES[folder].where})" for folder in lacking)


def remedy(paper: Paper, lacking: Sequence[str], data: Optional[pathlib.Path]) -> str:
    """Returns the commands that get the folders that a paper lacks, to be pasted, and then replicate it."""
    sources = [SOURCES[folder] for folder in lacking]
    typed = [f"{source.folder} has to be typed (docs/replications.md)" for source in sources if source.marker is None]
    public = [source.repository for source in sources if source.marker is not None]
    clones = [f"git clone --depth=1 https://{repository}" for repository in public]
    published = [f"--published {' '.join(repository.rpartition('/')[2] for repository in public)}"] if public else []
    again = " ".join(["python -m experiments.replications", paper.name, *published, f"--data={shlex.quote(str(data or TABLES))}"])
    return "; ".join([*typed, "run: " + " && ".join([*clones, again])])
