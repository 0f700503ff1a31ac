"""A study's directory is written once from a plan and needs nothing else from then on (imports no jax).

study.json             definition, data, cells; only what says how cells are carried out is ever rewritten (devices, estimated seconds)
cells/ID/config.json   the whole configuration of one run
cells/ID/claims/       who trained it, and epoch-N/ beside it, where it is trained (lm.study.leases)
cells/ID/              run.json (its record), metrics.jsonl and checkpoints, when it has ended; failures.txt, if it failed, with tracebacks
forecast.json          written once, before the first cell of stage 1 (lm.study.gate)
logs/                  a log for each worker
fit.json summary.json  the analysis (experiments/grid_results.py), or comparison.json for a comparison
report.html figures/   the report
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from concurrent import futures
from typing import Any

from lm import claims, files
from lm import config as config_lib
from lm.errors import SHARED, UserError, counted, require_local
from lm.study.plan import Plan, Planned
from lm.study.records import CLAIMS, read
from lm.study.rows import read_json, read_study
from lm.train import made_by
from lm.train.config import RunConfig
from lm.train.environment import git_revision

SCHEMA = 1
WRITERS = 16  # files written at a time
FIELDS = {"name", "definition", "fingerprint", "data", "data_dir", "cells"}
CELL_FIELDS = {"id", "role", "stage", "seed", "shape_key", "params", "flops", "tokens", "steps", "seconds"}


def write(plan: Plan, root: pathlib.Path, data_dir: pathlib.Path) -> dict[str, Any]:
    """Writes the directory of a plan, or checks that the directory was written from this plan.

    Args:
        plan: a plan without refusals
        root: the study's directory, which need not exist
        data_dir: the folder of prepared data, which workers will read

    Returns: the content of study.json.

    Raises: UserError when the plan has refusals, or when the directory holds another study or something else.
    """
    if plan.refusals:
        raise UserError(f"the plan is refused: {plan.refusals[0]}" + _and_more(len(plan.refusals) - 1))
    require_local(root, SHARED)
    new = _content(plan, root, data_dir)
    if (root / "study.json").exists():
        old = open_study(root)
        _check_same(old, new, root)
        _write_cells(plan, root)
        return _carried_out_anew(old, new, root)
    if root.exists() and any(root.iterdir()) and not (root / "cells").is_dir():
        raise UserError(f"{root} is not empty and holds no study: choose another directory with --dir")
    root.mkdir(parents=True, exist_ok=True)
    claims.require_links(root)
    _write_cells(plan, root)
    files.write_json(root / "study.json", new)  # last: its presence says that the rest is complete
    return new


def _write_cells(plan: Plan, root: pathlib.Path) -> None:
    """Writes the configurations of cells that are not there, or that are to be carried out in another way and have not ended well."""

    def write_cell(planned: Planned) -> None:
        folder = root / "cells" / planned.id
        path, config = folder / "config.json", config_lib.to_dict(planned.cell.config)
        if not path.exists():
            (folder / CLAIMS).mkdir(parents=True, exist_ok=True)
        elif _is_same(path, config, planned.id, plan.fingerprint) or read(folder).get("status") in ("completed", "diverged"):
            return
        files.write_json(path, config)

    with futures.ThreadPoolExecutor(WRITERS) as pool:  # each waits for the disk, or for a file server
        list(pool.map(write_cell, plan.planned))


def _is_same(path: pathlib.Path, config: dict[str, Any], cell_id: str, fingerprint: str) -> bool:
    """Says whether a configuration on disk is the planned one, or of another run: that is left for the worker to refuse."""
    old = read_json(path, "")
    return old == config or config_lib.identity(config_lib.from_dict(RunConfig, old), fingerprint=fingerprint) != cell_id


def _carried_out_anew(old: dict[str, Any], new: dict[str, Any], root: pathlib.Path) -> dict[str, Any]:
    """Returns the content of study.json, with the devices and times of the cells as they are planned now."""
    fields = ("devices", "seconds")
    now = {cell["id"]: {name: cell[name] for name in fields} for cell in new["cells"]}
    if all(cell.get(name) == now[cell["id"]][name] for cell in old["cells"] for name in fields):
        return old
    content = old | {"cells": [cell | now[cell["id"]] for cell in old["cells"]]}
    files.write_json(root / "study.json", content)
    return content


def open_study(root: pathlib.Path) -> dict[str, Any]:
    """Returns the content of study.json. Raises UserError when there is none, or when another version of this program wrote it."""
    study = read_study(root)
    if study.get("schema") != SCHEMA:
        raise UserError(f"{root} has schema {study.get('schema')}, and this program reads {SCHEMA}: choose another directory with --dir")
    missing = [*(FIELDS - study.keys()), *(f"{name} of a cell" for cell in study.get("cells", ()) for name in CELL_FIELDS - cell.keys())]
    if missing:
        raise UserError(f"{root / 'study.json'} lacks {min(missing)}: restore it, or plan in another directory with --dir")
    return study


def ids_of(root: pathlib.Path, named: Sequence[str]) -> list[str]:
    """Returns the ids of cells that are named by their first digits. Raises UserError for none or several of a name."""
    every, found = [cell["id"] for cell in open_study(root)["cells"]], []
    for name in named:
        these = [cell_id for cell_id in every if cell_id.startswith(name)]
        if len(these) != 1:
            several = f"{counted(len(these), 'cell')} of {root} begin so" if these else f"{root} has no such cell"
            raise UserError(f"cell {name}: {several}; `status --json` lists the ids")
        found += these
    return found


def data_dir(root: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a study's prepared data, wherever the study's directory is a link to."""
    stored = open_study(root)["data_dir"]
    places = [pathlib.Path(os.path.normpath(place / stored)) for place in (root.resolve(), root.absolute())]
    return next((place for place in places if place.is_dir()), places[0])  # directories before version 0.7 count from the link


def sha256(value: Any) -> str:
    """Returns the hash of a JSON value, which does not depend on the order of its keys."""
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
        "data_dir": os.path.relpath(data_dir.resolve(), root.resolve()),
        "revision": git_revision(),
        "cells": [planned.to_json() for planned in plan.planned],
    }


def _check_same(old: dict[str, Any], new: dict[str, Any], root: pathlib.Path) -> None:
    """Raises UserError with the fields in which the study on disk differs. Fields that the directory is too old to have do not count."""
    same_runs = [c["id"] for c in old["cells"]] == [c["id"] for c in new["cells"]]
    changed = [line for line in config_lib.differences(old["definition"], new["definition"]) if not (same_runs and ": absent -> " in line)]
    if old["fingerprint"] != new["fingerprint"]:
        why = made_by.other_recipes(old, made_by.corpora(new["data"]["components"]))
        changed.append(f"data fingerprint: {old['fingerprint']} -> {new['fingerprint']}{why}")
    if not changed and not same_runs:
        changed.append(f"cells planned by the code (directory written at revision {old['revision']})")
    if changed:
        fields = "; ".join(changed[:4]) + _and_more(len(changed) - 4)
        raise UserError(f"{root} holds another study ({fields}): choose another directory with --dir, or undo the change")


def _and_more(count: int) -> str:
    return f", and {count} more" if count > 0 else ""
