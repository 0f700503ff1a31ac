"""Which version made a run, and why the data prepared now are not those that it has read (imports no jax)."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm.data.config import SentencePieceTokenizer

OWN_IDS = "0.6.0"  # the first version that reads a tokenizer's own special ids and measures what tokens lose


def maker(saved: Mapping[str, Any]) -> str:
    """Returns the version that made a run, and its git revision where it has one, from the run's record."""
    environment = saved.get("environment") or {}
    before = f"a version before {OWN_IDS}" if "lost_bytes" not in saved["data"] else f"version {OWN_IDS}"
    made = f"version {environment['lm']}" if environment.get("lm") else before
    return made + (f" (git {environment['git'][:12]})" if environment.get("git") else "")


def corpora(components: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns what the record of a run keeps of each corpus: name, version of its recipe, fingerprint."""
    kept = ("corpus", "fingerprint")
    return [{name: each.get(name) for name in kept} | {"version": each.get("info", {}).get("version")} for each in components]


def data_now(fingerprint: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a record keeps of a data set (lm.data.info), without its counts."""
    kept = {name: info[name] for name in ("tokenizer", "lost_bytes", "rows_per_epoch")}
    return {"fingerprint": fingerprint, **kept, "corpora": corpora(info["components"])}


def recipes(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the corpora whose recipe has changed, as "text_files 1.1.0 -> 1.3.0"."""
    return [
        f"{new['corpus']} {old['version']} -> {new['version']}"
        for old, new in zip(then, now, strict=False)
        if old["corpus"] == new["corpus"] and old["version"] != new["version"]
    ]


def other_recipes(study: Mapping[str, Any], now: Sequence[Mapping[str, Any]]) -> str:
    """Says which corpora are prepared otherwise than when a study was planned, and which code continues it; '' where none is."""
    changed = recipes(corpora(study["data"].get("components") or []), now)
    return f" ({', '.join(changed)}: revision {study.get('revision')} of the code continues the study)" if changed else ""


def other_data(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Says why the data prepared now are not those of a run, and what to do.

    Args:
      saved: the record of the run.
      now: `data` of a record, of what is prepared now.
    """
    then, made = saved["data"], maker(saved)
    theirs, ours = (data.get("tokenizer") or {} for data in (then, now))
    trained = saved["experiment"]["data"]["tokenizer"]["name"] == SentencePieceTokenizer.name  # on the text, with which it changes
    if theirs.get("fingerprint") != ours.get("fingerprint") and not trained:
        return other_tokenizer(saved)
    told = f"its text is another (data fingerprint: {then.get('fingerprint')} -> {now.get('fingerprint')})"
    changed = recipes(then.get("corpora") or (), now.get("corpora") or ())
    if changed or ("corpora" not in then and now.get("corpora")):
        how = f" ({', '.join(changed)})" if changed else ""
        return f"{told}: {made} made it, which may have prepared the same files otherwise{how}; go on with that version, or begin anew"
    return f"{told}: restore the text, or begin anew"


def other_tokenizer(saved: Mapping[str, Any]) -> str:
    """Says why the tokenizer of now is not that of a run, and what to do."""
    name = saved["experiment"]["data"]["tokenizer"]["name"]
    if "lost_bytes" not in saved["data"]:
        return (
            f"{maker(saved)} made it, which did not read a tokenizer's own special ids, so that the {name} tokenizer is another now;"
            " go on with that version, or begin anew"
        )
    return f"the {name} tokenizer is not the one that it was trained with: restore its file, or begin anew"
