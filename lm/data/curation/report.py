"""The page of a curation: what each rule took, lengths and languages, clusters of duplicates, and samples to read."""

import pathlib
from collections.abc import Iterator
from typing import Any

from lm.data.curation import summary
from lm.errors import counted
from lm.scaling.page import html


def write(path: pathlib.Path, ledger: dict[str, Any]) -> pathlib.Path:
    """Writes the page of a ledger, whole or not at all, and returns its path. All text of documents is escaped."""
    return html.save(
        path,
        pathlib.Path(__file__).with_name("page.html"),
        path.parent,
        [],
        study={"name": "curation"},
        ledger=ledger,
        headline=summary.headline(ledger),
        unusable=summary.unusable(ledger),
        steps=summary.step_rows(ledger),
        rules=summary.rule_rows(ledger),
        lengths=list(length_rows(ledger)),
        histograms=[histogram for step in ledger["steps"] for histogram in _histograms(step)],
        clusters=[_clusters(each) for each in ledger["clusters"]],
        samples=[row for step in ledger["steps"] for row in _samples(step)],
        settings=[(each["name"], ", ".join(f"{k} {_plain(v)}" for k, v in each.items() if k != "name")) for each in ledger["settings"]],
        size=summary.size,
        visible=visible,
    )


def length_rows(ledger: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a row for each power of two of bytes: documents read and kept, and their shares of the most frequent."""
    read, kept = ledger["lengths"]["read"], ledger["lengths"]["kept"]
    bits = sorted({int(key) for key in (*read, *kept)})
    most = max(read.values(), default=1)
    for each in range(bits[0], bits[-1] + 1) if bits else ():
        before, after = read.get(str(each), 0), kept.get(str(each), 0)
        label = f"{summary.size(2 ** (each - 1))} to {summary.size(2**each)}"
        yield {"label": label, "read": before, "kept": after, "of_read": 100 * before / most, "of_kept": min(100 * after / most, 100)}


def _histograms(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for what, counts in step["histograms"].items():
        total, most = sum(counts.values()), max(counts.values())
        ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        rows = [{"label": key, "count": n, "share": summary.percent(n, total), "width": 100 * n / most} for key, n in ordered[:30]]
        yield {"what": what, "step": step["step"], "rows": rows, "others": len(counts) - len(rows)}


def _clusters(found: dict[str, Any]) -> dict[str, Any]:
    sizes = [
        {"label": "2 or 3" if bits == "2" else f"{2 ** (int(bits) - 1):,} to {2 ** int(bits) - 1:,}", "count": f"{count:,}"}
        for bits, count in found["sizes"].items()
    ]
    said = (
        f"{found['in_clusters']:,} of {found['items']:,} items ({summary.percent(found['in_clusters'], found['items'])}) are in"
        f" {counted(found['clusters'], 'cluster')}; the first of each stays."
    )
    return {**found, "sizes": sizes, "said": said}


def _samples(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for rule, samples in step["samples"].items():
        is_dropped = rule in step["dropped"]
        total = step["dropped" if is_dropped else "changed"][rule]["documents"]
        what = f"{len(samples)} of {counted(total, 'document')}" + ("" if is_dropped else ", a piece of each")
        yield {"step": step["step"], "rule": rule, "what": what, "samples": [{**each, "text": visible(each["text"])} for each in samples]}


def visible(text: str) -> str:
    """Returns a text in which signs that would steer a display are spelled, such as those that turn the direction of writing."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else repr(sign)[1:-1] for sign in text)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) if value else "none"
    return "none" if value is None else str(value)
