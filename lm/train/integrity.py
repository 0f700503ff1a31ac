"""Looks for silent corruption of a run's state: values that a device or its memory changed without an error.

- The copies that devices hold of the same array are compared (lm.train.copies).
- The last steps before a check are made again from a copy of the state in the host's memory, on the same batches; they have to give the
  same bits. With `replay_elsewhere` each device then has the part of its neighbour.

A state is checked before it is saved, so that no checkpoint has what a check would have found.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm import distributed
from lm.errors import UserError
from lm.train import copies, host_copy, signals, watchdog
from lm.train.config import RunConfig
from lm.train.feed import put, to_device, wait_on_virtual_devices
from lm.train.program import Program
from lm.types import Batch, Hyper, TrainState


class Integrity:
    """Checks the state of a run at the steps that its configuration names.

    Args:
      config: the run's configuration.
      program: its compiled functions.
      total: its steps.
      hyper: the arguments of its steps, and `frozen` the arrays beside the parameters.
      alarm: prints a line.
      before: what the record has of earlier checks of this run.
    """

    def __init__(
        self,
        config: RunConfig,
        program: Program,
        total: int,
        hyper: Hyper,
        frozen: Any,
        alarm: Callable[[str], None],
        before: dict[str, Any],
    ):
        how = config.integrity
        self._every = how.every_steps if how.every_steps and how.every_steps <= total else None
        self._share = copies.share(program.abstract)
        self._replay = min((0 if self._share else 1) if how.replay_steps is None else how.replay_steps, self._every or 0)
        self._elsewhere = how.replay_elsewhere
        self._program, self._total, self._batch_size, self._alarm = program, total, config.batch_size, alarm
        self._hyper, self._frozen = hyper, frozen
        self._checked = int(before.get("to", 0))
        self._counts = {name: int(before.get(name, 0)) for name in ("checks", "replayed_steps")}
        self._snapshots: set[int] = set()
        self._checks: set[int] = set()
        self._held: Optional[tuple[int, Any]] = None
        if self._elsewhere and (program.mesh.size == 1 or distributed.count() > 1 or frozen is not None):
            raise UserError(
                "integrity.replay_elsewhere needs several devices of one process: set --config.integrity.replay_elsewhere=false"
            )

    def cuts(self, start: int, saves: Iterable[int]) -> set[int]:
        """Returns the steps after `start` at which something is to do, given those that are saved."""
        self._held, self._checks = None, set()
        if self._every is not None:
            wanted = {*range(self._every, self._total, self._every), *saves, self._total}
            self._checks = {step for step in wanted if start < step <= self._total}
        turns = [start, *sorted(self._checks)]
        self._snapshots = {max(before, step - self._replay) for before, step in itertools.pairwise(turns)} if self._replay else set()
        return self._checks | self._snapshots

    def at(self, step: int, states: list[TrainState], batches: Callable[[int, int], Sequence[Batch]]) -> TrainState:
        """Does what is to do after a step and returns the state to go on with, whose bits are the same.

        Where steps are repeated in several dispatches, a run that has to end gives that up.

        Args:
          step: the step.
          states: the state after it, which is taken from this list: where steps are repeated, two would need twice the memory.
          batches: returns the batches of the steps after one up to another.

        Raises:
          UserError: the state is corrupt.
        """
        state = states.pop()
        if step in self._checks:
            found = self._compared_copies(step, state)
            if self._held is not None and found is not None:
                (first, start), self._held = self._held, None
                taken, repeated = batches(first, step), None
                several = len(taken) > self._program.config.execution.steps_per_dispatch
                copy = jax.tree.map(host_copy.held, state) if several else None
                del state
                with contextlib.suppress(signals.Stopping):
                    repeated = self._repeated(start, found, taken, step)
                if repeated is None:
                    return self._made(self._program, copy, ())
                state = repeated
            self._note(step, found)
        if step in self._snapshots and self._replay:
            self._held = step, jax.tree.map(host_copy.held, state)
        return state

    def compare(self, step: int, state: TrainState) -> None:
        """Compares the copies of a state's arrays, if this run is checked and this step was not yet. Raises as `at` does."""
        self._note(step, self._compared_copies(step, state) if step != self._checked else None)

    def _compared_copies(self, step: int, state: TrainState) -> Optional[copies.Sums]:
        """Returns the checksums of a state whose copies are equal; None where there is nothing to look for."""
        if self._every is None or (not self._share and not self._replay):
            return None
        found = copies.sums(state)
        for one in copies.difference(found)[:1]:
            others, most = (", ".join(str(device) for device in devices[:4]) for devices in (one.others, one.most))
            raise self._corrupt(step, f"{self._name(one.leaf)} on {others} differs from its copy on {most}")
        return found

    def _note(self, step: int, found: Optional[copies.Sums]) -> None:
        if found is not None:
            self._checked = step
            self._counts["checks"] += 1

    def recorded(self) -> dict[str, Any]:
        """Returns the entry of run.json; nothing where there was no check."""
        if not self._counts["checks"]:
            return {}
        how = {"every_steps": self._every, "share_with_copies": self._share, "replay_steps": self._replay, "elsewhere": self._elsewhere}
        return {"integrity": {"to": self._checked, **self._counts, **how}}

    def _repeated(self, start: Any, found: copies.Sums, batches: Sequence[Batch], step: int) -> TrainState:
        """Makes the steps from a held state again, and compares the outcome with `found`, the checksums of the state."""
        elsewhere = _moved(self._program) if self._elsewhere else self._program
        again = self._made(elsewhere, start, batches)
        outcome = copies.sums(again)
        different = copies.changed(found, outcome)
        self._counts["replayed_steps"] += len(batches)
        if not different:
            return again if elsewhere is self._program else self._made(self._program, jax.tree.map(host_copy.held, again), ())
        del again
        name, steps = self._name(different[0]), "the last step" if len(batches) == 1 else f"the last {len(batches)} steps"
        try:
            repeated = copies.changed(outcome, copies.sums(self._made(elsewhere, start, batches)))
            here = self._made(self._program, start, batches)
        except signals.Stopping:  # nobody knows whether the state is sound
            why = "the run had to end before they were repeated once more"
            raise self._corrupt(step, f"{steps}, repeated, give {name} otherwise than it is in memory, and {why}") from None
        if repeated:
            self._alarm(
                f"ALARM: {steps} up to step {step:,}, repeated, give other bits every time ({name}): the device computes wrongly, or"
                " what it runs is not deterministic (on GPUs: XLA_FLAGS=--xla_gpu_deterministic_ops=true); steps are not repeated any more"
            )
            self._replay = 0
            return here
        if not copies.changed(found, copies.sums(here)):  # with devices in their own places
            why = "one of them computes wrongly, or they round otherwise (then set integrity.replay_elsewhere=false)"
            raise self._corrupt(step, f"{steps} give {name} otherwise when devices change places, each time: {why}")
        raise self._corrupt(step, f"{steps}, repeated twice, give {name} otherwise than it is in memory")

    def _made(self, program: Program, start: Any, batches: Sequence[Batch]) -> TrainState:
        """Returns the state that steps on these batches lead to from a held one; Stopping between two dispatches if the run has to end."""
        state = jax.tree.map(lambda copy, like: host_copy.placed(copy, like.sharding), start, program.abstract)
        everywhere = NamedSharding(program.mesh, PartitionSpec())
        hyper = self._hyper if program is self._program else jax.tree.map(lambda value: put(np.asarray(value), everywhere), self._hyper)
        most = program.config.execution.steps_per_dispatch
        for at in range(0, len(batches), most):
            if at:
                signals.look()
            taken = batches[at : at + most]
            block = to_device(taken, most, program.batch_shardings, self._batch_size)
            count = put(np.int32(len(taken)), everywhere)
            state = wait_on_virtual_devices(program.mesh, program.run(state, self._frozen, block, hyper, count))[0]
            jax.block_until_ready(state)
            watchdog.alive()
        return state

    def _name(self, leaf: int) -> str:
        path, _ = jax.tree_util.tree_leaves_with_path(self._program.abstract)[leaf]
        return jax.tree_util.keystr(path, simple=True, separator="/")

    def _corrupt(self, step: int, what: str) -> UserError:
        since = f"it was sound after step {self._checked:,}" if self._checked else "it was not checked before"
        return distributed.AgreedError(
            f"silent corruption of the state after step {step:,}: {what}; {since}, and nothing was saved since. The same"
            " command continues from the newest checkpoint; if this comes again, replace the device"
        )


@functools.lru_cache(maxsize=4)
def _moved(program: Program) -> Program:
    """Returns the program with every device in the place of its neighbour."""
    mesh = program.mesh
    devices = np.roll(mesh.devices.reshape(-1), 1).reshape(mesh.devices.shape)
    return program.on(Mesh(devices, mesh.axis_names, axis_types=mesh.axis_types))
