"""The text of `python -m lm.run --help`: every key of a configuration with its value, choices and comment (imports no jax)."""

import functools
import inspect
import io
import json
import textwrap
import tokenize
from typing import Any

from lm import fields
from lm.config import leaves

WIDTH, COLUMN = 140, 56  # of a line; where meanings begin

HEAD = """usage: python -m lm.run --config=FILE.py[:NAME] --workdir=DIR [--config.KEY=VALUE ...]

Trains one configuration, or continues an interrupted run of the same configuration.

  --config=FILE.py[:NAME]  the configuration: what get_config(NAME) of this file returns, or a .json file (--print_config writes one)
  --workdir=DIR            directory of the run's record, metrics and checkpoints
  --init_from=RUN          begins with the weights of another run, trained or imported, in a work directory of its own
  --fall_back=older        where the newest checkpoint is damaged: sets it aside and goes on from an older one; --fall_back=nothing
                           does so from the start too, where none is sound (default: stops)
  --retry                  trains a run that has diverged on from its newest checkpoint (default: leaves it as it is)
  --config.KEY=VALUE       sets one value of the configuration, in any order; the keys are listed below
  --print_config           prints the resulting configuration as JSON and exits
  --dry_run                prints parameters, FLOPs, steps and memory, and exits
  --time_limit=2h30m       saves and exits with status 124 before so much time is over (default: the end of the SLURM job; none: never)
  --profile=A:B            writes a profiler trace of steps A to B-1 to DIR/profile
  --help                   prints this and exits

  Several processes (docs/hosts.md):
  --distributed=HOW        auto (default) finds the tasks of a srun or mpirun step and the hosts of a Cloud TPU; off; or one of
                           slurm, ompi, mpi4py, k8s, tpu
  --coordinator=HOST:PORT  address of process 0, if the processes are started by hand; needs the next two flags
  --num_processes=N        number of processes
  --process_id=I           number of this process, from 0
  --join_timeout=SECONDS   time limit for all processes to join (default: 300)
  --peer_timeout=SECONDS   silence after which a process counts as lost and the others end (default: 60)

Set a key that lists group names to one of them, then set the keys of that group. `none` turns an optional value off.
Elements of a list have an index (data.components.0.corpus); the next free index appends. Integers may be written as 1e5 or 100M.
Keys marked * say how the run is carried out and may change when it resumes. All others say what the run is.

"""


def usage(config: Any, source: str, head: str = HEAD) -> str:
    """Returns a help text: `head`, then every key with its value in `config`, which came from `source`."""
    lines, group = [head, f"Keys, with the values of {source}:"], None
    for leaf in leaves(config):
        owner, _, name = leaf.path.rpartition(".")
        if owner != group:
            group = owner
            lines.append("")
        value = "none" if leaf.value is None else leaf.value if isinstance(leaf.value, str) else json.dumps(leaf.value)
        mark = "*" if leaf.part == "execution" else " "
        takes = "" if leaf.takes in fields.SCALARS.values() else f"[{leaf.takes}]"  # else the value shows it
        meaning = f"{comments(leaf.owner).get(name, '')} {takes}".strip()
        first, *others = textwrap.wrap(meaning, WIDTH - COLUMN) or [""]
        lines += [f" {mark} --config.{leaf.path}={value} ".ljust(COLUMN) + first, *(" " * COLUMN + other for other in others)]
    return "\n".join(line.rstrip() for line in lines)


@functools.cache
def comments(cls: type) -> dict[str, str]:
    """Returns the comments beside the fields of a dataclass, by field."""
    found, name, at_start = {}, "", True
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(cls)).readline):
        if token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            at_start = True
            continue
        if token.type == tokenize.NAME and at_start:
            name = token.string
        elif token.type == tokenize.COMMENT and not at_start:
            found[name] = token.string.lstrip("# ")
        at_start = False
    return found
