"""Compiles every distinct shape of a study for hardware that need not be there: `python -m experiments NAME plan --topology=...`."""

from collections.abc import Iterable

from lm.errors import counted
from lm.preflight.job import Request, Say, run_all
from lm.preflight.table import table
from lm.preflight.topologies import Topology
from lm.train.config import RunConfig


def shapes(configs: Iterable[RunConfig], topology: Topology, *, timeout: float, say: Say, progress: Say) -> int:
    """Prints a table of the shapes with `say`; returns 0 if all of them fit, else 1.

    Runs of one shape share an executable, so each shape is compiled once.
    """
    from lm.train.derived import shape_of  # imports jax

    sharing: dict[RunConfig, list[RunConfig]] = {}
    for config in configs:
        sharing.setdefault(shape_of(config), []).append(config)
    members = list(sharing.values())
    names = [_name(configs) for configs in members]
    progress(f"{len(members)} distinct shapes, each compiled for {topology.text}")
    requests = [Request(configs[0], topology, timeout) for configs in members]
    outcomes = dict(run_all(requests, at_once=1, say=progress, names=names))
    say(table([(name, outcomes[i].result, outcomes[i].error) for i, name in enumerate(names)]))
    fit = [outcome.result is not None and outcome.result["fits"] for outcome in outcomes.values()]
    return 0 if all(fit) else 1


def _name(configs: list[RunConfig]) -> str:
    """Returns the name of a shape: "decoder 256 x 4 layers, 8 x 128 tokens (6 cells)"."""
    config, count = configs[0], len(configs)
    model, length = config.model, config.data.sequence_length
    return (
        f"{model.architecture} {model.d_model} x {model.num_layers} layers, {config.batch_size} "
        f"x {length} tokens ({counted(count, 'cell')})"
    )
