"""`--search`: finds the mesh, remat policy and number of micro-batches that fit a topology and step fastest (imports no jax
before it runs)."""

import dataclasses
import itertools
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

from lm.errors import UserError, counted
from lm.preflight.formula import AXES, WITHIN, Guess, guess, with_mesh
from lm.preflight.job import Outcome, Request, Say, run_all
from lm.preflight.topologies import Topology
from lm.train.config import ExecutionConfig, RunConfig

LARGEST = {"stage": 16, "context": 16, "tensor": 16}  # beyond these, exchanges of activations cost more than they save
MICRO_BATCHES = (1, 2, 4, 8, 16, 32)
CERTAIN = 1 / WITHIN  # what needs less than this share of a device by formula fits almost surely
# What a candidate's flags say of the execution: all that `candidates` may set, whatever the configuration says.
CHANGED = (
    "remat", "micro_batches", "pipeline_micro_batches", "pipeline_repeats", "sequence_parallel", "shard_optimizer", "context_attention",
)  # fmt: skip
Found = tuple["Candidate", Outcome]


class Candidate(NamedTuple):
    """A way to carry out the run, and the guess of its memory and time."""

    config: RunConfig
    guess: Guess

    @property
    def name(self) -> str:
        """The candidate's options in words, such as "fsdp=16 tensor=4 remat=full micro_batches=4"."""
        mesh = [f"{axis}={getattr(self.config.mesh, axis)}" for axis in AXES if getattr(self.config.mesh, axis) > 1]
        how = self.config.execution
        flow = [f"pipeline_micro_batches={how.pipeline_micro_batches}"] if how.pipeline_micro_batches else []
        return " ".join([*mesh, f"remat={how.remat}", f"micro_batches={how.micro_batches}", *flow])


class Pruned(NamedTuple):
    """The candidates left to compile, best guess first, and how many were put aside for what reason."""

    kept: list[Candidate]
    tried: int
    refused: int  # by the checks that a run makes
    too_large: int  # by formula


def candidates(config: RunConfig, topology: Topology) -> Iterator[RunConfig]:
    """Yields every mesh of the topology's devices with every remat policy and number of micro-batches, sensible or not."""
    remats = get_args(ExecutionConfig.__dataclass_fields__["remat"].type)
    for sizes in meshes(topology.devices):
        on_mesh = with_mesh(config, **dict(zip(AXES, sizes, strict=True)))
        stages = on_mesh.mesh.stage
        flows = (2 * stages, 4 * stages) if stages > 1 else (None,)
        for remat, micro, flow in itertools.product(remats, MICRO_BATCHES, flows):
            how = dataclasses.replace(config.execution, remat=remat, micro_batches=micro, pipeline_micro_batches=flow, pipeline_repeats=1)
            if on_mesh.mesh.data == 1:
                how = dataclasses.replace(how, shard_optimizer=False)
            if on_mesh.mesh.tensor == 1:
                how = dataclasses.replace(how, sequence_parallel=False)
            if on_mesh.mesh.context == 1:
                how = dataclasses.replace(how, context_attention="gather")
            yield dataclasses.replace(on_mesh, execution=how)


