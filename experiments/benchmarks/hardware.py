"""The named models on the named TPUs and GPUs: the mesh that the search finds, and what the compilers say of it.

    python -m experiments.benchmarks.hardware                                # prints the table as it was last compiled
    python -m experiments.benchmarks.hardware --search gpu                   # searches again for rows whose name holds `gpu`; writes them
    python -m experiments.benchmarks.hardware --check                        # compiles each row again; fails if one is 2% worse

A row holds peak memory, FLOPs compiled over FLOPs needed (matmul + causal attention), bytes moved and sent per device and step, and the
bound on the MFU. It needs the compilers (`pip install -c constraints.txt -e '.[tpu]'`, `'.[gpu]'`) and no accelerator. Progress goes to
standard error. The exit status is 1 where a row is worse than the table says.
"""

import argparse
import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from lm import config as config_lib
from lm.errors import Parser, UserError, run_cli
from lm.preflight import topologies, wheels
from lm.preflight.job import Request, Say, run_one
from lm.preflight.search import search
from lm.run import load

TABLE = Path(__file__).with_name("hardware.json")
MODELS = {
    "decoder 124M": ("configs/decoder.py:gpt2_124m", ("compute_dtype=bfloat16",)),
    "decoder 1B": ("configs/decoder.py:llama_1b", ()),
    "decoder 8B": ("configs/decoder.py:8b", ()),
    "decoder 70B": ("configs/decoder.py:70b", ()),
    "encoder-decoder 11B": ("configs/encoder_decoder.py:t5_11b", ()),
    "encoder 340M": ("configs/encoder.py:bert_large", ("compute_dtype=bfloat16",)),
}
TOPOLOGIES = ("gpu:h100:1x8", "gpu:h200:1x8", "gpu:b200:1x8", "tpu:v5e:4x4", "tpu:v5p:4x4x4", "tpu:v6e:4x4")
WORSE = 0.02  # of a figure, beyond which --check fails
HIGHER, LOWER = ("mfu_bound",), ("peak_bytes", "compiled_over_needed", "bytes_moved", "bytes_sent")  # which way is better


def rows(pattern: str) -> Iterator[tuple[str, str, str]]:
    """Yields (name, model, topology) of the rows whose names hold the pattern."""
    for model in MODELS:
        for topology in TOPOLOGIES:
            if pattern in (name := f"{model} on {topology}"):
                yield name, model, topology


def measured(result: dict[str, Any]) -> dict[str, float]:
    """Returns a row's figures from the result of a preflight. MFU and FLOPs needed count matmul and causal attention."""
    flops = result["flops_per_device"]
    return {
        "mfu_bound": result["estimate"]["mfu_bound"]["matmul_causal"],
        "bound_by": result["estimate"]["bound_by"],
        "peak_bytes": result["bytes_per_device"]["peak"],
        "compiled_over_needed": flops["compiled"] / flops["matmul_causal"],
        "bytes_moved": result["bytes_moved_per_device"],
        "bytes_sent": float(sum(collective["sent"] for collective in result["collectives"])),
        "attention": result["attention"],
    }


def worse(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns the figures that are more than WORSE worse than before, in words."""
    signs = {**dict.fromkeys(HIGHER, 1.0), **dict.fromkeys(LOWER, -1.0)}
    return [
        f"{name} {before[name]:.4g} -> {now[name]:.4g}"
        for name, sign in signs.items()
        if sign * (now[name] - before[name]) < -WORSE * abs(before[name])
    ]


def find(model: str, topology: str, most: int, timeout: float, say: Say) -> dict[str, Any]:
    """Returns the row that the search finds, or one with the reason why none fits."""
    spec, changes = MODELS[model]
    config = config_lib.apply_overrides(load(spec), list(changes))
    try:
        found = search(config, topologies.parse(topology), most=most, at_once=1, timeout=timeout, say=say)
    except UserError as error:
        return {"config": spec, "reason": str(error)}
    best = found["candidates"][0]
    if best["result"] is None or not best["result"]["fits"]:
        return {"config": spec, "reason": best["error"] or f"none of the {found['compiled']} that promise most fits: {best['name']}"}
    return {"config": spec, "name": best["name"], "flags": best["flags"], "jax": best["result"]["jax"], **measured(best["result"])}


def compiled(row: dict[str, Any], model: str, topology: str, timeout: float, say: Say) -> dict[str, Any]:
    """Returns a row's figures, compiled again with its flags."""
    flags = [word.removeprefix("--config.") for word in row["flags"].split()]
    config = config_lib.apply_overrides(load(row["config"]), [*MODELS[model][1], *flags])
    return measured(run_one(Request(config, topologies.parse(topology), timeout), say))


def table(found: dict[str, dict[str, Any]]) -> str:
    """Returns the rows as a table in Markdown."""
    lines = ["| model, devices | mesh and execution | peak GB | compiled / needed FLOPs | GB moved | GB sent | bound on MFU | by |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, row in found.items():
        if "reason" in row:
            lines.append(f"| {name} | none: {row['reason']} | | | | | | |")
            continue
        gigabytes = (f"{row[key] / 1e9:.1f}" for key in ("peak_bytes", "bytes_moved", "bytes_sent"))
        peak, moved, sent = gigabytes
        ratio, bound = f"{row['compiled_over_needed']:.2f}", f"{row['mfu_bound']:.0%}"
        lines.append(f"| {name} | {row['name']} | {peak} | {ratio} | {moved} | {sent} | {bound} | {row['bound_by']} |")
    return "\n".join(lines)


def main(argv: Optional[list[str]] = None) -> int:
    """Runs the command with these words, or with those of the command line, and returns its exit status."""
    parser = Parser(
        prog="python -m experiments.benchmarks.hardware", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--search", metavar="PART", help="search for the rows whose name holds this; '' for all")
    what.add_argument("--check", nargs="?", const="", metavar="PART", help="compile the rows whose name holds this again (default: all)")
    parser.add_argument("--most", type=int, default=3, help="candidates that are compiled for a row (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one compilation (default: %(default).0f)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args(argv)
    say = functools.partial(print, file=sys.stderr, flush=True)
    found = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else {}
    if args.search is None and args.check is None:
        print(json.dumps(found, indent=1) if args.json else table(found))
        return 0
    chosen = list(rows(args.search if args.search is not None else args.check))
    if not chosen:
        raise UserError(f"no row is named so; there are {', '.join(name for name, _, _ in rows(''))}")
    for kind in {topology.partition(":")[0] for _, _, topology in chosen}:
        wheels.require(kind)
    failed = 0
    for name, model, topology in chosen:
        say(f"{name}:")
        if args.search is not None:
            found[name] = find(model, topology, args.most, args.timeout, say)
            ordered = {key: found[key] for key, _, _ in rows("") if key in found}
            TABLE.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        elif "flags" in found.get(name, {}):
            now = compiled(found[name], model, topology, args.timeout, say)
            losses = worse(found[name], now)
            failed += bool(losses)
            print(f"{name}: {'worse: ' + ', '.join(losses) if losses else 'as before'}", flush=True)
    if args.search is not None:
        print(table({name: found[name] for name, _, _ in chosen}))
    return 1 if failed else 0


if __name__ == "__main__":
    run_cli(main)
