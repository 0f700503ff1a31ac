"""Kills a study at random moments, starts it again, and compares every number with an uninterrupted run on the same machine.

    python tests/nightly/kill_study.py chinchilla --reference runs/chinchilla --kills 6

Takes as long as the study and what the kills cost. Exits non-zero, naming the cell, at the first difference.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile

COMPARED = ("status", "reason", "final", "curve", "steps", "tokens", "flops", "parameters")


def kill(process: subprocess.Popen, root: pathlib.Path, everything: bool) -> str:
    """SIGKILL for the launcher and, if `everything`, for the workers first; otherwise they notice that it is gone."""
    workers = (
        subprocess.run(("pgrep", "-f", f"lm.study.worker {root}"), capture_output=True, text=True).stdout.split() if everything else []
    )
    for pid in (*map(int, workers), process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    return f"launcher and {len(workers)} workers" if everything else "launcher"


def run(study: str, root: pathlib.Path, kills: int, longest: float) -> int:
    """Runs the study with `kills` interruptions; returns the last exit status."""
    moments = random.Random(root.name)
    for number in range(kills + 1):
        process = subprocess.Popen((sys.executable, "-m", "experiments", study, "--dir", str(root)))
        try:
            return process.wait(timeout=moments.uniform(10, longest) if number < kills else None)
        except subprocess.TimeoutExpired:
            print(f"kill {number + 1}: {kill(process, root, everything=number % 2 == 0)}", flush=True)
    raise AssertionError("the last start waits for its end")


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """What differs between two directories of a study: cells, fits, exclusions."""

    def read(path: pathlib.Path) -> dict:
        return json.loads(path.read_text(encoding="utf-8"))

    found = []
    cells = [{path.parent.name: read(path) for path in root.glob("cells/*/run.json")} for root in (one, other)]
    for name in sorted({*cells[0], *cells[1]}):
        records = [[side.get(name, {}).get(field) for field in COMPARED] for side in cells]
        if records[0] != records[1]:
            found.append(f"cell {name}")
    fits = [{key: value for key, value in read(root / "summary.json").items() if key != "inputs"} for root in (one, other)]
    return found + [f"fit: {key}" for key in fits[0] if fits[0][key] != fits[1].get(key)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--reference", type=pathlib.Path, required=True, help="directory of the uninterrupted run")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--longest", type=float, default=110.0, help="seconds between a start and its kill, at most")
    args = parser.parse_args()
    root = pathlib.Path(tempfile.mkdtemp(dir=args.reference.parent, prefix="killed-"))
    status = run(args.study, root, args.kills, args.longest)
    found = differences(args.reference, root)
    print(f"exit status {status}; {len(list(root.glob('cells/*/run.json')))} cells in {root}")
    print("\n".join(f"differs: {what}" for what in found) or "every loss, curve, exclusion and fitted number is the same to the last digit")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
