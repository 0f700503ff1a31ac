"""A comparison as text: its tables, and in sentences what is resolved and what agrees with published scores (imports no jax)."""

from collections.abc import Sequence
from typing import Optional

from lm.analysis.comparison import Compared, Group, Pair, VariantResult
from lm.study.variants import Published

# How an order found here stands to the published one, in reading order.
VERDICTS = {
    "agrees": "as published",
    "disagrees": "against what is published",
    "only here": "resolved here, not in the paper",
    "only there": "resolved in the paper, not here",
    "in neither": "resolved neither here nor in the paper",
}


def verdict(pair: Pair) -> Optional[str]:
    """A key of VERDICTS; None where there are no published scores, or no order is claimed for want of training or seeds."""
    if pair.wins is None or pair.state not in ("resolved", "not resolved"):
        return None
    if pair.better is None:
        return "in neither" if pair.published is None else "only there"
    if pair.published is None:
        return "only here"
    return "agrees" if pair.better == pair.published else "disagrees"


def render(made: Compared, published: Optional[Published]) -> str:
    """A table of variants and one of pairs for each group, and the sentences."""
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


def basis(group: Group, made: Compared) -> str:
    """What the losses of a group are measured on."""
    return (
        f"nats per target over {group.targets:,} held-out targets, the same for all; their frequencies alone give {group.entropy:.3f},"
        f" and {group.entropy - made.margin:.3f} or less in every run counts as trained"
    )


def variant_cells(v: VariantResult) -> dict[str, str]:
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
        "published": "–" if pair.wins is None else _published(pair),
    }


def _published(pair: Pair) -> str:
    assert pair.wins is not None
    order = f"{pair.published} is better" if pair.published else "not resolved"
    return f"{order} ({pair.wins[0]} to {pair.wins[1]})"


def sentences(made: Compared, group: Group) -> list[str]:
    """What was found in a group, and how it stands to what is published."""
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


def rules(made: Compared) -> list[str]:
    """How an order is judged."""
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
    """Columns of equal width, the first to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
