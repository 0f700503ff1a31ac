"""`python -m lm.preflight --config=CONFIG --topology=tpu:v5p:4x4x4`: compiles a run's step for hardware that is not there.

Nothing here imports jax: compilation happens in child processes.
"""

import functools
import json
import math
import os
import sys
from pathlib import Path
from typing import Any, Optional

from lm import config as config_lib
from lm.errors import AGAIN, UserError, run_cli
from lm.preflight import topologies, wheels
from lm.preflight.job import Request, run_one
from lm.preflight.search import in_words, search
from lm.preflight.table import table
from lm.run import Arguments, load, missing, parse
from lm.train.config import RunConfig
from lm.usage import usage

WITH_VALUE = ("config", "topology", "timeout", "out", "hlo", "most", "at_once")
SWITCHES = ("help", "search")
OF_SEARCH = ("most", "at_once")
TRIED = ("mesh.", "execution.remat=", "execution.micro_batches=", "execution.pipeline_micro_batches=", "execution.pipeline_repeats=")
TIMEOUT = 1800.0
MOST = 6

HEAD = f"""usage: python -m lm.preflight --config=FILE.py[:NAME] --topology=KIND:DEVICE:SHAPE [--config.KEY=VALUE ...]

Compiles the training step of a configuration for devices that are not there, and prints what the compiler says as one JSON object.
Needs the compilers: pip install -c constraints.txt -e '.[tpu]' or '.[gpu]'. Exit status: 0 if it fits the devices' memory, 1 if not.

  --config=FILE.py[:NAME]  what `get_config(NAME)` of this file returns, or a .json file, as of lm.run
  --topology=...           tpu:v5p:4x4x4 (chips), gpu:h100:2x8 (nodes x GPUs of a node); {topologies.known()}
  --config.KEY=VALUE       changes one value, in any order; see below
  --timeout=SECONDS        the longest that one compilation may take (default: {TIMEOUT:.0f})
  --out=FILE               writes the JSON there instead of printing it
  --hlo=FILE               writes the compiled program (XLA's optimised HLO) there
  --search                 tries meshes, remat policies and micro-batches, whatever the configuration says of them; ranks those that
                           fit by estimated time
  --most=N                 of a search: compiles the N candidates that promise most by formula (default: {MOST})
  --at_once=N              of a search: N compilations at a time (default: 1); each takes a core and some GB
  --help                   prints this and exits

Times are estimates: the longest of three terms at peak rates. A real step takes longer.
Keys marked * say how a run is carried out and may change when it is resumed; all others say what it is.

"""


def main(argv: Optional[list[str]] = None) -> int:
    """Runs the command with these words, or with those of the command line, and returns its exit status."""
    arguments = parse(sys.argv[1:] if argv is None else argv, WITH_VALUE, SWITCHES)
    spec = arguments.values.get("config")
    if "help" in arguments.switches:
        config = config_lib.apply_overrides(load(spec) if spec else RunConfig(), arguments.overrides)
        print(usage(config, spec or "RunConfig()", HEAD))
        return 0
    if spec is None:
        raise UserError(missing(arguments, "--config=configs/decoder.py:8b"))
    if "topology" not in arguments.values:
        raise UserError(f"--topology is missing, such as {topologies.EXAMPLES}; devices: {topologies.known()}")
    _check(arguments)
    topology = topologies.parse(arguments.values["topology"])
    config = config_lib.apply_overrides(load(spec), arguments.overrides)
    say = functools.partial(print, file=sys.stderr, flush=True)
    timeout, most, at_once = _number(arguments, "timeout", TIMEOUT), int(_number(arguments, "most", MOST)), _at_once(arguments)
    wheels.require(topology.kind)
    if "search" in arguments.switches:
        found = search(config, topology, most=most, at_once=at_once, timeout=timeout, say=say)
        say(table([(c["name"], c["result"], c["error"]) for c in found["candidates"]]))
        _write(arguments, {"config": spec, **found})
        return 0 if any(c["result"] is not None and c["result"]["fits"] for c in found["candidates"]) else 1
    hlo = Path(arguments.values["hlo"]) if "hlo" in arguments.values else None
    result = run_one(Request(config, topology, timeout, hlo), say)
    say(in_words(result))
    _write(arguments, {"config": spec, **result})
    return 0 if result["fits"] else 1


def _check(arguments: Arguments) -> None:
    """Raises UserError for flags that would do nothing, and for files that could not be written once all is compiled."""
    searching = "search" in arguments.switches
    for name in arguments.values:
        if name in OF_SEARCH and not searching:
            raise UserError(f"--{name} belongs to --search: give both, or neither")
        if name == "hlo" and searching:
            raise UserError("--hlo keeps one program and --search compiles several: leave one out")
        if name in ("out", "hlo"):
            path = Path(arguments.values[name])
            if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
                raise UserError(f"--{name}={path} cannot be written: name a file in a folder that exists and is writable")
    for override in arguments.overrides if searching else ():
        if override.startswith(TRIED):
            raise UserError(f"--config.{override}: --search tries meshes, remat policies and micro-batches itself: leave one out")


def _write(arguments: Arguments, answer: dict[str, Any]) -> None:
    text = json.dumps(answer, indent=1)
    if "out" in arguments.values:
        Path(arguments.values["out"]).write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


def _number(arguments: Arguments, name: str, default: float) -> float:
    text = arguments.values.get(name)
    try:
        number = default if text is None else float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf or (name != "timeout" and number != int(number)):
        raise UserError(f"--{name}={text}: give a {'number' if name == 'timeout' else 'whole number'} above 0")
    return number


def _at_once(arguments: Arguments) -> int:
    number = int(_number(arguments, "at_once", 1))
    if number > (os.cpu_count() or 1):
        raise UserError(f"--at_once={number} is more than this machine's {os.cpu_count()} cores: give fewer")
    return number


if __name__ == "__main__":
    run_cli(main, AGAIN)
