"""Every replication, within its time, and the longer checks on the Epoch points that `python -m experiments.replications` leaves out.

    python tests/nightly/replicate.py DIR [--limit 180]

DIR is the folder of the public tables (docs/replications.md). Without it there is nothing to check: one line says so, exit status 0.
"""

import argparse
import pathlib
import subprocess
import sys
import time

from experiments.replications import epoch, published_numbers
from lm.scaling import rolling
from lm.scaling.fits import fit
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.fitted_law import points_of
from lm.scaling.laws.law import Chinchilla
from lm.scaling.results import Refusal

DELTAS = {1e-4: (0.3654, 0.513), 1e-2: (0.3815, 0.518), 1e-1: (0.4059, 0.530)}  # Huber's delta: beta, a
HELD_OUT = {3e19: (82, 0.667, 0.88), 1e20: (136, 0.602, 0.89), 3e20: (177, 0.578, 1.00), 1e21: (217, 0.548, 1.05)}


def exponent(made: fit.Fit | Refusal) -> published_numbers.Number:
    return made if isinstance(made, Refusal) else epoch.exponent(made.natural)


def objectives(points) -> list[published_numbers.Check]:
    """How the answer moves with Huber's delta."""
    law, found = Chinchilla(), []
    for delta, (beta, a) in DELTAS.items():
        made = fit.fit(law, points_of(points, law), HuberLog(delta))
        found.append(
            published_numbers.within(f"delta {delta:g}: beta", made if isinstance(made, Refusal) else made.natural["beta"], beta, 5e-4)
        )
        found.append(published_numbers.within(f"delta {delta:g}: a", exponent(made), a, 1e-3))
    return found


def held_out(points) -> list[published_numbers.Check]:
    """Fits up to a budget, and their error on the runs above it: loss extrapolates far better than the exponent."""
    made = rolling.rolling_origin(points, cuts=tuple(HELD_OUT))
    found = []
    for i, (flops, (count, a, error)) in enumerate(HELD_OUT.items()):
        one = made if isinstance(made, Refusal) else made[i]
        fitted = isinstance(one, rolling.Origin)
        why = one.why if isinstance(one, rolling.Skipped) else one
        found.append(published_numbers.within(f"C <= {flops:g}: points", one.rows if fitted else why, count, 0))
        found.append(published_numbers.within(f"C <= {flops:g}: a", epoch.exponent(one.values) if fitted else why, a, 1e-3))
        rest = 100 * one.rest_absolute_error if fitted else why
        found.append(published_numbers.within(f"C <= {flops:g}: mean relative error on the rest, %", rest, error, 0.01))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds that all replications together may take (default: 180)")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"no folder {args.data}: the replications are left out")
        return 0
    begin = time.perf_counter()
    status = subprocess.run((sys.executable, "-m", "experiments.replications", f"--data={args.data}")).returncode
    seconds = time.perf_counter() - begin
    points = epoch.filtered(epoch.table(args.data))
    longer = (
        *objectives(points),
        *held_out(points),
        published_numbers.at_most("seconds of all replications", seconds, args.limit),
    )
    made = published_numbers.Replication("longer", longer, title="Epoch's 240 points")
    print(f"\n{published_numbers.block(made)}\n\n{made.passed} of {len(longer)} checks passed")
    return int(bool(status) or made.passed < len(longer))


if __name__ == "__main__":
    sys.exit(main())
