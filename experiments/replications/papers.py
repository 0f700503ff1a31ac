"""The papers that can be replicated, and the public data that each needs (imports no jax)."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Optional

from lm.errors import UserError


@dataclasses.dataclass(frozen=True)
class Paper:
    """One paper, a module of this package. `folders` hold its data, under --data; SOURCES says where each is public."""

    name: str
    title: str
    source: str
    folders: tuple[str, ...] = ()

    def missing(self, data: Optional[pathlib.Path]) -> list[str]:
        """Returns the folders that are not there."""
        return [folder for folder in self.folders if data is None or not (data / folder).is_dir()]


SOURCES = {
    "chinchilla_tables": "tables 3, A3 and A9 of arXiv 2203.15556, typed as CSV",
    "epoch_chinchilla": "data/svg_extracted_data.csv of github.com/epoch-research/analyzing-chinchilla",
    "porian": "data/summary_df*.pickle.xz of github.com/formll/resolving-scaling-law-discrepancies, as CSV",
    "gemstones": "wandb_dfs/ of github.com/mcleish7/gemstone-scaling-laws, as CSV",
    "datablations": "utils/parametric_fit.ipynb of github.com/huggingface/datablations, as CSV",
    "olmo_ladder": "src/scripts/paper/data of github.com/allenai/OLMo-ladder, as CSV",
    "multi_power_law": "loss_curve_repo of github.com/thu-yao-01-luo/MultiPowerLaw, as {25,100,400}M_SCHEDULE.csv",
    "regmix": "data/ of github.com/sail-sg/regmix, as published",
    "clark_routing": "last rows of data/curves.csv.gz of github.com/google-deepmind/scaling_laws_for_routing",
    "scaling_with_vocab": "exp_data.csv of github.com/sail-sg/scaling-with-vocab",
    "step_law": "data/dense_lr_bs_loss.csv of github.com/step-law/steplaw",
    "nanochat_isoflop": "dev/LOG.md of github.com/karpathy/nanochat, as CSV",
}

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
        raise UserError(f"unknown replication {unknown[0]!r}: there are {', '.join(PAPERS)}")
    picked = [PAPERS[name] for name in dict.fromkeys(names or PAPERS)]
    for paper in picked if names else ():
        if lacking := paper.missing(data):
            raise UserError(absent(paper, lacking, data))
    return [paper for paper in picked if not paper.missing(data)], [paper for paper in picked if paper.missing(data)]


def absent(paper: Paper, lacking: Sequence[str], data: Optional[pathlib.Path]) -> str:
    """Returns a line that names the folders that a paper lacks and where their data is public."""
    where = "DIR" if data is None else str(data)
    needs = " and ".join(f"{where}/{folder} ({SOURCES[folder]})" for folder in lacking)
    return f"{paper.name} needs {needs}" + ("; name DIR with --data" if data is None else "")
