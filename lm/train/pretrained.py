"""Runs that begin with weights from elsewhere: another run's, or imported ones, a checkpoint of weights alone in their own directory."""

import dataclasses
from pathlib import Path
from typing import Any, Optional

from lm.errors import UserError
from lm.train import checkpoint, record
from lm.train.layer_order import LayerOrder
from lm.train.record import Record, Source
from lm.types import TrainState


def provenance(before: Optional[Record], source: Optional[Source]) -> dict[str, Any]:
    """Returns the fields of the record that say where the first weights are from."""
    if source is not None:
        return {"init_from": source.recorded}
    return {"imported": before["imported"]} if before and "imported" in before else {}


def first_state(state: TrainState, layers: LayerOrder, before: Optional[Record], source: Optional[Source], workdir: Path) -> TrainState:
    """Returns the initial state, with the weights from elsewhere if there are any.

    Raises:
      UserError: the other run's checkpoint is gone or damaged, or its directory holds another run by now.
    """
    if source is not None:
        there = record.read(source.workdir)
        if there is None or there["id"] != source.recorded["run"]:
            raise UserError(
                f"{source.workdir} no longer holds the run {source.recorded['run']} whose weights this one begins with: restore it"
            )
        folder, step = source.workdir, source.recorded["step"]
    elif before is not None and "imported" in before:
        folder, step = workdir, 0
    else:
        return state
    params, _ = checkpoint.restore_params(folder, layers.stored.params, step=step)
    return dataclasses.replace(state, params=layers.read(params, layers.state.params))
