"""What a ledger says, as rows for a terminal and for a page."""

from collections.abc import Iterator
from typing import Any

from lm.errors import counted


def size(count: float) -> str:
    """Returns bytes in decimal units, with three digits: "5.93 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def percent(part: float, whole: float) -> str:
    """Returns a share in percent, with a digit more where it is small."""
    share = part / whole if whole else 0.0
    return f"{share:.1%}" if share >= 0.01 or not part else f"{share:.2g}" if share < 1e-5 else f"{share:.3%}"


def headline(ledger: dict[str, Any]) -> str:
    """Returns one sentence: what was read, and what is left."""
    read, kept = ledger["read"], ledger["kept"]
    return (
        f"{counted(kept['documents'], 'document')} of {size(kept['bytes'])} left of {read['documents']:,} of {size(read['bytes'])}"
        f" ({percent(kept['documents'], read['documents'])} of the documents, {percent(kept['bytes'], read['bytes'])} of the bytes)"
    )


def step_rows(ledger: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each step: documents and bytes before and after, and what it dropped."""
    return [
        {
            "step": step["step"],
            "read": f"{step['read']['documents']:,}",
            "dropped": f"{step['read']['documents'] - step['kept']['documents']:,}",
            "share": percent(step["read"]["documents"] - step["kept"]["documents"], step["read"]["documents"]),
            "kept": f"{step['kept']['documents']:,}",
            "bytes": size(step["kept"]["bytes"]),
        }
        for step in ledger["steps"]
    ]


def rule_rows(ledger: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each rule by which documents went or were changed, in the order of the steps, the strongest first."""
    return [row for step in ledger["steps"] for kind in ("dropped", "changed") for row in _rules(step, kind)]


def _rules(step: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    for rule, tally in sorted(step[kind].items(), key=lambda each: -each[1]["documents"]):
        yield {
            "step": step["step"],
            "rule": rule,
            "what": "goes" if kind == "dropped" else "changed",
            "documents": f"{tally['documents']:,}",
            "share": percent(tally["documents"], step["read"]["documents"]),
            "pieces": f"{tally['pieces']:,}" if "pieces" in tally else "",
            "bytes": size(tally["bytes"]),
        }


def unusable(ledger: dict[str, Any]) -> str:
    """Returns what could not be read; '' where all was."""
    return ", ".join(f"{reason} {count:,}" for reason, count in ledger["unusable"].items())


def lines(ledger: dict[str, Any]) -> Iterator[str]:
    """Yields the lines that the command prints."""
    if ledger["unusable"]:
        yield f"not read: {unusable(ledger)}"
    yield f"{'step':34s}{'documents':>12s}{'dropped':>12s}{'':>8s}  {'left':>10s}"
    for step, row in zip(ledger["steps"], step_rows(ledger), strict=True):
        yield f"{row['step']:34s}{row['read']:>12s}{row['dropped']:>12s}{row['share']:>8s}  {row['bytes']:>10s}"
        for rule in _rules(step, "dropped"):
            yield f"  {rule['rule'][:42]:44s}{rule['documents']:>12s}{rule['share']:>8s}"
        for rule in _rules(step, "changed"):
            yield f"  {rule['rule'][:42]:44s}{rule['pieces']:>12s} in {counted(step['changed'][rule['rule']]['documents'], 'document')}"
    yield headline(ledger)
