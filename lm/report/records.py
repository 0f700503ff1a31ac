"""Table rows of records, which nothing is fitted to: the data, the environment, the configuration."""

import datetime
from collections.abc import Sequence
from typing import Any

from lm.analysis.analysis import Analysis
from lm.report.tables import percent
from lm.scaling.page import provenance
from lm.study.rows import Row

_LONG = 12  # a flat record with more entries than this stays on one line


def verbatim_rows(data: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the share of validation lines that occur verbatim in the training text, by corpus and least length of a line."""
    rows = []
    for component in data["components"]:
        shares = component["info"].get("verbatim_shares", {})
        for length in sorted(shares, key=int):
            rows.append({"corpus": component["corpus"], "length": length, "share": percent(shares[length], 2)})
    return rows


def data_rows(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the record of the data as (name, value); shares of verbatim lines have a table of their own."""
    return [(key, plain(value)) for key, value in _flat(data) if "verbatim_shares" not in key]


def environment_rows(study: dict[str, Any], rows: Sequence[Row], analysis: Analysis) -> list[tuple[str, str]]:
    """Returns the environment of the runs and the versions of the analysis, as (name, value)."""
    made = measured_on(study, [row.environment for row in rows])
    return [*made, *(("analysis: " + k, v) for k, v in analysis.versions.items())]


def measured_on(study: dict[str, Any], environments: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Returns the environment of some runs as (name, value); where runs differ, all values are listed."""
    seen: dict[str, set[str]] = {}
    for environment in environments:
        for key, value in _flat(environment):
            seen.setdefault(key, set()).add(plain(value))
    made = [(key, ", ".join(sorted(values))) for key, values in sorted(seen.items())]
    return [("study planned at revision", plain(study.get("revision"))), *made]


def made(what: str) -> str:
    """Returns the line that says when a page was written, of what, and by which code."""
    return f"{datetime.date.today().isoformat()} · {what} · {provenance.code_version()}"


def words(record: dict[str, Any], without: Sequence[str] = ()) -> str:
    """Returns settings as text, 'd_model 64, norm rmsnorm', without those that are off (None) and those in `without`."""
    return ", ".join(f"{key} {plain(value)}" for key, value in _flat(record) if value is not None and key not in without)


def plain(value: Any) -> str:
    """Returns a value as text: integers with thousands separators, an empty value as a dash."""
    if value is None or value == "" or value == [] or value == ():
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    return ", ".join(plain(item) for item in value) if isinstance(value, (list, tuple)) else str(value)


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Returns the leaves of nested records by dotted name. Lists are numbered or named by corpus; long flat records stay whole."""
    found: list[tuple[str, Any]] = []
    for key, item in value.items():
        if isinstance(item, list) and item and all(isinstance(each, dict) for each in item):
            item = {str(each.get("corpus", i)): each for i, each in enumerate(item)}
        short = isinstance(item, dict) and (len(item) <= _LONG or any(isinstance(each, (dict, list)) for each in item.values()))
        found += _flat(item, f"{prefix}{key}.") if short else [(prefix + key, item)]
    return found
