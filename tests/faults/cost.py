"""Measures what the guards of a run cost, in time of processors and in memory of the host.

    python tests/faults/cost.py [--width=256] [--devices=4] [--rounds=40]

The step that leaves bad steps out is compared, in turns, with one that the compiler knows to be sound. What a look for silent corruption
takes is given in steps, and as a share of a run that looks every 200 steps. The model has few targets for its weights, so that a step is
almost all update: the shares are smaller in real runs. A minute.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HERE.parent)]
EVERY = 200  # steps between two looks, by default
STEPS = 10  # in a row, which are timed together


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256, help="of the model, which decides how many weights it has (default: 256)")
    parser.add_argument("--devices", type=int, default=4, help="virtual ones, each with a copy of the state (default: 4)")
    parser.add_argument("--rounds", type=int, default=40, help="of ten steps each (default: 40)")
    args = parser.parse_args()
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(args.devices)}
    guard(args.width, args.rounds)
    looks(args.width, args.devices, args.rounds)
    return 0


def made(width: int, devices: int) -> Any:
    """Returns (program, a function of a state that makes STEPS steps, the first state)."""
    import jax
    import numpy as np

    from lm.data.config import DataConfig
    from lm.mesh import MeshConfig
    from lm.sharding import make_mesh
    from lm.train.config import ExecutionConfig, RunConfig
    from lm.train.derived import hyper_of
    from lm.train.feed import to_device
    from lm.train.program import compile_program
    from tests.train.stub import StubModel, StubStream

    config = RunConfig(
        data=DataConfig(sequence_length=16),
        train_tokens=1000 * devices * 16,
        batch_size=devices,
        execution=ExecutionConfig(steps_per_dispatch=STEPS),
        mesh=MeshConfig(data=devices),
    )
    program = compile_program(config, StubModel(width=width), make_mesh(config.mesh, devices=jax.devices()[:devices]))
    batch, hyper = StubStream(batch_size=devices)[0], hyper_of(config)
    block = to_device([batch] * STEPS, STEPS, program.batch_shardings, devices)

    def steps(state: Any) -> Any:
        return jax.block_until_ready(program.run(state, None, block, hyper, np.int32(STEPS))[0])

    return program, steps, program.init(np.uint32(0))


def seconds(action: Any, *arguments: Any) -> tuple[float, Any]:
    """Returns the processors' time that an action takes, and its result."""
    start = time.process_time()
    result = action(*arguments)
    return time.process_time() - start, result


def guard(width: int, rounds: int) -> None:
    """Prints what it costs to choose between the old and the new state."""
    import jax.numpy as jnp

    from lm.train import step

    _, with_guard, state = made(width, 1)
    with mock.patch.object(step, "judged", lambda window, *rest: (jnp.bool_(True), window)):
        _, without, other = made(width, 1)
    weights, spent = sum(leaf.size for leaf in _leaves(state.params)), []
    for _ in range(rounds):
        first, state = seconds(with_guard, state)
        second, other = seconds(without, other)
        spent.append((first / STEPS, second / STEPS))
    base = statistics.median(plain for _, plain in spent[2:])
    more = [guarded - plain for guarded, plain in spent[2:]]
    error = statistics.stdev(more) / len(more) ** 0.5
    print(
        f"a step of {weights:,} weights and 16 tokens: {1e3 * base:.2f} ms; leaving bad ones out adds {1e6 * statistics.mean(more):.0f} us,"
    )
    print(f"  with an error of {1e6 * error:.0f} us ({statistics.mean(more) / base:.1%})")


def looks(width: int, devices: int, rounds: int) -> None:
    """Prints what a look for silent corruption costs."""
    import jax

    from lm.train import copies, host_copy

    program, steps, state = made(width, devices)

    def placed(copy: Any) -> Any:
        return jax.block_until_ready(jax.tree.map(lambda one, like: host_copy.placed(one, like.sharding), copy, program.abstract))

    found: dict[str, list[float]] = {"step": [], "comparing the copies": [], "copying the state to the host": [], "and back": []}
    for _ in range(rounds):
        spent, state = seconds(steps, state)
        found["step"].append(spent / STEPS)
        for name, action in (("comparing the copies", copies.sums), ("copying the state to the host", _held)):
            spent, result = seconds(action, state)
            found[name].append(spent)
        found["and back"].append(seconds(placed, result)[0])
    middle = {name: statistics.median(times[2:]) for name, times in found.items()}
    step, size = middle.pop("step"), sum(leaf.nbytes for leaf in _leaves(result))
    print(f"a look on {devices} devices that each hold the state, whose step takes {1e3 * step:.2f} ms:")
    for name, spent in middle.items():
        print(f"  {name}: {1e3 * spent:.2f} ms, {spent / step:.1f} steps")
    compared, replayed = middle["comparing the copies"], sum(middle.values()) + middle["comparing the copies"] + step
    print(f"  every {EVERY} steps: {compared / step / EVERY:.2%} of the time where copies are compared,")
    print(f"  {replayed / step / EVERY:.2%} where one step is repeated too, which holds {size:,} bytes on the host, as large as the state")


def _held(state: Any) -> Any:
    import jax

    from lm.train import host_copy

    return jax.tree.map(host_copy.held, state)


def _leaves(tree: Any) -> list[Any]:
    import jax

    return jax.tree.leaves(tree)


if __name__ == "__main__":
    sys.exit(main())
