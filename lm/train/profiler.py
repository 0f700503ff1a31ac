"""Profiler traces of some steps of a run."""

from pathlib import Path
from typing import Any, Optional

import jax

from lm import distributed
from lm.errors import UserError


class Profiler:
    """Writes a trace of steps [first, last) of the first process to WORKDIR/profile; with `steps` None it writes none.

    The loop has to call `at` after the numbers of steps in `cuts`.
    """

    def __init__(self, workdir: Path, steps: Optional[tuple[int, int]], total: int):
        if steps is not None and steps[0] >= total:
            raise UserError(f"--profile={steps[0]}:{steps[1]} begins after the last of the run's {total:,} steps: give earlier ones")
        self.cuts = steps or ()
        self._first, self._last = (steps[0], min(steps[1], total)) if steps else (0, 0)
        self._folder, self._tracing = workdir / "profile", False

    def at(self, step: int, state: Any) -> None:
        """Starts or ends the trace if it is due after `step` dispatched steps, of which `state` is the result."""
        if self._tracing and step >= self._last:
            jax.block_until_ready(state)
            self.close()
        elif not self._tracing and distributed.is_first() and self._first <= step < self._last:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True

    def close(self) -> None:
        if self._tracing:
            jax.profiler.stop_trace()
        self._tracing = False
