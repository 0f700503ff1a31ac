"""A training function in which process 1 alone raises an error, while process 0 waits for it in a collective."""

from pathlib import Path
from typing import Any

from lm import distributed


def train(config: Any, workdir: Path) -> None:
    """Ends in no other way."""
    del config, workdir
    from jax.experimental.multihost_utils import sync_global_devices

    sync_global_devices("begun")
    if distributed.index() == 1:
        raise ValueError("here alone")
    sync_global_devices("waits for ever")
