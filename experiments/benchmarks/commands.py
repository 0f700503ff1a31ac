"""`python -m experiments benchmarks NAME [--json]` (imports no jax: each side of a benchmark has a process of its own)."""

import json
import sys
from typing import Any, Optional

from experiments.benchmarks import train_cpu
from lm.errors import Parser, UserError, nearest

BENCHMARKS = {**train_cpu.BENCHMARKS}


def main(argv: Optional[list[str]] = None) -> int:
    """Runs one benchmark and prints its result."""
    args = _parser().parse_args(argv)
    if args.name not in BENCHMARKS:
        raise UserError(f"unknown benchmark {args.name!r}: {nearest(args.name, list(BENCHMARKS))}")
    if args.rounds < 1 or args.steps < 1:
        raise UserError("--rounds and --steps: give 1 or more")
    out = sys.stderr if args.json else sys.stdout
    result = BENCHMARKS[args.name].measure(rounds=args.rounds, steps=args.steps, say=lambda line: print(line, file=out, flush=True))
    print(json.dumps(result, indent=2) if args.json else told(result))
    return 0


def _parser() -> Parser:
    names = "\n".join(f"  {name:12s}{benchmark.about}" for name, benchmark in BENCHMARKS.items())
    parser = Parser(prog="python -m experiments benchmarks", description=f"Measures this project beside another program.\n\n{names}")
    parser.add_argument("name", help="name of a benchmark in the list")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds after one of warm-up (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="steps of a round (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON; the rounds go to standard error")
    return parser


def told(result: dict[str, Any]) -> str:
    """Returns a result as text."""
    ours, theirs = result["sides"]
    where, load = ours["environment"], result["load"]
    rates, busy = result["tokens_per_second"], result["tokens_per_processor_second"]
    options = ", ".join(f"{key}={value}" for key, value in ours["compiler_options"].items()) or "XLA's defaults"
    lines = [
        f"{where['device']} ({where['cpu']}), {result['cores']} cores, load {min(load):.1f} to {max(load):.1f}",
        f"lm {where['lm']}: {ours['program']}, attention {ours['attention']}, {ours['steps_per_dispatch']} steps per dispatch, {options}",
        f"peer: {theirs['program']}, attention {theirs['attention']}, {theirs['threads']} threads; {theirs['parameters']:,} parameters",
        f"tokens/s            {rates[0]:10,.0f} against {rates[1]:10,.0f}   ratio {_range(result['ratio'])}, target {result['target']:g}",
        f"tokens/processor-s  {busy[0]:10,.0f} against {busy[1]:10,.0f}   ratio {_range(result['ratio_processor'])}",
        f"{result['gflops_per_second']:,.0f} GFLOP/s; {result['convention']}",
    ]
    return "\n".join(lines)


def _range(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['least']:.2f} to {spread['most']:.2f})"
