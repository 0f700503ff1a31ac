"""Breaks the code on purpose, one place at a time, and checks that `make test` notices: `python -m tests.nightly.mutants [NAME ...]`.

Each mutant replaces one piece of one file in a copy of the tree and runs the test files that should find it, all of which `make test`
runs. The exit status is 1 where a mutant survives, or where a piece to be replaced is no longer in its file exactly once.
"""

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Optional

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (".git", ".venv*", "runs", "__pycache__", "*.egg-info", ".mypy_cache", ".ruff_cache")


class Mutant(NamedTuple):
    """One break: in `file`, `before` becomes `after`; `tests` are the test files (or folders) that should fail."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "the best mixtures of a function are its worst",
        "lm/scaling/mixtures/optimum.py",
        'np.argsort(others, axis=1, kind="stable")',
        'np.argsort(-others, axis=1, kind="stable")',
        ("tests/scaling/test_mixtures.py",),
    ),
    Mutant(
        "a bad step changes the weights",
        "lm/train/step.py",
        "params = held(is_sound, optax.apply_updates(params, updates), params)",
        "params = optax.apply_updates(params, updates)",
        ("tests/train/test_bad_steps.py",),
    ),
    Mutant(
        "a bad step changes a moment",
        "lm/optim/adam.py",
        "nu = held(is_sound, optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2), state.nu)",
        "nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)",
        ("tests/train/test_bad_steps.py",),
    ),
    Mutant(
        "a spike enters the window",
        "lm/train/step.py",
        "is_sound & (weight > 0))",
        "weight > 0)",
        ("tests/train/test_bad_steps.py",),
    ),
    Mutant(
        "the epsilon of RMSNorm is outside the root",
        "lm/model/norm.py",
        "jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)",
        "jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True)) + self.epsilon",
        ("tests/model/test_norm.py",),
    ),
    Mutant(
        "the epsilon of LayerNorm is ten times too large",
        "lm/model/norm.py",
        "jnp.mean(centred * centred, axis=-1, keepdims=True) + self.epsilon",
        "jnp.mean(centred * centred, axis=-1, keepdims=True) + 10 * self.epsilon",
        ("tests/hf/test_golden.py",),
    ),
    Mutant(
        "a causal query sees the next key",
        "lm/model/mask.py",
        "causal = distance >= 0",
        "causal = distance >= -1",
        ("tests/model/test_families.py",),
    ),
    Mutant(
        "a window holds one key too many",
        "lm/model/mask.py",
        "else jnp.abs(distance)) < self.window",
        "else jnp.abs(distance)) <= self.window",
        ("tests/model/test_attention.py", "tests/model/test_attention_blockwise.py"),
    ),
    Mutant(
        "packed documents see each other",
        "lm/model/mask.py",
        "terms.append(self.q_segment_BT[:, :, None] == self.k_segment_BS[:, None, :])",
        "terms.append(self.q_segment_BT[:, :, None] >= self.k_segment_BS[:, None, :])",
        ("tests/model/test_families.py",),
    ),
    Mutant(
        "rotary positions turn the wrong way in one half",
        "lm/model/positions.py",
        "jnp.concatenate([-sin, sin], -1)",
        "jnp.concatenate([sin, sin], -1)",
        ("tests/model/test_positions.py",),
    ),
    Mutant(
        "T5's buckets grow one distance too late",
        "lm/model/positions.py",
        "exact = buckets // 2",
        "exact = buckets // 2 + 1",
        ("tests/model/test_positions.py",),
    ),
    Mutant(
        "the gradient of the relative bias lacks its all-reduce over context",
        "lm/model/kernels/context.py",
        "bias = None if bias is None else jax.lax.psum(bias, AXIS)",
        "bias = bias",
        ("tests/model/test_attention_ring.py", "tests/layouts"),
    ),
    Mutant(
        "the ring of keys goes on one device too few",
        "lm/model/kernels/context.py",
        "keys, sums = cut.loop(rule.ways - 1, turn, (keys, sums))",
        "keys, sums = cut.loop(rule.ways - 2, turn, (keys, sums))",
        ("tests/model/test_attention_ring.py",),
    ),
    Mutant(
        "a pipeline's statistics are summed over micro-batches and not averaged",
        "lm/model/pipeline.py",
        "done.reshape(repeats, count, *values.shape[1:]).mean(axis=1)",
        "done.reshape(repeats, count, *values.shape[1:]).sum(axis=1)",
        ("tests/model/test_pipeline_stages.py",),
    ),
    Mutant(
        "the cache's ring is one slot too short",
        "lm/model/cache.py",
        "slot_BT = jnp.where(kept_BT, positions_BT % slots, slots)",
        "slot_BT = jnp.where(kept_BT, positions_BT % max(slots - 1, 1), slots)",
        ("tests/infer/test_decode.py", "tests/infer/test_decode_families.py"),
    ),
    Mutant(
        "cross-entropy is a mean where a sum is promised",
        "lm/losses.py",
        "return CrossEntropy(jnp.sum(weights_BT * loss_BT)",
        "return CrossEntropy(jnp.mean(weights_BT * loss_BT)",
        ("tests/test_losses.py",),
    ),
    Mutant(
        "z-loss uses log Z and not its square",
        "lm/losses.py",
        "z_loss * jnp.square(log_z_BT)",
        "z_loss * log_z_BT",
        ("tests/test_losses.py",),
    ),
    Mutant(
        "a step divides by the weight of one micro-batch",
        "lm/train/step.py",
        "inverse = jnp.where(weight_sum > 0, 1.0 / jnp.maximum(weight_sum, 1e-30), 0.0)",
        "inverse = jnp.where(weight_sum > 0, micro_batches / jnp.maximum(weight_sum, 1e-30), 0.0)",
        ("tests/train/test_step.py",),
    ),
    Mutant(
        "vectors are decayed and matrices are not",
        "lm/optim/optimizer.py",
        'decayed = jax.tree.map(lambda group: group == "matrix"',
        'decayed = jax.tree.map(lambda group: group == "vector"',
        ("tests/optim",),
    ),
    Mutant(
        "warm-up begins at rate 0",
        "lm/optim/schedules.py",
        "rising = (step + 1.0) / xp.maximum(warmup, 1.0)",
        "rising = step / xp.maximum(warmup, 1.0)",
        ("tests/optim",),
    ),
    Mutant(
        "the cooldown of WSD ends one step late",
        "lm/optim/schedules.py",
        "left = xp.clip((total - step) / xp.maximum(xp.round(self.cooldown * total), 1.0), 0.0, 1.0)",
        "left = xp.clip((total + 1 - step) / xp.maximum(xp.round(self.cooldown * total), 1.0), 0.0, 1.0)",
        ("tests/optim",),
    ),
    Mutant(
        "top-p stops before the token that reaches p",
        "lm/infer/sampling.py",
        "jnp.cumsum(share_BV, axis=-1) > 1 - self.p",
        "jnp.cumsum(share_BV, axis=-1) - share_BV > 1 - self.p",
        ("tests/infer",),
    ),
    Mutant(
        "positions of a packed row do not restart with its pieces",
        "lm/data/packing.py",
        "segments = (ordinal + 1)[which]",
        "segments = (ordinal + 1)[which]; positions = np.arange(rows * length) % length",
        ("tests/data",),
    ),
    Mutant(
        "masked LM replaces by random tokens one time in five",
        "lm/data/objectives/masked.py",
        "(fate < self.replace_by_mask + self.replace_by_random)",
        "(fate < self.replace_by_mask + 2 * self.replace_by_random)",
        ("tests/data",),
    ),
    Mutant(
        "held-out windows score their first tokens twice",
        "lm/evals/loss.py",
        "weights[row, start - begin : count] = 1.0",
        "weights[row, max(start - begin - 1, 0) : count] = 1.0",
        ("tests/evals",),
    ),
    Mutant(
        "bits per byte are nats per byte",
        "lm/evals/loss.py",
        "per_byte / math.log(2)",
        "per_byte / 1.0",
        ("tests/evals",),
    ),
    Mutant(
        "training counts as two forward passes",
        "lm/model/flops.py",
        "TRAINING = 3 ",
        "TRAINING = 2 ",
        ("tests/model/test_flops.py",),
    ),
    Mutant(
        "percentiles change sides",
        "lm/scaling/intervals/bootstrap.py",
        "[(1 - level) / 2, (1 + level) / 2]",
        "[(1 + level) / 2, (1 - level) / 2]",
        ("tests/scaling/test_isoflop.py", "tests/scaling/test_parametric.py"),
    ),
    Mutant(
        "seed noise has a degree of freedom too many",
        "lm/scaling/intervals/noise.py",
        "float(np.std(list(losses.values()), ddof=1))",
        "float(np.std(list(losses.values()), ddof=0))",
        ("tests/scaling/test_intervals.py", "tests/scaling", "tests/analysis"),
    ),
    Mutant(
        "Huber's cost is quadratic everywhere",
        "lm/scaling/fits/objectives.py",
        "return clipped * (r - 0.5 * clipped)",
        "return 0.5 * r * r",
        ("tests/scaling/test_objectives.py", "tests/scaling/test_fit.py"),
    ),
    Mutant(
        "approach 3 reads the exponents of N and D the wrong way round",
        "lm/scaling/laws/law.py",
        "return log_sum_exp(a - alpha * x[:, 0], b - beta * x[:, 1]",
        "return log_sum_exp(a - alpha * x[:, 1], b - beta * x[:, 0]",
        ("tests/scaling/test_fit.py",),
    ),
    Mutant(
        "a claim of a living process is taken over",
        "lm/study/leases.py",
        "if _holder(cell, last) is not None:",
        "if False:",
        ("tests/study",),
    ),
)


def stale(mutant: Mutant) -> Optional[str]:
    """Says why a mutant cannot be made of the code as it is now; None where it can."""
    count = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.before)
    if count != 1:
        return f"{mutant.file} holds {mutant.before!r} {count} times, not once"
    missing = [name for name in mutant.tests if not (ROOT / name).exists()]
    return f"there is no {missing[0]}" if missing else None


def survives(mutant: Mutant, cache: str) -> Optional[str]:
    """Makes the mutant in a copy of the tree and runs its tests, up to the first that fails.

    Returns:
      The test that finds it; None where all pass.

    Raises:
      RuntimeError: pytest itself failed, or the test that finds the mutant fails without it.
    """
    with tempfile.TemporaryDirectory(prefix="lm-mutant-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        path = copy / mutant.file
        path.write_text(path.read_text(encoding="utf-8").replace(mutant.before, mutant.after), encoding="utf-8")
        done = _pytest(copy, mutant.tests, cache)
        found = [line.partition(" ")[2].partition(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if done.returncode not in (0, 1) or (done.returncode == 1) != bool(found):
            raise RuntimeError(f"{mutant.name}: pytest ended with status {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
        if not found:
            return None
    if _pytest(ROOT, (found[0],), cache).returncode:
        raise RuntimeError(f"{mutant.name}: {found[0]} fails without it too")
    return found[0]


def _pytest(root: Path, tests: tuple[str, ...], cache: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_COMPILATION_CACHE_DIR": cache}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-x", "--durations=0", "--durations-min=1e6", "--tb=no", *tests]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nightly.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants whose names hold one of these words (default: all)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="mutants at once (default: one per core)")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    args = parser.parse_args(argv)
    chosen = [mutant for mutant in MUTANTS if not args.names or any(name in mutant.name for name in args.names)]
    if args.list:
        print("\n".join(f"{mutant.name}  ({mutant.file})" for mutant in chosen))
        return 0
    problems = [f"{mutant.name}: {why}" for mutant in chosen if (why := stale(mutant))]
    if problems or not chosen:
        print("\n".join(problems or [f"no mutant is called {' or '.join(args.names)}; --list names them"]), file=sys.stderr)
        return 1
    alive, begin = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lm-mutants-") as cache, concurrent.futures.ThreadPoolExecutor(args.processes) as pool:
        jobs = {pool.submit(survives, mutant, cache): mutant for mutant in chosen}
        for job in concurrent.futures.as_completed(jobs):
            by = job.result()
            alive += [jobs[job].name] * (by is None)
            print(f"SURVIVES  {jobs[job].name}" if by is None else f"found     {jobs[job].name}  by {by}", flush=True)
    print(f"{len(chosen) - len(alive)} of {len(chosen)} mutants found in {time.monotonic() - begin:.0f} s")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
