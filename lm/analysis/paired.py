"""Compares variants pair by pair from runs that share their seeds, and says in tables and sentences what is resolved (imports no jax).

Losses are compared inside a group only. The difference of two variants is taken seed by seed, since one seed gives all variants of a group
the same data in the same order, and its noise is the larger of two standard deviations: that of those differences, and that of one variant
over its seeds (of both, in root mean square). An order is resolved when the mean difference exceeds `Judgement.factor` of them.

With n seeds and no true difference, the first of them alone would call an order resolved with probability 2 P(t_{n-1} > factor sqrt(n)):
7.4% for three seeds and two standard deviations. The larger of both is stricter: `false_rate` says how much, by simulation.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import random
import statistics
from collections.abc import Sequence
from typing import Any, Optional

from lm.errors import UserError
from lm.scaling.results import result
from lm.study import directory, records
from lm.study.comparison import ROLE, Judgement, Published
from lm.study.rows import PLANNED


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a variant. `loss` is in nats per held-out target and `entropy` that of the targets' own frequencies; None before its end.

    `flops` are of the whole run by convention, "xla" among them where it was measured; `pairs` are the rows that it trained on.
    """

    id: str
    group: str
    variant: str
    seed: int
    status: str
    reason: Optional[str]
    loss: Optional[float]
    entropy: Optional[float]
    targets: Optional[int]
    params: dict[str, int]
    flops: dict[str, Optional[float]]
    pairs: float
    steps: int
    seconds: dict[str, float]
    curve: tuple[dict[str, Any], ...]
    environment: dict[str, Any]

    @property
    def completed(self) -> bool:
        return self.status == "completed" and self.loss is not None


def read(root: pathlib.Path) -> list[Run]:
    """Returns the runs of a comparison in planned order. UserError for a directory that is broken or holds a study of another kind."""
    study = directory.open_study(root)
    if any(cell["role"] != ROLE for cell in study["cells"]):
        raise UserError(f"{root} holds the grid {study['name']}, which compares no variants")
    return [_run(root, cell) for cell in study["cells"]]


def _run(root: pathlib.Path, cell: dict[str, Any]) -> Run:
    run = records.read(root / "cells" / cell["id"])
    final = run.get("final") or {}
    return Run(
        id=cell["id"],
        group=cell["group"],
        variant=cell["variant"],
        seed=cell["seed"],
        status=run.get("status", PLANNED),
        reason=run.get("reason"),
        loss=final.get("nats_per_token"),
        entropy=final.get("unigram_nats_per_token"),
        targets=final.get("tokens"),
        params=run.get("parameters", cell["params"]),
        flops=run.get("flops", cell["flops"]),
        pairs=cell["tokens"] / cell["sequence_length"],
        steps=run.get("steps", cell["steps"]),
        seconds=run.get("seconds", {}),
        curve=tuple(run.get("curve", ())),
        environment=run.get("environment", {}),
    )


@result
class VariantResult:
    """A variant over its completed runs: mean and sample standard deviation of the loss; FLOPs per pair by convention; seconds of a run.

    `worst` is the highest loss of its runs; it is `trained` when that lies the margin or more below the entropy of the targets.
    """

    group: str
    variant: str
    seeds: tuple[int, ...]
    losses: tuple[float, ...]
    loss: float
    sd: float
    worst: float
    trained: bool
    params: dict[str, int]
    flops_per_pair: dict[str, Optional[float]]
    seconds: float


@result
class Pair:
    """Two variants of a group over the seeds that both completed. `difference` is the mean of a's loss minus b's.

    `better` names the one with the lower loss where the order is resolved. `published` says the same of the paper, where it has both
    variants: a variant's name, or None where the measures do not agree on one. `wins` counts the measures that favour a, and b, by more
    than the judgement's factor of their standard deviations.
    """

    group: str
    a: str
    b: str
    seeds: int
    difference: float
    paired_sd: float
    seed_sd: float
    state: str  # one of STATES
    better: Optional[str]
    published: Optional[str] = None
    wins: Optional[tuple[int, int]] = None

    @property
    def noise(self) -> float:
        return max(self.paired_sd, self.seed_sd)


