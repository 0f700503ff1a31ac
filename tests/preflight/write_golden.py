"""Shows how the collectives of compiled steps differ from the golden files, and with `--write` writes these.

python -m tests.preflight.write_golden [--write]
"""

import difflib
import json
import sys
from pathlib import Path

import jax

from lm.preflight.hlo import Analysis
from lm.preflight.wheels import MODULES, installed
from tests.preflight.programs import TOPOLOGIES, analyses

FOLDER = Path(__file__).parent / "golden"


def path(kind: str) -> Path:
    """What a compiler does is its version's own."""
    return FOLDER / f"{kind}-jax-{jax.__version__}.json"


def rows(found: dict[str, Analysis]) -> dict[str, list[str]]:
    """Returns for each layout one line for each kind of collective and mesh axes."""
    return {
        name: [f"{c.kind} over {' '.join(c.axes)}: {c.count} of {c.payload:,} bytes, {c.largest:,} at most" for c in analysis.collectives]
        for name, analysis in found.items()
    }


def main() -> int:
    changed = False
    for kind in TOPOLOGIES:
        if not installed(MODULES[kind][0]):
            print(f"{kind}: its compiler is not installed")
            continue
        old = path(kind).read_text(encoding="utf-8") if path(kind).exists() else ""
        new = json.dumps(rows(analyses(kind)), indent=1) + "\n"
        print("".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), str(path(kind).name), "now", n=1)), end="")
        changed |= old != new
        if "--write" in sys.argv:
            FOLDER.mkdir(exist_ok=True)
            path(kind).write_text(new, encoding="utf-8")
    return int(changed and "--write" not in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
