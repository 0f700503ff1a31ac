"""The text of `python -m lm.run --help`: every key of a configuration, its value, what it takes, its comment (imports no jax)."""

import functools
import inspect
import io
import json
import tokenize
from typing import Any

from lm.config import leaves

HEAD = """usage: python -m lm.run --config=FILE.py[:NAME] --workdir=DIR [--config.KEY=VALUE ...]

Trains one configuration, or goes on where an interrupted run of the same configuration stopped.

  --config=FILE.py[:NAME]  what `get_config(NAME)` of this file returns; or a .json file, such as cells/ID/config.json of a study
  --workdir=DIR            where the run's record, metrics and checkpoints go
  --config.KEY=VALUE       changes one value, in any order; see below
  --print_config           prints the resulting configuration as JSON (which --config reads) and exits
  --dry_run                prints parameters, FLOPs, steps and memory, and trains nothing
  --distributed=HOW        several processes: auto (default: a step of srun or mpirun with several tasks, hosts of a Cloud TPU), off,
                           or slurm, ompi, mpi4py, k8s, tpu; see docs/hosts.md
  --coordinator=HOST:PORT --num_processes=N --process_id=I    the same by hand: where process 0 is, how many, which this is
  --join_timeout=SECONDS   in which all processes have to come (300)
  --peer_timeout=SECONDS   of silence after which a process is taken for gone, and the others end (60)
  --profile=A:B            writes a profiler trace of steps A to B-1 to DIR/profile
  --help                   prints this and exits

A key that takes "one of" several groups chooses one by its name, and the keys of the chosen one follow. `none` turns a value off.
Elements of a list of groups have an index (data.components.0.corpus); the next index appends. Integers may be written 1e5.
Keys marked * say how a run is carried out and may change when it is resumed; all others say what it is.

"""


def usage(config: Any, source: str, head: str = HEAD) -> str:
    """The help text with the values of `config`, which came from `source`."""
    lines = [head, f"Keys, with the values of {source}:", ""]
    for leaf in leaves(config):
        value = "none" if leaf.value is None else leaf.value if isinstance(leaf.value, str) else json.dumps(leaf.value)
        mark = "*" if leaf.part == "execution" else " "
        comment = comments(leaf.owner).get(leaf.path.rpartition(".")[2], "")
        lines.append(f" {mark} --config.{leaf.path}={value}".ljust(56) + f" {leaf.takes}".ljust(34) + (f" {comment}" if comment else ""))
    return "\n".join(line.rstrip() for line in lines)


@functools.cache
def comments(cls: type) -> dict[str, str]:
    """The comments beside the fields of a dataclass."""
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
