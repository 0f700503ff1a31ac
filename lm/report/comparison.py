"""Writes the report of a comparison: one file with its figures, tables and configurations."""

import pathlib
import re
from collections.abc import Sequence
from typing import Any, Optional

from lm import config as config_lib
from lm.analysis import paired
from lm.analysis.paired import Group, PairedComparison, Run, VariantResult
from lm.errors import counted
from lm.report import records
from lm.report.figures import variants as figures
from lm.scaling.page import html
from lm.scaling.words import scientific
from lm.study import directory
from lm.study.comparison import Published


def write(root: pathlib.Path, made: PairedComparison, runs: Sequence[Run], published: Optional[Published]) -> pathlib.Path:
    """Writes ROOT/report.html and ROOT/figures/ and returns the page's path."""
    study = directory.open_study(root)
    pictures = [each for group in made.groups for each in _draw(root / "figures", made, group, runs, published)]
    deviations = zip(published.measures, published.sd, strict=True) if published else ()
    return html.save(
        root / "report.html",
        pathlib.Path(__file__).with_name("comparison.html"),
        root / "figures",
        pictures,
        study=study,
        when=records.made(counted(len(runs), "run")),
        made=made,
        published=published,
        measures=list(published.measures) if published else [],
        deviations=", ".join(f"{name} {sd:g}" for name, sd in deviations),
        groups=[_group(made, group, published) for group in made.groups],
        rules=paired.rules(made),
        cells=[_cell(run) for run in runs],
        settings=_settings(study, runs),
        changes=_changes(study),
        data=records.data_rows(study["data"]),
        environment=records.measured_on(study, [run.environment for run in runs]),
    )


def names(group: Group) -> list[str]:
    """Returns the names of a group's figures: losses, differences, curves."""
    word = re.sub(r"\W+", "_", group.name.lower()).strip("_")
    return [f"{kind}_{word}" for kind in ("losses", "differences", "curves")]


def _draw(
    folder: pathlib.Path, made: PairedComparison, group: Group, runs: Sequence[Run], published: Optional[Published]
) -> list[dict[str, str]]:
    losses, differences, curves = names(group)
    figures.losses(folder / losses, made, group.name, published)
    figures.differences(folder / differences, made, group.name)
    figures.curves(folder / curves, made, group.name, runs)
    beside = f" Right: {published.measures[0]} in the paper, with its deviation over seeds." if published else ""
    captions = (
        f"{group.name}: loss on the held-out pairs, mean and standard deviation over seeds; small dots are single runs.{beside}",
        f"{group.name}: mean difference of every two variants over shared seeds; the order is resolved where the bar leaves out 0.",
        f"{group.name}: loss on a part of the held-out pairs during training, a line for each run; dots are the ends.",
    )
    return [{"name": name, "caption": caption} for name, caption in zip((losses, differences, curves), captions, strict=True)]


def _group(made: PairedComparison, group: Group, published: Optional[Published]) -> dict[str, Any]:
    measures = published.measures if published else ()
    return {
        "name": group.name,
        "trained": group.trained,
        "basis": paired.basis(group, made).capitalize(),
        "sentences": paired.sentences(made, group),
        "pictures": names(group),
        "variants": [
            {**paired.variant_cells(v), "flops": _flops(v, "matmul_causal"), "xla": _flops(v, "xla")}
            | dict(zip(measures, paired.score_cells(v, published), strict=True))
            for v in made.of(group.name)
        ],
        "pairs": [paired.pair_cells(pair) for pair in made.pairs if pair.group == group.name],
    }


def _flops(v: VariantResult, convention: str) -> str:
    value = v.flops_per_pair.get(convention)
    return "–" if value is None else scientific(value)


def _cell(run: Run) -> dict[str, str]:
    return {
        "id": run.id,
        "group": run.group,
        "variant": run.variant,
        "seed": str(run.seed),
        "loss": "–" if run.loss is None else f"{run.loss:.4f}",
        "steps": f"{run.steps:,}",
        "pairs": f"{run.pairs:,.0f}",
        "status": f"{run.status}: {run.reason}" if run.reason else run.status,
    }


def _settings(study: dict[str, Any], runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Returns the settings that all runs share, read from the first variant."""
    config = study["definition"]["variants"][0]["config"]
    optim = dict(config["optim"])
    pieces = config["data"]["tokenizer"]
    return [
        ("Model of the first variant", records.words(config["model"])),
        ("Text", f"{', '.join(c['corpus'] for c in config['data']['components'])}; tokenizer {records.words(pieces)}"),
        ("A row of training", f"{counted(config['data']['sequence_length'], 'token')} of text"),
        ("Batch", f"{counted(config['batch_size'], 'row')}, {counted(runs[0].steps, 'step')}"),
        ("Optimizer", records.words(optim)),
        (
            "Seeds",
            f"{', '.join(map(str, study['definition']['seeds']))}: of the initial parameters, and of the order and corruption of the data",
        ),
        ("Arithmetic", f"{config['compute_dtype']} compute, float32 parameters and optimizer state"),
        ("Code", records.plain(study.get("revision"))),
    ]


def _changes(study: dict[str, Any]) -> list[dict[str, str]]:
    """Lists the fields in which each variant differs from the first one."""
    variants = study["definition"]["variants"]
    first = variants[0]["config"]
    return [
        {"group": v["group"], "variant": v["name"], "changes": "; ".join(config_lib.differences(first, v["config"])) or "–"}
        for v in variants
    ]
