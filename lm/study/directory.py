"""The study directory: written once from a plan, self-contained from then on (imports no jax). It holds

    study.json             definition, data, cells; never rewritten
    cells/ID/config.json   the whole configuration of one run; beside it the run's own files
    forecast.json          written once, before the first cell of stage 1
    cache/                 compiled executables

and, in time, what the workers and the analysis write.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

from lm import config as config_lib
from lm import files
from lm.errors import UserError
from lm.study.plan import Plan
from lm.study.rows import read_json
from lm.train.environment import git_revision

SCHEMA = 1


def write(plan: Plan, root: pathlib.Path, data_dir: pathlib.Path) -> dict[str, Any]:
    """Writes the directory of a plan, or checks that what is there is this plan; returns study.json's content.

    Raises UserError when the plan has refusals, or when the directory holds another study.
    """
    if plan.refusals:
        raise UserError(f"the plan is refused: {plan.refusals[0]}" + _and_more(len(plan.refusals) - 1))
    new = _content(plan, root, data_dir)
    if (root / "study.json").exists():
        old = open_study(root)
        _check_same(old, new, root)
        return old
    if root.exists() and any(root.iterdir()) and not (root / "cells").is_dir():
        raise UserError(f"{root} is not empty and holds no study: choose another directory with --dir")
    for planned in plan.planned:
        folder = root / "cells" / planned.id
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / "config.json", config_lib.to_dict(planned.cell.config))
    files.write_json(root / "study.json", new)  # last: its presence says that the rest is complete
    return new


def open_study(root: pathlib.Path) -> dict[str, Any]:
    """study.json's content; UserError when there is none or it comes from another version of this program."""
    study = read_json(root / "study.json", f"{root} holds no study: `python -m experiments NAME plan` makes one")
    if study.get("schema") != SCHEMA:
        raise UserError(f"{root} has schema {study.get('schema')}, and this program reads {SCHEMA}: choose another directory with --dir")
    return study


def sha256(value: Any) -> str:
    """Hash of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _content(plan: Plan, root: pathlib.Path, data_dir: pathlib.Path) -> dict[str, Any]:
    study = plan.study
    return {
        "schema": SCHEMA,
        "name": study.name,
        "question": study.question,
        "definition": study.definition(),
        "fingerprint": plan.fingerprint,
        "data": plan.data,
        "data_dir": os.path.relpath(data_dir, root),
        "revision": git_revision(),
        "cells": [planned.to_json() for planned in plan.planned],
    }


def _check_same(old: dict[str, Any], new: dict[str, Any], root: pathlib.Path) -> None:
    """One line that says in which fields the study on disk differs, and what to do. Fields newer than the directory are no difference."""
    same_runs = [c["id"] for c in old["cells"]] == [c["id"] for c in new["cells"]]
    changed = [line for line in config_lib.differences(old["definition"], new["definition"]) if not (same_runs and ": absent -> " in line)]
    if old["fingerprint"] != new["fingerprint"]:
        changed.append(f"data fingerprint: {old['fingerprint']} -> {new['fingerprint']}")
    if not changed and not same_runs:
        changed.append(f"cells planned by the code (directory written at revision {old['revision']})")
    if changed:
        fields = "; ".join(changed[:4]) + _and_more(len(changed) - 4)
        raise UserError(f"{root} holds another study ({fields}): choose another directory with --dir, or undo the change")


def _and_more(count: int) -> str:
    return f", and {count} more" if count > 0 else ""
