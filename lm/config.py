"""Converts configurations (frozen dataclasses) to and from JSON, flags and ml_collections, and computes their identity (imports no jax).

Everything reads the type hints (lm.fields), so a new field of a configuration needs no second declaration.

A field with `metadata={"part": "execution"}` says how a run is carried out. All other fields say what the run is. The identity hashes those
of the latter that differ from their declared defaults: a new field whose default keeps the old behaviour changes no id.
"""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

from lm import fields
from lm.overrides import Leaf, apply_overrides, leaves

__all__ = [
    "SCHEMA", "Leaf", "apply_overrides", "differences", "execution_part", "experiment_part", "from_config_dict", "from_dict", "from_parts",
    "identity", "leaves", "to_config_dict", "to_dict",
]  # fmt: skip

SCHEMA = 1  # raised when the meaning of a field changes, so that old and new runs get different ids

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Returns the JSON values of all fields. Tuples become lists, and a strategy has its name beside its fields.

    Raises:
      UserError: a value has the wrong type.
    """
    return fields.plain_fields(config)


def from_dict(cls: type[T], tree: Any) -> T:
    """Builds `cls` from the result of `to_dict`. A missing field takes its default.

    Raises:
      UserError: a key is unknown (the message names the nearest valid one) or a value has the wrong type.
    """
    return fields.build(cls, tree, "", cls)


def experiment_part(config: Any) -> dict[str, Any]:
    """Returns the fields that say what the run is, defaults included."""
    return fields.plain_fields(config, "experiment")


def execution_part(config: Any) -> dict[str, Any]:
    """Returns the fields that say how the run is carried out, defaults included."""
    return fields.plain_fields(config, "execution")


def from_parts(cls: type[T], experiment: dict, execution: dict) -> T:
    """Builds `cls` from `experiment_part` and `execution_part`."""
    return from_dict(cls, _merged(experiment, execution))


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: _merged(old[key], value) if key in old else value for key, value in new.items()}}


def identity(config: Any, **extra: Any) -> str:
    """Returns the id of the experiment: 12 hex digits of a SHA-256 over its non-default fields, the schema number and `extra`.

    Args:
      config: the configuration.
      extra: what else tells experiments apart, such as the fingerprint of the data.
    """
    text = json.dumps({"schema": SCHEMA, "experiment": _essence(config), **extra}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _essence(config: Any) -> dict[str, Any]:
    """Returns the experiment fields that differ from their declared defaults."""
    kind: type = type(config)
    tree = {}
    for name, field in fields.of(kind).items():
        if field.is_execution:
            continue
        value = getattr(config, name)
        whole = fields.plain(value, field.hint, name, "experiment")
        if field.default is fields.NO_DEFAULT or whole != fields.plain_default(kind, name):
            tree[name] = _essential(value, field.hint, name)
    return tree


def _essential(value: Any, hint: Any, path: str) -> Any:
    if dataclasses.is_dataclass(value):
        return {**fields.strategy_name(value, hint), **_essence(value)}
    if isinstance(value, (tuple, list)):
        return [_essential(v, h, path) for v, h in zip(value, fields.element_hints(hint, len(value)), strict=True)]
    return fields.plain(value, hint, path)


def differences(old: Any, new: Any) -> list[str]:
    """Returns "path: old -> new" for every leaf in which two configurations (dataclasses, or results of `to_dict`) differ."""
    before, after = ({path: json.dumps(v) for path, v in _flat(x if isinstance(x, dict) else to_dict(x))} for x in (old, new))
    paths = [*before, *(path for path in after if path not in before)]
    pairs = [(path, before.get(path, "absent"), after.get(path, "absent")) for path in paths]
    return [f"{path}: {a} -> {b}" for path, a, b in pairs if a != b]


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of nested dicts and lists of dicts with their paths. A list of scalars is one leaf."""
    if isinstance(tree, dict) and tree:
        pairs = list(tree.items())
    elif isinstance(tree, list) and any(isinstance(element, dict) for element in tree):
        pairs = list(enumerate(tree))
    else:
        yield prefix, tree
        return
    for key, value in pairs:
        yield from _flat(value, fields.join(prefix, key))


def to_config_dict(config: Any) -> Any:
    """Returns a locked ml_collections.ConfigDict with typed fields. An Optional that is None becomes a typed placeholder."""
    from ml_collections import config_dict

    def group(value, hint):
        inner = {name: convert(getattr(value, name), field.hint) for name, field in fields.of(type(value)).items()}
        return config_dict.ConfigDict({**fields.strategy_name(value, hint), **inner})

    def convert(value, hint):
        if dataclasses.is_dataclass(value):
            return group(value, hint)
        if value is None:
            return config_dict.placeholder(config_dict.ConfigDict if fields.is_group(hint) else _python_type(hint))
        if fields.is_tuple(hint):
            return tuple(convert(v, h) for v, h in zip(value, fields.element_hints(hint, len(value)), strict=True))
        return fields.scalar(value, hint, "")

    return group(config, type(config)).lock()


def _python_type(hint: Any) -> type:
    kind = fields.alternatives(hint)[0]
    origin = typing.get_origin(kind)
    return type(typing.get_args(kind)[0]) if origin is Literal else origin or kind


def from_config_dict(cls: type[T], tree: Any) -> T:
    """Builds `cls` from a ConfigDict. Raises the errors of `from_dict`."""

    def convert(value):
        if hasattr(value, "to_dict"):
            return {key: convert(value[key]) for key in value}
        return [convert(v) for v in value] if isinstance(value, (tuple, list)) else value

    return from_dict(cls, convert(tree))
