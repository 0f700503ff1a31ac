"""`python -m lm.run --config=configs/decoder.py:tiny --workdir=DIR [--config.KEY=VALUE ...]`: trains one configuration.

`main` reads the flags and the configuration, and `lm.runner.train_run` trains it. docs/design.md lists the calls from here to the gradient.

Flags have ml_collections' spelling, and a configuration file may return a ConfigDict, but they are parsed here and not by its absl flags.
Those learn a strategy's keys only from its present value (so `schedule.cooldown` before `schedule=wsd` fails), report a wrong key by a
traceback, and cannot name the nearest right one. jax is imported when training starts.
"""

import difflib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple, Optional

from lm import config as config_lib
from lm import distributed, files
from lm.errors import UserError, require_local, run_cli
from lm.evals.words import in_words
from lm.init_from import find, require_said
from lm.train import checks, record, signals
from lm.train.config import FALL_BACK, FallBack, RunConfig
from lm.train.progress import show
from lm.usage import usage

WITH_VALUE = ("config", "workdir", "init_from", "fall_back", "profile", "time_limit", *distributed.FLAGS)
SWITCHES = ("help", "print_config", "dry_run", "retry")


class Arguments(NamedTuple):
    """A parsed command line."""

    values: dict[str, str]  # by flag, for flags that take a value
    switches: set[str]
    overrides: list[str]  # "path=text", without the leading "config."


def parse(argv: list[str], with_value: tuple[str, ...] = WITH_VALUE, switches_known: tuple[str, ...] = SWITCHES) -> Arguments:
    """Parses a command line; UserError for unknown words. `--flag=value` and `--flag value` are the same."""
    values, switches, overrides, rest = {}, set(), [], list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.removeprefix("-").removeprefix("-").partition("=")
        name = {"h": "help"}.get(name, name)
        if not word.startswith("-"):
            raise UserError(f"{word!r} is not a flag: flags begin with --, as in --config.KEY=VALUE")
        if name in switches_known:
            if equals:
                raise UserError(f"--{name} takes no value: write --{name} alone")
            switches.add(name)
            continue
        is_override = name.startswith("config.")
        if name not in with_value and not is_override:
            raise UserError(f"unknown flag --{name}; {_nearest_flag(name, (*with_value, *switches_known))}")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"--{name} needs a value: --{name}=...")
            text = rest.pop(0)
        if is_override:
            overrides.append(f"{name.removeprefix('config.')}={text}")
        else:
            values[name] = text
    return Arguments(values, switches, overrides)


def _nearest_flag(name: str, flags: tuple[str, ...]) -> str:
    keys = {leaf.path: f"--config.{leaf.path}" for leaf in config_lib.leaves(RunConfig())}
    if name in keys:
        return f"did you mean {keys[name]}?"
    near = difflib.get_close_matches(name, [*flags, *(key.removeprefix("--") for key in keys.values())], n=1, cutoff=0.5)
    return f"the nearest is --{near[0]}" if near else "--help lists the flags"


def load(spec: str) -> RunConfig:
    """Loads the configuration that "FILE.py:NAME" or "FILE.json" names; UserError for a file that gives none."""
    file, _, name = spec.partition(":")
    path = files.here_or_shipped(file)
    if not path.is_file():
        others = sorted(str(p) for folder in {path.parent, Path("configs")} for p in folder.glob("*.py") if p.stem != "__init__")
        others = others or [f"configs/{p.name}" for p in sorted(files.here_or_shipped("configs/decoder.py").parent.glob("*[!_].py"))]
        near = difflib.get_close_matches(file, others, n=1, cutoff=0.3) or others[:1]
        raise UserError(f"--config={spec}: there is no file {file}" + (f"; the nearest is {near[0]}" if near else ""))
    if path.suffix == ".json":
        try:
            return config_lib.from_dict(RunConfig, json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise UserError(f"--config={spec}: {file} is not JSON: {error}") from error
    value = _call(path, spec, name)
    if hasattr(value, "to_dict") and not isinstance(value, RunConfig):
        value = config_lib.from_config_dict(RunConfig, value)
    if not isinstance(value, RunConfig):
        raise UserError(f"--config={spec}: get_config returned a {type(value).__name__}; return an lm.train.config.RunConfig")
    return value


def _call(path: Path, spec: str, name: str) -> Any:
    """Runs a configuration file and returns what its `get_config(name)` returns; UserError for a file that has none or that fails."""
    module_spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"--config={spec}: {path} is neither a .py nor a .json file")
    module = importlib.util.module_from_spec(module_spec)
    try:
        with files.package_of(path):
            module_spec.loader.exec_module(module)
            if not hasattr(module, "get_config"):
                raise UserError(f"--config={spec}: {path} defines no get_config(name)")
            return module.get_config(name) if name else module.get_config()
    except UserError:
        raise
    except Exception as error:  # the file is the user's program, and whatever it raises is for the user to fix
        raise UserError(f"--config={spec}: {type(error).__name__}: {error} (LM_TRACEBACK=1 shows where)") from error