def meshes(devices: int) -> Iterator[tuple[int, ...]]:
    """Yields the sizes of AXES whose product is the number of devices."""

    def split(rest: int, axes: tuple[str, ...]) -> Iterator[tuple[int, ...]]:
        if len(axes) == 1:
            if rest <= LARGEST.get(axes[0], rest):
                yield (rest,)
            return
        for size in (n for n in range(1, min(rest, LARGEST.get(axes[0], rest)) + 1) if rest % n == 0):
            for others in split(rest // size, axes[1:]):
                yield (size, *others)

    return split(devices, AXES)


def prune(config: RunConfig, topology: Topology, check: Callable[[RunConfig], None]) -> Pruned:
    """Returns the candidates that `check` accepts (UserError refuses) and that fit by formula."""
    kept, tried, refused, too_large = list[Candidate](), 0, 0, 0
    for candidate in candidates(config, topology):
        tried += 1
        try:
            check(candidate)
        except UserError:
            refused += 1
            continue
        guessed = guess(candidate, topology)
        if guessed.memory > topology.chip.memory:
            too_large += 1
        else:
            kept.append(Candidate(candidate, guessed))
    # what may not fit after all comes after what fits almost surely and is half as fast
    doubt = {c: 1 if c.guess.memory < CERTAIN * topology.chip.memory else 2 for c in kept}
    kept.sort(key=lambda c: (c.guess.seconds * doubt[c], c.guess.memory))
    return Pruned(_various(kept), tried, refused, too_large)


def _various(ordered: list[Candidate]) -> list[Candidate]:
    """Returns the best of each mesh in turn, then the second best: a formula that misjudges one mesh does not fill the list with it."""
    by_mesh: dict[Any, list[Candidate]] = {}
    for candidate in ordered:
        by_mesh.setdefault(candidate.config.mesh, []).append(candidate)
    rounds = itertools.zip_longest(*by_mesh.values())
    return [candidate for turn in rounds for candidate in turn if candidate is not None]


def accept(config: RunConfig) -> None:
    """Raises UserError for what a run of this configuration would refuse before it compiles."""
    from lm.train.mesh_fit import check_mesh_fit

    stand_in: Any = types.SimpleNamespace(shape=dataclasses.asdict(config.mesh))
    check_mesh_fit(config, stand_in)


def search(config: RunConfig, topology: Topology, *, most: int, at_once: int, timeout: float, say: Say) -> dict[str, Any]:
    """Compiles the `most` candidates that promise most and returns the JSON object of `--search`, those that fit first, fastest first."""
    pruned, found = compiled(config, topology, accept, most=most, at_once=at_once, timeout=timeout, say=say)
    counts = {"tried": pruned.tried, "refused": pruned.refused, "too_large": pruned.too_large, "compiled": len(found)}
    return {"topology": topology.text, **counts, "candidates": [_entry(candidate, outcome) for candidate, outcome in found]}


def compiled(
    config: RunConfig, topology: Topology, check: Callable[[RunConfig], None], *, most: int, at_once: int, timeout: float, say: Say
) -> tuple[Pruned, list[Found]]:
    """Compiles the `most` candidates that promise most.

    Args:
        config: the run, whatever it says of mesh, remat and micro-batches
        topology: the hardware
        check: raises UserError for a candidate that is not to be tried
        most: the number of candidates
        at_once: compilations at a time
        timeout: seconds for each
        say: takes a line of progress

    Returns: what was put aside, and the compiled candidates: those that fit first, fastest first.

    Raises: UserError when no candidate fits by formula.
    """
    pruned = prune(config, topology, check)
    say(
        f"{counted(pruned.tried, 'candidate')}: {pruned.refused:,} do not divide, {pruned.too_large:,} are too large by formula;"
        f" compiling {min(most, len(pruned.kept))} of {len(pruned.kept):,}, {at_once} at a time"
    )
    if not pruned.kept:
        raise UserError(f"no mesh of {topology.text} fits by formula: take more devices, a smaller batch_size, or a shorter sequence")
    chosen = pruned.kept[:most]
    requests = [Request(candidate.config, topology, timeout) for candidate in chosen]
    found: list[Found] = []
    for index, outcome in run_all(requests, at_once=at_once, say=say, names=[c.name for c in chosen]):
        found.append((chosen[index], outcome))
        words = f"no result: {outcome.error}" if outcome.result is None else in_words(outcome.result)
        say(f"{len(found)} of {len(chosen)}: {chosen[index].name}: {words}")
    found.sort(key=rank)
    return pruned, found


def rank(found: Found) -> tuple[bool, bool, float]:
    """Returns the sort key: those that fit by estimated time, then those that do not, then those without a result."""
    result = found[1].result
    if result is None:
        return True, True, 0.0
    if not result["fits"]:
        return True, False, 0.0
    return False, False, result["estimate"]["step_seconds"]


def in_words(result: dict[str, Any]) -> str:
    """Says whether a step fits, and how fast it may be."""
    sizes = result["bytes_per_device"]
    needed = sizes.get("peak", sizes.get("needed"))
    memory = "" if needed is None else f", {needed / 1e9:.1f} of {sizes['memory'] / 1e9:.1f} GB"
    if not result["fits"]:
        return f"does not fit{memory}"
    return f"fits{memory}, about {result['estimate']['step_seconds']:.3g} s a step at best"


def _entry(candidate: Candidate, outcome: Outcome) -> dict[str, Any]:
    mesh, how = candidate.config.mesh, candidate.config.execution
    flags = {f"mesh.{axis}": size for axis, size in dataclasses.asdict(mesh).items()}
    flags |= {f"execution.{name}": getattr(how, name) for name in CHANGED}
    words = " ".join(f"--config.{name}={str(value).lower()}" for name, value in flags.items())
    return {"name": candidate.name, "flags": words, "error": outcome.error, "result": outcome.result}