STATES = ("resolved", "not resolved", "not trained", "too few seeds")


@result
class Group:
    """The held-out targets that the variants of a group share: their number, and the entropy of their frequencies in nats."""

    name: str
    targets: int
    entropy: float
    trained: bool


@result
class Excluded:
    """A run that no comparison uses, and the reason."""

    id: str
    group: str
    variant: str
    seed: int
    reason: str


@result
class PairedComparison:
    """A comparison's results: its groups, every variant, every pair of variants of a group, and the runs left out."""

    groups: tuple[Group, ...]
    variants: tuple[VariantResult, ...]
    pairs: tuple[Pair, ...]
    excluded: tuple[Excluded, ...]
    factor: float
    margin: float
    false_rate: Optional[float]

    def of(self, group: str) -> list[VariantResult]:
        return [v for v in self.variants if v.group == group]


def compare(runs: Sequence[Run], judgement: Judgement, published: Optional[Published] = None) -> PairedComparison:
    """Compares every pair of variants of a group. UserError where a group was scored on different targets, or has no completed run."""
    names = list(dict.fromkeys((run.group, run.variant) for run in runs))
    groups, variants, pairs = [], [], []
    for name in dict.fromkeys(group for group, _ in names):
        ended = [run for run in runs if run.group == name and run.completed]
        targets, entropy = _common(name, ended)
        members = [[run for run in ended if run.variant == variant] for group, variant in names if group == name]
        found = [_variant(each, entropy - judgement.margin) for each in members if each]
        groups.append(Group(name, targets, entropy, all(v.trained for v in found)))
        variants += found
        pairs += [_pair(a, b, groups[-1].trained, judgement, published) for a, b in itertools.combinations(found, 2)]
    excluded = [
        Excluded(run.id, run.group, run.variant, run.seed, f"{run.status}: {run.reason}" if run.reason else run.status)
        for run in runs
        if not run.completed
    ]
    least = min((pair.seeds for pair in pairs if pair.seeds > 1), default=0)
    rate = false_rate(least, judgement.factor) if least else None
    return PairedComparison(tuple(groups), tuple(variants), tuple(pairs), tuple(excluded), judgement.factor, judgement.margin, rate)


def _common(group: str, runs: Sequence[Run]) -> tuple[int, float]:
    """Returns the number of held-out targets of a group's runs and the entropy of their frequencies."""
    if not runs:
        raise UserError(f"no run of group {group} has completed: `status` says how far the study is")
    scored = {(run.targets, run.entropy) for run in runs}
    if len(scored) > 1 or None in next(iter(scored)):
        raise UserError(
            f"the runs of group {group} were scored on different targets ({sorted(map(str, scored))}): their losses cannot be compared"
        )
    targets, entropy = next(iter(scored))
    assert targets is not None
    assert entropy is not None
    return targets, entropy


def _variant(runs: Sequence[Run], limit: float) -> VariantResult:
    losses = tuple(_loss(run) for run in runs)
    first = runs[0]
    per_pair = {name: None if value is None else value / first.pairs for name, value in first.flops.items()}
    seconds = statistics.fmean(run.seconds.get("total", math.nan) for run in runs)
    return VariantResult(
        group=first.group,
        variant=first.variant,
        seeds=tuple(run.seed for run in runs),
        losses=losses,
        loss=statistics.fmean(losses),
        sd=_sd(losses),
        worst=max(losses),
        trained=max(losses) <= limit,
        params=dict(first.params),
        flops_per_pair=per_pair,
        seconds=0.0 if math.isnan(seconds) else seconds,
    )


def _loss(run: Run) -> float:
    assert run.loss is not None
    return run.loss