def profile_steps(text: Optional[str]) -> Optional[tuple[int, int]]:
    """Parses "A:B" as the steps [A, B)."""
    if text is None:
        return None
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UserError(f"--profile={text}: give two steps, such as --profile=10:15")
    return int(first), int(last)


def how_to_fall_back(text: Optional[str]) -> Optional[FallBack]:
    """Parses what to do where the newest checkpoint is not sound; None refuses."""
    if text is not None and text not in FALL_BACK:
        raise UserError(f"--fall_back={text}: give one of {', '.join(FALL_BACK)}")
    return next((word for word in FALL_BACK if word == text), None)


def missing(arguments: Arguments, example: str) -> str:
    """Returns what to say where --config is missing, and of the first key beside it that no configuration has."""
    said = f"--config is missing, such as {example}"
    try:
        config_lib.apply_overrides(RunConfig(), arguments.overrides)
    except UserError as error:
        return f"{said}; and {error}"
    return f"{said}; --help lists the flags"


def main(argv: Optional[list[str]] = None) -> int:
    """Runs the command with these arguments (default: those of the process) and returns its exit status."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    spec = arguments.values.get("config")
    if "help" in arguments.switches:
        config = config_lib.apply_overrides(load(spec) if spec else RunConfig(), arguments.overrides)
        print(usage(config, spec or "RunConfig()"))
        return 0
    if spec is None:
        raise UserError(missing(arguments, "--config=configs/decoder.py:tiny"))
    config = config_lib.apply_overrides(load(spec), arguments.overrides)
    profile, hosts = profile_steps(arguments.values.get("profile")), distributed.settings(arguments.values)
    if "print_config" in arguments.switches:
        print(json.dumps(config_lib.to_dict(config), indent=1))
        return 0
    workdir = arguments.values.get("workdir")
    seconds = signals.seconds_left(arguments.values.get("time_limit"), os.environ)
    for place in (workdir, arguments.values.get("init_from")):
        require_local(place or "")
    fall_back = how_to_fall_back(arguments.values.get("fall_back"))
    if workdir is None and "dry_run" not in arguments.switches:
        raise UserError("--workdir is missing: name the directory for the run's record, metrics and checkpoints")
    checks.check_config(config)  # what can be said before anything that takes long is imported
    init_from = arguments.values.get("init_from")
    if init_from is None and workdir is not None:
        require_said(config, Path(workdir), Path(spec.partition(":")[0]))
    if "dry_run" in arguments.switches:
        print(dry_run(config, init_from, Path(workdir) if workdir else None))
        return 0
    assert workdir is not None
    how = {"init_from": init_from, "profile": profile, "fall_back": fall_back, "retry": "retry" in arguments.switches}
    with signals.Stop(at_once=True, seconds=seconds), distributed.joined(hosts):
        return train(config, Path(workdir), **how)


def train(config: RunConfig, workdir: Path, **how: Any) -> int:
    """Trains a run as one of the processes that have joined, reports its end, and returns the command's exit status."""
    if distributed.count() == 1:
        checks.check_text(config)
        checks.check_workdir(config, workdir)
    from lm import runner  # imports jax

    first = distributed.is_first()
    done = runner.train_run(config, workdir, log=show if first else None, table=first, **how)
    return report(done, workdir) if first else int(done["status"] != "completed")


def dry_run(config: RunConfig, init_from: Optional[str], workdir: Optional[Path]) -> str:
    """Returns what `--dry_run` prints; UserError where training would end in one before it began."""
    from lm.describe import describe  # imports jax
    from lm.train.build import build

    found = find(init_from, config, workdir)
    source = record.Source(found) if found else None
    return describe(build(config), source, record.first_weights(record.read(workdir) if workdir else None, source))


def report(done: record.Record, workdir: Path) -> int:
    """Prints how a run ended and returns the command's exit status."""
    if done["status"] != "completed":
        print(f"{done['status']}: {done['reason']}; recorded in {workdir / 'run.json'}", file=sys.stderr)
        return 1
    show(f"held out: {in_words(done['final'])}; recorded in {workdir / 'run.json'}")
    return 0


if __name__ == "__main__":
    run_cli(main)
