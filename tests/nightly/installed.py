"""Installs the project as `pip install .` does, into a folder of its own, and runs its commands in an empty directory.

    python tests/nightly/installed.py

The libraries that it needs are those of the Python that runs this.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = [
    ["lm"],
    ["lm.run", "--config=configs/decoder.py:tiny", "--dry_run"],
    ["lm.run", f"--config={ROOT / 'configs' / 'encoder_decoder.py'}:tiny", "--dry_run"],
    ["lm.run", "--config=configs/decoder.py:tiny", "--workdir=runs/tiny", "--config.train_tokens=20k"],
    ["lm.infer", "runs/tiny", "--prompt=def main("],
    ["lm.evals", "loss", "runs/tiny"],
    ["experiments", "chinchilla", "plan"],
    ["experiments", "experiments/t5_architectures/large.py", "plan", "--without-data"],
    ["experiments.replications", "synthetic"],
]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        copy, installed, empty = (pathlib.Path(folder) / name for name in ("copy", "installed", "empty"))
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__"))
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", f"--target={installed}", str(copy)], check=True)
        empty.mkdir()
        environment = os.environ | {"PYTHONPATH": str(installed)}
        for command in COMMANDS:
            done = subprocess.run(
                [sys.executable, "-m", *command], cwd=empty, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            print(f"exit status {done.returncode}: python -m {' '.join(command)}", flush=True)
            if done.returncode:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
