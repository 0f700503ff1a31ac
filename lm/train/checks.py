"""Checks of a run before anything costly: its configuration and its work directory (imports no jax)."""

import contextlib
import json
from pathlib import Path
from typing import Any, Optional

from lm import config as config_lib
from lm import distributed
from lm.data import corpora, info
from lm.data.mixture import require_unique
from lm.data.objectives.shape import longest_that_fits
from lm.errors import UserError, require_local
from lm.model import refusals
from lm.rows import RowShape
from lm.train import ranges, record, sealed
from lm.train.config import BadStepsConfig, RunConfig
from lm.train.derived import row_of, total_steps


def check_config(config: RunConfig) -> None:
    """Raises UserError, in one line, for a configuration that no run can have, whatever the devices and the text."""
    ranges.check(config)
    refusals.check(config.model)
    ranges.check_size(config.model)
    require_local(config.data_dir)
    check_rows(config, row_of(config))
    check_bad_steps(config.bad_steps)
    total_steps(config)
    for index, component in enumerate(config.data.components):
        with corpora.of_component(index):
            corpora.check(component)


def check_bad_steps(config: BadStepsConfig) -> None:
    """Raises UserError for bounds that are none."""
    for name, least in (("in_a_row", 1), ("window", 2), ("rewind_every", 1), ("share", 0.0)):
        if getattr(config, name) < least:
            raise UserError(f"bad_steps.{name}={getattr(config, name):g}: give {least:g} or more")
    if config.spike is not None and config.spike <= 0:
        raise UserError(f"bad_steps.spike={config.spike:g}: give a number of deviations above 0, such as --config.bad_steps.spike=10")


def check_text(config: RunConfig) -> None:
    """Raises UserError for files of text that are not there, or for fewer prepared tokens than the run needs; reads no text."""
    for index, component in enumerate(config.data.components):
        with corpora.of_component(index):
            corpora.check_files(component, config.data_dir)
    prepared = info.info(config.data, config.data_dir)
    if prepared is not None:
        require_unique(config.data, total_steps(config) * config.batch_size, prepared["rows_per_epoch"])


def check_rows(config: RunConfig, row: RowShape) -> None:
    """Raises UserError for rows that the model cannot read, or whose targets it cannot predict."""
    model, longest = config.model, max(row.length, row.encoder_length)
    name, length = config.data.objective.name, f"data.sequence_length={config.data.sequence_length}"
    if model.positions == "learned" and longest > model.max_length:
        of = "" if longest == config.data.sequence_length else f", whose rows under objective {name} have {longest} positions,"
        fits = longest_that_fits(config.data, model.architecture, model.max_length)
        shorter = f"set --config.data.sequence_length={fits}, or for a new model" if fits else "for a new model set"
        raise UserError(f"{length}{of} is beyond model.max_length={model.max_length}: {shorter} --config.model.max_length={longest}")
    if not model.vocabulary_head:
        raise UserError(f"objective {name} predicts tokens, and the model has no head for them: set --config.model.vocabulary_head=true")
    heads = [output for output in model.outputs if output.per == "sequence"]
    if row.sequences and (len(heads) != 1 or heads[0].labels < 2):
        raise UserError(
            f"objective {name} with next_sentence needs one output per sequence, of 2 labels, and model.outputs has {len(heads)}:"
            " set --config.model.outputs.0.name=next_sentence, or --config.data.objective.next_sentence=false"
        )
    if "token_types" in row.fields and model.token_types == 1:
        raise UserError(
            f"objective {name} has 2 types of token and model.token_types=1: set --config.model.token_types=2, or 0 to tell none apart"
        )


def check_workdir(config: RunConfig, workdir: Path) -> Optional[record.Record]:
    """Returns the record that is in the work directory, if any. This comes before anything costly, and leaves no directory.

    Raises:
      UserError: nothing can be written there, the record is another run's, or processes disagree about directory or configuration.
    """
    probe = workdir / ".writable"

    def write() -> bool:
        sealed.require_own(workdir)
        is_new = not workdir.exists()
        with record.writing(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            probe.touch()
        return is_new

    def look() -> None:
        if not probe.exists():
            raise UserError(f"process {distributed.index()} does not see {workdir}: choose a directory that all hosts share")
        if mine != firsts:
            changes = "; ".join(config_lib.differences(firsts, mine)[:4])
            raise UserError(f"process {distributed.index()} has another configuration than process 0 ({changes}): give all the same")

    is_new = distributed.first(write)
    mine = {**config_lib.experiment_part(config), "execution": config_lib.execution_part(config)}
    mine = json.loads(json.dumps(mine))
    firsts = distributed.first(lambda: mine)
    try:
        distributed.each(look)
    except UserError:
        distributed.first(lambda: _remove(probe, is_new))
        raise
    distributed.first(lambda: _remove(probe, is_new))
    return distributed.first(lambda: _own_record(config, workdir))


def _remove(probe: Path, is_new: bool) -> None:
    """Removes the probe, and the directory that was made for it: a run that is refused leaves none."""
    probe.unlink()
    with contextlib.suppress(OSError):  # another process may have begun there
        if is_new:
            probe.parent.rmdir()


def _own_record(config: RunConfig, workdir: Path) -> Optional[record.Record]:
    """Returns the record in the work directory, if any; UserError for that of another run."""
    before = record.read(workdir)
    if before is not None:
        now: dict[str, Any] = {"experiment": config_lib.experiment_part(config), "execution": config_lib.execution_part(config)}
        record.check_same(before, now | {"data": before["data"]}, workdir)
    return before
