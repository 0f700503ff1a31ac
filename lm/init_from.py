"""Runs that begin with the weights of another: `--init_from=RUN` (imports no jax).

The other run may be trained or imported. Its model has to compute what the new one computes, and its tokenizer has to be the new one's;
text, objective, optimizer and lengths are free. Which run and which step it was is part of what the new run is, and so of its id.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from lm import config as config_lib
from lm.errors import UserError
from lm.hf.families import effective
from lm.model.config import ModelConfig
from lm.train import made_by, record, sealed
from lm.train.config import RunConfig
from lm.train.record import Source
from lm.train.run_tokenizer import trained_pieces

NONE = "none"  # random weights, on purpose


def find(init_from: Optional[str], config: RunConfig, workdir: Optional[Path] = None) -> Optional[dict[str, Any]]:
    """Returns `init_from` of the record of a run (lm.train.record.Source), or None for one that begins with weights of its own.

    A run that has begun keeps the step that it began with, however far the other has come since.

    Args:
      init_from: the other run's work directory; None or "none" for own weights, random or imported into `workdir`.
      config: the new run's configuration.
      workdir: the new run's work directory (default: it has none yet).

    Raises:
      UserError: there are no such weights, they are of another model, or the run in `workdir` began otherwise.
    """
    before = record.read(workdir) if workdir else None
    begun = before.get("init_from") if before else None
    if init_from is None or init_from == NONE:
        if begun:
            raise UserError(f"{workdir} holds a run that began with the weights of {begun['from']}: add --init_from={begun['from']}")
        return None
    folder = Path(init_from)
    if before and not begun:
        how = "was imported and begins with its own weights" if "imported" in before else "began with random weights"
        raise UserError(f"--init_from={init_from}: the run in {workdir} {how}: leave --init_from out, or choose another --workdir")
    if begun and begun["from"] == str(folder) and not folder.exists():
        return begun  # it may have gone when the run has checkpoints of its own
    saved = _record(folder)
    if begun and begun["run"] != saved["id"]:
        raise UserError(f"{workdir} holds a run that began with other weights, of {begun['from']}: name these, or choose another --workdir")
    _require_model(folder, saved, config)
    return {**begun, "from": str(folder)} if begun else _recorded(folder, saved)


def require_said(config: RunConfig, workdir: Path, file: Path) -> None:
    """Raises UserError for a new run whose configuration came from an import, and that would begin without the imported weights.

    Args:
      config: the new run's configuration.
      workdir: its work directory.
      file: the file that the configuration was read from.
    """
    if record.read(workdir) is not None:
        return
    named = [Path(config.imported_from)] if config.imported_from else []
    for folder in named:
        if not folder.exists():
            raise UserError(
                f"the configuration comes from weights that were imported into {folder}, which is not there, and {workdir} would begin with"
                f" random ones: add --init_from=RUN, where they are now, or --init_from={NONE} for random weights"
            )
    for folder in (file.parent, Path(getattr(config.data.tokenizer, "path", "") or file).parent, *named):
        try:
            saved = record.read(folder) if folder.resolve() != workdir.resolve() else None
        except UserError:  # a file of that name that is no record says nothing of weights
            continue
        if saved and "imported" in saved and (folder == file.parent or _function(_config(saved).model) == _function(config.model)):
            raise UserError(
                f"the configuration comes from the weights imported into {folder}, and {workdir} would begin with random ones: add"
                f" --init_from={folder}, or --init_from={NONE} for random weights"
            )


def _recorded(folder: Path, saved: record.Record) -> dict[str, Any]:
    steps = sealed.steps(folder)
    if not steps:
        raise UserError(f"--init_from={folder} has no checkpoint: train it first, or name another run")
    kept = {key: value for key, value in record.origin(saved).items() if key in ("ids", "family")}
    return {"from": str(folder), "run": saved["id"], "step": steps[-1], **kept}


def _record(folder: Path) -> record.Record:
    saved = record.read(folder)
    if saved is not None:
        return saved
    if (folder / "config.json").is_file():
        command = f"python -m lm.hf import {folder} --workdir=RUN"
        raise UserError(f"--init_from={folder} is no run but a model: make a run of it ({command}) and name that")
    raise UserError(f"--init_from={folder} holds no run (no {record.FILE}): name a work directory that lm.run, a study or an import wrote")


def _config(saved: record.Record) -> RunConfig:
    return config_lib.from_parts(RunConfig, saved["experiment"], saved["execution"])


def _require_model(folder: Path, saved: record.Record, config: RunConfig) -> None:
    """Raises UserError unless two models compute the same from given weights, texts of other lengths aside, and begin them alike."""
    theirs = _config(saved)
    changes = [f"model.{change}" for change in config_lib.differences(_function(theirs.model), _function(config.model))]
    starts = [getattr(each.data.tokenizer, "start_token", None) for each in (theirs, config)]
    if starts[0] != starts[1]:
        changes.append(f"data.tokenizer.start_token: {starts[0]} -> {starts[1]}")
    if changes:
        more = f", and {len(changes) - 4} more" if len(changes) > 4 else ""
        own = f", as in {folder / 'config.json'}" if (folder / "config.json").is_file() else ""
        raise UserError(f"--init_from={folder} holds another model ({'; '.join(changes[:4])}{more}): set the same{own}")


def _function(model: ModelConfig) -> dict[str, Any]:
    fields = config_lib.to_dict(effective(model))
    if model.positions != "learned":  # no weight depends on it
        del fields["max_length"]
    return fields


def unopened(config: RunConfig, origin: Mapping[str, Any]) -> str:
    """Says that an imported encoder-decoder begins texts with a sign of its own and the objective does not; '' where that is not so.

    Args:
      config: the run's configuration.
      origin: what its record keeps of the model that its weights came from (lm.train.record.origin).
    """
    objective = config.data.objective
    begins = config.model.architecture == "encoder_decoder" and (origin.get("ids") or {}).get("before")
    if not begins or objective.opened or "opened" not in {field.name for field in dataclasses.fields(objective)}:
        return ""
    return (
        f"the imported model begins texts with a sign of its tokenizer (id {begins[0]}), and objective {objective.name} does not:"
        " --config.data.objective.opened=true does"
    )


def require_tokenizer(source: Optional[Source], tokenizer: Any) -> None:
    """Raises UserError unless the weights were trained with this tokenizer, given pairs or not."""
    saved = record.read(source.workdir) if source else None
    if source is None or saved is None:
        return
    theirs = saved["data"]["tokenizer"]["fingerprint"]  # None: imported without one
    base = getattr(tokenizer, "base", tokenizer)
    config = _config(saved)
    if theirs is None or theirs == config.data.objective.tokenizer(base).fingerprint:
        return
    file = trained_pieces(config, theirs, config.data_dir)
    advice = "--config.data.tokenizer as there"
    if file is not None:
        advice = f"--config.data.tokenizer=sentencepiece_file --config.data.tokenizer.path={file}"
    own_ids = f"; {made_by.other_tokenizer(saved)}" if "lost_bytes" not in saved["data"] and file is None else ""
    raise UserError(f"--init_from={source.workdir} was trained with another tokenizer, whose ids mean other text: set {advice}{own_ids}")
