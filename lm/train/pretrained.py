"""Runs that begin with pretrained weights, as lm.hf imports them: a record of status "imported" and a checkpoint of weights alone."""

import dataclasses
from pathlib import Path
from typing import Any, Optional

from lm import config as config_lib
from lm.train import checkpoint
from lm.train.config import RunConfig
from lm.train.layer_order import LayerOrder
from lm.train.record import Record
from lm.types import TrainState


def has_training_state(before: Optional[Record], workdir: Path) -> bool:
    """Says whether there may be a state to restore: not before the first run, nor while imported weights are all there is."""
    return before is not None and not ("imported" in before and checkpoint.steps(workdir) == [0])


def provenance(before: Optional[Record], config: RunConfig, fingerprint: Optional[str]) -> dict[str, Any]:
    """Returns the fields of the record that an import leaves. The weights are part of what the run is, and so of its id."""
    if before is None or "imported" not in before:
        return {}
    own = config_lib.identity(config, fingerprint=fingerprint, weights=before["imported"]["weights"])
    return {"imported": before["imported"], "id": own}


def first_state(state: TrainState, layers: LayerOrder, before: Optional[Record], workdir: Path) -> TrainState:
    """Returns the initial state, with the imported weights if there are any."""
    if before is None or "imported" not in before:
        return state
    params, _ = checkpoint.restore_params(workdir, layers.stored.params, step=0)
    return dataclasses.replace(state, params=layers.read(params, layers.state.params))


def source_ids(saved: Record) -> Optional[dict[str, Any]]:
    """Returns the ids of special tokens of the model that a run's weights came from, as lm.hf.ids records them."""
    return saved.get("imported", {}).get("ids")
