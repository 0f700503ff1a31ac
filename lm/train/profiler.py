"""A profiler trace of some steps of a run."""

from pathlib import Path
from typing import Any, Optional

import jax

from lm import distributed
from lm.errors import UserError


class Profiler:
    """Writes a trace of steps [first, last) to WORKDIR/profile, of the first of several processes; `steps` None writes none.

    `cuts` are where the loop has to call `at`.
    """

    def __init__(self, workdir: Path, steps: Optional[tuple[int, int]], total: int):
        if steps is not None and steps[0] >= total:
            raise UserError(f"--profile={steps[0]}:{steps[1]} begins after the last of the run's {total:,} steps: give earlier ones")
        self.cuts = steps or ()
        self._first, self._last = (steps[0], min(steps[1], total)) if steps else (0, 0)
        self._folder, self._tracing = workdir / "profile", False

    def at(self, step: int, state: Any) -> None:
        """Starts or ends the trace, when `step` steps have been dispatched and `state` is their result."""
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