def _sd(values: Sequence[float]) -> float:
    """Returns the sample standard deviation; 0 of one value, which nothing is concluded from."""
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _pair(a: VariantResult, b: VariantResult, trained: bool, judgement: Judgement, published: Optional[Published]) -> Pair:
    shared = sorted(set(a.seeds) & set(b.seeds))
    of_a, of_b = ([v.losses[v.seeds.index(seed)] for seed in shared] for v in (a, b))
    difference, paired, seed = spread(of_a, of_b) if shared else (a.loss - b.loss, 0.0, 0.0)
    state = "resolved" if abs(difference) > judgement.factor * max(paired, seed) else "not resolved"
    state = "too few seeds" if len(shared) < 2 else state if trained else "not trained"
    better = (a if difference < 0 else b).variant if state == "resolved" else None
    favoured, wins = _published(a, b, judgement.factor, published)
    return Pair(a.group, a.variant, b.variant, len(shared), difference, paired, seed, state, better, favoured, wins)


def spread(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean of a - b and the standard deviations over the seeds of a - b and of a single variant, losses in order of seeds."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return sum(differences) / len(differences), _sd(differences), math.sqrt((_sd(a) ** 2 + _sd(b) ** 2) / 2)


def _published(
    a: VariantResult, b: VariantResult, factor: float, published: Optional[Published]
) -> tuple[Optional[str], Optional[tuple[int, int]]]:
    """Returns the variant that more than half of the published measures favour, and how many favour either."""
    scores = [published.of(v.group, v.variant) for v in (a, b)] if published else [None, None]
    if published is None or scores[0] is None or scores[1] is None:
        return None, None
    gaps = [(x - y) / sd for x, y, sd in zip(scores[0], scores[1], published.sd, strict=True)]
    wins = sum(gap > factor for gap in gaps), sum(gap < -factor for gap in gaps)
    half = len(gaps) / 2
    return a.variant if wins[0] > half else b.variant if wins[1] > half else None, wins


@functools.cache
def false_rate(seeds: int, factor: float, draws: int = 20_000) -> float:
    """Simulates the share of pairs that are called resolved though all losses scatter alike and independently."""
    made = random.Random(0)
    found = 0
    for _ in range(draws):
        difference, paired, seed = spread(*([made.gauss(0, 1) for _ in range(seeds)] for _ in range(2)))
        found += abs(difference) > factor * max(paired, seed)
    return found / draws


# How an order found here stands to the published one, in reading order.
VERDICTS = {
    "agrees": "as published",
    "disagrees": "against what is published",
    "only here": "resolved here, not in the paper",
    "only there": "resolved in the paper, not here",
    "in neither": "resolved neither here nor in the paper",
}


def verdict(pair: Pair) -> Optional[str]:
    """Returns a key of VERDICTS; None without published scores, or where no order is claimed for want of training or seeds."""
    if pair.wins is None or pair.state not in ("resolved", "not resolved"):
        return None
    if pair.better is None:
        return "in neither" if pair.published is None else "only there"
    if pair.published is None:
        return "only here"
    return "agrees" if pair.better == pair.published else "disagrees"


def render(made: PairedComparison, published: Optional[Published]) -> str:
    """Renders a table of variants and one of pairs for each group, and the sentences."""
    lines = []
    for group in made.groups:
        lines += [f"{group.name}: {basis(group, made)}"]
        lines += _table([HEAD + list(published.measures if published else ())] + [_cells(v, published) for v in made.of(group.name)])
        lines += _table([PAIR_HEAD] + [list(pair_cells(pair).values()) for pair in made.pairs if pair.group == group.name])
        lines += [f"  {line}" for line in sentences(made, group)] + [""]
    lines += [f"excluded: {e.group}, {e.variant}, seed {e.seed} (cell {e.id}): {e.reason}" for e in made.excluded]
    return "\n".join([*lines, *rules(made)])


HEAD = ["variant", "parameters", "FLOPs/pair", "by XLA", "s/run", "loss", "sd"]
PAIR_HEAD = ["pair", "difference", "noise", "seeds", "order", "published"]


def basis(group: Group, made: PairedComparison) -> str:
    """Returns the measure of a group's losses in words: the targets, and the loss at which a run counts as trained."""
    return (
        f"nats per target over {group.targets:,} held-out targets, the same for all; their frequencies alone give {group.entropy:.3f},"
        f" and {group.entropy - made.margin:.3f} or less in every run counts as trained"
    )


def variant_cells(v: VariantResult) -> dict[str, str]:
    """Returns the cells of a variant's line in the table, by column."""
    flops = v.flops_per_pair
    return {
        "variant": v.variant,
        "parameters": f"{v.params['total']:,}",
        "flops": _flops(flops.get("matmul_causal")),
        "xla": _flops(flops.get("xla")),
        "seconds": f"{v.seconds:.0f}",
        "loss": f"{v.loss:.4f}" + ("" if v.trained else " (not trained)"),
        "sd": f"{v.sd:.4f}" if len(v.losses) > 1 else "–",
        "seeds": str(len(v.losses)),
    }


def score_cells(v: VariantResult, published: Optional[Published]) -> list[str]:
    """Returns the published scores of a variant as cells of a table; dashes where the paper has none."""
    scores = published.of(v.group, v.variant) if published else None
    return [f"{score:.2f}" for score in scores] if scores else ["–"] * (len(published.measures) if published else 0)


def _cells(v: VariantResult, published: Optional[Published]) -> list[str]:
    cells = variant_cells(v)
    del cells["seeds"]
    return [*cells.values(), *score_cells(v, published)]


def _flops(value: Optional[float]) -> str:
    return "–" if value is None else f"{value:.3g}"


def pair_cells(pair: Pair) -> dict[str, str]:
    return {
        "pair": f"{pair.a} − {pair.b}",
        "difference": f"{pair.difference:+.4f}",
        "noise": f"{pair.noise:.4f}",
        "seeds": str(pair.seeds),
        "order": f"{pair.better} is better" if pair.better else pair.state,
        "published": "–" if pair.wins is None else _published_order(pair),
    }


def _published_order(pair: Pair) -> str:
    assert pair.wins is not None
    order = f"{pair.published} is better" if pair.published else "not resolved"
    return f"{order} ({pair.wins[0]} to {pair.wins[1]})"


def sentences(made: PairedComparison, group: Group) -> list[str]:
    """Returns the sentences on a group: which orders are resolved, and whether published scores have the same order."""
    pairs = [pair for pair in made.pairs if pair.group == group.name]
    if not group.trained:
        names = ", ".join(v.variant for v in made.of(group.name) if not v.trained)
        return [f"Not trained: {names}. No order is claimed."]
    resolved = [pair for pair in pairs if pair.better]
    lines = [f"{len(resolved)} of {len(pairs)} orders are resolved."]
    for key, words in VERDICTS.items():
        if chosen := [pair for pair in pairs if verdict(pair) == key]:
            lines.append(f"{words[0].upper()}{words[1:]}: {'; '.join(_order(pair) for pair in chosen)}.")
    return lines


def _order(pair: Pair) -> str:
    better = pair.better or pair.published
    if better is None:
        return f"{pair.a} and {pair.b}"
    return f"{better} over {pair.b if better == pair.a else pair.a}"


def rules(made: PairedComparison) -> list[str]:
    """Says how an order is judged."""
    lines = [
        f"An order is resolved when the mean difference over shared seeds exceeds {made.factor:g} times the noise: the larger of the"
        " standard deviations over seeds of the difference and of one variant."
    ]
    if made.false_rate is not None:
        lines[0] += f" So {made.false_rate:.1%} of the pairs without a true difference would be called resolved."
    if any(pair.wins for pair in made.pairs):
        lines.append(
            f"A published order is resolved when more than half of the measures favour one variant by more than {made.factor:g} of their"
            " standard deviations; in parentheses how many favour the first, and the second. Those are scores after fine-tuning, and these"
            " are likelihoods: orders are set side by side, never numbers."
        )
    return lines


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lays rows out in columns of equal width, the first to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
