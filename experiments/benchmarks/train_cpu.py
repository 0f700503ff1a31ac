"""The training step of a 6.9M-parameter decoder on this machine's cores, against GPT-2's architecture in PyTorch (imports no jax)."""

import dataclasses
import importlib.util
import os
import statistics
from collections.abc import Callable
from typing import Any

from experiments.benchmarks import alternate
from experiments.benchmarks.alternate import Side
from experiments.benchmarks.shapes import DECODER, Shape
from lm.errors import UserError

CONVENTION = "FLOPs of matrix products, attention over the pairs that the mask shows; no share of a peak, since a CPU states none"


@dataclasses.dataclass(frozen=True)
class Training:
    """A training step of two programs: `ours` and `theirs` are functions that experiments.benchmarks.side calls."""

    about: str
    shape: Shape
    ours: str
    theirs: str
    target: float  # times as fast as the peer

    def measure(self, *, rounds: int, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
        """Returns the ratios of both sides' times and what they were measured with. UserError without torch."""
        if importlib.util.find_spec("torch") is None:
            raise UserError('this benchmark compares with PyTorch, which is not installed: pip install -e ".[parity]"')
        # Idle threads of OpenMP wait asleep, so that their waiting is not counted as work.
        quiet = {"OMP_WAIT_POLICY": "PASSIVE", "JAX_PLATFORMS": "cpu"}
        pair = alternate.measure(Side(self.ours, quiet), Side(self.theirs, quiet), rounds=rounds, steps=steps, say=say)
        return self._result(pair, steps)

    def _result(self, pair: alternate.Pair, steps: int) -> dict[str, Any]:
        tokens, ours = self.shape.tokens, pair.facts[0]
        seconds = [pair.median(side, alternate.wall) for side in (0, 1)]
        busy = [pair.median(side, alternate.processor) for side in (0, 1)]
        return {
            "ratio": _spread(pair.ratios(alternate.wall)),
            "ratio_processor": _spread(pair.ratios(alternate.processor)),
            "target": self.target,
            "tokens_per_second": [tokens / x for x in seconds],
            "tokens_per_processor_second": [tokens / x for x in busy],
            "gflops_per_second": tokens * ours["flops_per_token"]["matmul_causal"] / seconds[0] / 1e9,
            "convention": CONVENTION,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load": pair.load,
            "steps_per_round": steps,
            "rounds": pair.rounds,
            "sides": list(pair.facts),
        }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


BENCHMARKS = {
    "train_cpu": Training(
        "a decoder of 6.9M parameters against GPT-2's architecture in PyTorch",
        DECODER,
        "experiments.benchmarks.ours:decoder",
        "experiments.benchmarks.gpt2_torch:decoder",
        target=1.3,
    ),
}
