"""The lists of steps that have names, and how `--steps` is read. Importing this module registers all steps that come with the project."""

import importlib.util
import json
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from lm import files, overrides
from lm.data.curation import (
    c4,
    comparing,
    contamination,  # noqa: F401  # registers its step, which is in no recipe
    fineweb,
    gopher,
    language,
    pii,
    web,
)
from lm.data.curation.steps import REGISTRY, Step, from_json, named
from lm.errors import UserError, nearest, one_line

# The order in which FineWeb applied its rules.
RECIPES: dict[str, tuple[Step, ...]] = {
    "fineweb": (
        web.URL(),
        language.Repair(),
        language.Language(),
        gopher.GopherRepetition(),
        gopher.GopherQuality(),
        c4.C4(terminal=False),
        fineweb.FineWeb(),
        comparing.MinHash(),
        pii.PII(),
    ),
    "gopher": (gopher.GopherRepetition(), gopher.GopherQuality(), comparing.ExactDocuments(), comparing.MinHash()),
    "c4": (c4.C4(), comparing.ExactParagraphs()),
    "deduplicate": (comparing.ExactDocuments(), comparing.MinHash()),
}


def read(text: str, settings: Sequence[str] = ()) -> tuple[Step, ...]:
    """Returns the steps that `--steps` names.

    Args:
      text: names of steps and of recipes, separated by commas; or a file: FILE.py[:NAME], whose tuple NAME (default: steps) is taken, or
        FILE.json, a list of objects with a name and settings.
      settings: "STEP.KEY=VALUE"; a step that stands twice is set twice.
    """
    steps = list(_from_file(text) if re.search(r"\.(py(:\w+)?|json)$", text) else _from_names(text))
    if not steps:
        raise UserError("--steps names no step")
    for setting in settings:
        name, _, rest = setting.partition(".")
        if name not in {step.name for step in steps}:
            raise UserError(f"--set={setting}: {name!r} is none of the steps; {nearest(name, dict.fromkeys(step.name for step in steps))}")
        steps = [_set(step, rest) if step.name == name else step for step in steps]
    return tuple(steps)


def _set(step: Step, setting: str) -> Any:
    try:
        return overrides.apply_overrides(step, [setting])
    except UserError as error:
        said, key = str(error).replace("--config.", f"{step.name}."), setting.partition("=")[0]
        raise UserError(f"--set: {step.name}.{said}" if said.startswith(f"{key} ") else f"--set: {said}") from error


def _from_names(text: str) -> list[Step]:
    found: list[Step] = []
    for name in filter(None, map(str.strip, text.split(","))):
        if name in RECIPES:
            found += RECIPES[name]
        elif name in REGISTRY:
            found.append(named(name)())
        else:
            raise UserError(f"--steps: there is no step, recipe or file {name!r}; {nearest(name, [*REGISTRY, *RECIPES])}")
    return found


def _from_file(text: str) -> list[Step]:
    spec, _, attribute = text.partition(":")
    path = pathlib.Path(spec)
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--steps: cannot read {path}: {one_line(error)}") from error
    value = _of_python(path, attribute or "steps") if path.suffix == ".py" else _of_json(path, source)
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{path}: the steps are a list, not {type(value).__name__}")
    wrong = next((each for each in value if not isinstance(each, (Step, dict))), None)
    if wrong is not None:
        raise UserError(f"{path}: {wrong!r} is no step; write its class with brackets, such as C4()")
    return [each if isinstance(each, Step) else from_json(each) for each in value]


def _of_json(path: pathlib.Path, source: str) -> Any:
    try:
        return json.loads(source)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})") from error


def _of_python(path: pathlib.Path, attribute: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"steps_of_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where the hints of its dataclasses are looked up
    try:
        with files.package_of(path):
            spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be run: {type(error).__name__}: {one_line(error)}") from error
    if not hasattr(module, attribute):
        raise UserError(f"{path} has no {attribute!r}; name its tuple of steps: --steps={path}:NAME")
    return getattr(module, attribute)
