"""The backends and the flags of their options. A new one is a file with a dataclass (launch.backend.Backend) and a line in `BACKENDS`."""

import argparse
import dataclasses
import functools
import importlib
import typing
from typing import Any, Optional

from launch.backend import Backend
from lm.errors import UserError

LOCAL = "local"  # the workers of launch.local, which need no scheduler
BACKENDS = {"slurm": "launch.slurm:Slurm", "kubernetes": "launch.kubernetes:Kubernetes", "tpu": "launch.tpu:Tpu"}


@functools.cache
def _class(name: str) -> Any:
    module, _, cls = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --backend and, for each backend, a group of flags: one for each of its options. Backends may share a flag."""
    parser.add_argument("--backend", default=LOCAL, choices=(LOCAL, *BACKENDS), help="what starts the workers (default: %(default)s)")
    seen: set[str] = set()
    for name in BACKENDS:
        group = parser.add_argument_group(f"--backend={name}: {_class(name).WORDS}")
        for field in dataclasses.fields(_class(name)):
            if field.name not in seen:
                seen.add(field.name)
                group.add_argument(f"--{field.name.replace('_', '-')}", dest=field.name, default=None, **_how(field, _class(name)))


def _how(field: dataclasses.Field, cls: Any) -> dict[str, Any]:
    """Returns how argparse reads an option: its type, and its help from the field's metadata."""
    hint = typing.get_type_hints(cls)[field.name]
    inner = next((arg for arg in typing.get_args(hint) if arg is not type(None)), hint)
    said = field.metadata.get("help", "")
    if inner is bool:
        return {"action": argparse.BooleanOptionalAction, "help": said}
    given = f" (default: {field.default})" if field.default not in (None, "", dataclasses.MISSING) else ""
    return {
        "type": inner if inner in (int, float) else str,
        "help": (said + given).replace("%", "%%"),
        "metavar": field.metadata.get("metavar"),
    }


def make(args: argparse.Namespace) -> Optional[Backend]:
    """Returns the backend that flags ask for; None for workers of this process. Raises UserError for a flag of another backend."""
    own = {field.name for field in dataclasses.fields(_class(args.backend))} if args.backend in BACKENDS else set()
    every = {field.name for name in BACKENDS for field in dataclasses.fields(_class(name))}
    given = {name: getattr(args, name) for name in every if getattr(args, name) is not None}
    if strangers := sorted(given.keys() - own):
        raise UserError(f"--{strangers[0].replace('_', '-')} is no option of --backend={args.backend}: leave it out, or name its backend")
    return None if args.backend == LOCAL else _class(args.backend)(**given)


def of(name: str, options: dict[str, Any]) -> Backend:
    """Returns the backend of a submission. Raises UserError for one that this program lacks."""
    if name not in BACKENDS:
        raise UserError(f"this program has no backend {name}: its jobs are left alone")
    known = {field.name for field in dataclasses.fields(_class(name))}
    return _class(name)(**{key: value for key, value in options.items() if key in known})
