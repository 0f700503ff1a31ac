"""Every command's help, and what it says to a wrong word, come before a library is loaded that takes seconds to import."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from lm.scaling import __main__ as scaling

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "tensorflow", "matplotlib", "scipy", "array_record")
HEAVY += ("transformers", "torch", "pandas", "pyarrow", "tokenizers", "sentencepiece", "safetensors", "tensorboardX")

# Every command, and what of a command has a help of its own.
HELP = [
    ["lm"],
    ["lm.run"],
    ["lm.study.worker"],
    ["launch.local"],
    ["experiments"],
    ["experiments.replications"],
    ["lm.infer"],
    ["lm.preflight"],
    ["lm.data"],
]
HELP += [["lm.evals"], ["lm.evals", "loss"], ["lm.hf"], ["lm.hf", "import"], ["lm.hf", "export"], ["lm.scaling"]]
HELP += [["lm.scaling", verb] for verb in scaling.VERBS]
HELP += [["experiments.replications." + name] for name in ("benchmark", "backtest", "few_budgets")]

# What people type wrong, in an empty directory: unknown words, missing arguments, files that are not there, numbers out of range.
TINY = ["lm.run", "--config=configs/decoder.py:tiny"]
WRONG = [[*command, "--no_such_flag=1"] for command in HELP if command != ["lm"]]
WRONG += [
    ["lm", "run"],
    ["lm.run"],
    ["lm.evals"],
    ["lm.hf"],
    ["lm.scaling"],
    ["lm.infer"],
    ["lm.data"],
    ["experiments"],
    ["lm.study.worker"],
]
WRONG += [["lm.run", "--config=nothing.py", "--workdir=w"], TINY, [*TINY, "--workdir=w", "--config.seeed=1"]]
WRONG += [
    [*TINY, "--workdir=w", f"--config.{change}"]
    for change in (
        "model.d_model=x",
        "model.attention.num_kv_heads=3",
        "train_tokens=10",
        "data.components.0.corpus=nothing",
        "batch_size=0",
    )
]
WRONG += [[*TINY, "--workdir=w", "--config.data.components.0.corpus=nothing"]]
WRONG += [[*TINY, "--dry_run", "--config.train_tokens=10"]]
WRONG += [[*TINY, "--workdir=w", "--config.data.components.0.corpus=text_files", "--config.data.components.0.paths=nothing.txt"]]
WRONG += [["lm.infer", "nothing", "--prompt=a"], ["lm.infer", "nothing", "--prompt=a", "--top_k=0"], ["lm.infer", "nothing", "--prompt="]]
WRONG += [["lm.evals", "loss", "nothing"], ["lm.hf", "import", "nothing", "--workdir=w"], ["lm.hf", "export", "nothing", "out"]]
WRONG += [["lm.preflight", "--config=configs/decoder.py:tiny"], ["lm.preflight", "--config=configs/decoder.py:tiny", "--topology=tpu:v9"]]
WRONG += [["experiments", "chinchila"], ["experiments", "chinchilla", "status"], ["experiments", "chinchilla", "plott"]]
WRONG += [["experiments", "nothing/study.py"], ["lm.study.worker", "nothing"], ["launch.local", "nothing"]]
WRONG += [["experiments.replications", "nothing"], ["experiments.replications", "epoch", "--data=nowhere"]]
WRONG += [["lm.scaling", verb, "nothing.csv"] for verb in ("fit", "plan", "power", "backtest", "curves")]
WRONG += [["lm.scaling", "predict", "nothing.json", "--target", "1e22"], ["lm.scaling", "score", "nothing.json", "nothing.csv"]]
WRONG += [["lm.scaling", "compare", "nothing.csv", "nothing.csv", "--at", "1e20"], ["lm.scaling", "tune", "nothing.csv", "--sweep", "lr"]]
WRONG += [["lm.scaling", "mixture", "nothing.csv", "--shares", "a", "b", "--loss", "c"]]
WRONG += [["lm.scaling", "chain", "nothing.csv", "--metric", "m", "--at", "N=1", "D=1"]]
WRONG += [["lm.scaling", "fit", "table.csv", f"--{option}"] for option in ("law=nothing", "delta=-1", "target=-1", "draws=2", "level=2")]
WRONG += [
    ["lm.scaling", "fit", "table.csv", f"--{option}"] for option in ("loss=nothing", "save=table.csv", "quality=all", "no_such_flag=1")
]
WRONG += [["lm.scaling", "fit", "table.csv", "--between", "Q", "1", "2"]]


def python(*arguments, cwd=ROOT):
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)
    return done, time.monotonic() - start


ANSWERS = """
import contextlib, io, json, runpy, sys, warnings
warnings.simplefilter('ignore', RuntimeWarning)  # of modules that an earlier command imported
heavy = json.loads(sys.argv[2])
found = []
for command in json.loads(sys.argv[1]):
    sys.argv = list(command)
    out, err, status = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code or 0
    found.append([status, out.getvalue(), err.getvalue(), sorted(set(heavy) & set(sys.modules))])
print(json.dumps(found))
"""


def answers(commands, cwd):
    """Exit status, output and heavy libraries of commands, given in one process in which none of them has loaded a heavy library."""
    done, _ = python("-c", ANSWERS, json.dumps(commands), json.dumps(HEAVY), cwd=cwd)
    assert done.returncode == 0, done.stderr
    return zip(commands, json.loads(done.stdout), strict=True)


def test_every_help_answers_and_loads_no_heavy_library(tmp_path):
    for command, (status, text, _, heavy) in answers([[*command, "--help"] for command in HELP], tmp_path):
        assert (status, heavy) == (0, []), command
        assert "--" in text, command


def test_what_is_typed_wrong_is_said_before_a_heavy_library_is_loaded(tmp_path):
    (tmp_path / "table.csv").write_text("N,D,loss\n1e6,1e8,3.5\n2e6,2e8,3.2\n4e6,4e8,3.0\n8e6,8e8,2.8\n", encoding="utf-8")
    for command, (status, out, err, heavy) in answers(WRONG, tmp_path):
        assert (status, out, heavy) == (2, "", []), command
        *table, last = err.splitlines()
        assert last.startswith("error: "), command
        assert not [line for line in table if "usage" in line], command  # what was read of a table may come first


def test_help_answers_at_once():
    """A process of its own, for the time that a person waits."""
    done, seconds = python("-m", "experiments", "--help")
    assert done.returncode == 0, done.stderr
    assert seconds < 10  # two seconds on a quiet machine
