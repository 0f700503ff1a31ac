"""Sets the fields of a configuration from text, and lists the fields that can be set (imports no jax)."""

import contextlib
import dataclasses
import json
import typing
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeVar

from lm import fields
from lm.errors import UserError

T = TypeVar("T")


class Leaf(NamedTuple):
    """A value of a configuration that can be set."""

    path: str
    takes: str  # description of the values that it takes
    value: Any  # JSON value; the name of a strategy
    part: str  # "experiment" or "execution"
    owner: type  # the dataclass that declares the field


def apply_overrides(config: T, overrides: list[str]) -> T:
    """Returns `config` with fields set from "path=text", such as "optim.learning_rate=3e-4".

    A strategy is chosen by its name (`optim.schedule=wsd`), and its fields are set like others; if it was chosen before, it keeps its
    fields. `none` turns an Optional off. A tuple of scalars is comma-separated. An element of a tuple is set by its index, and the next
    free index appends (`data.components.1.corpus=...`). Groups and tuples may also be given whole, as JSON. The order matters only between
    two settings of one path: the last wins.

    Raises:
      UserError: a key is unknown (the message names the nearest valid one), or a text is not a value of its field.
    """
    items = [override.partition("=") for override in overrides]
    tree = fields.plain_fields(config)
    for path, equals, text in sorted(items, key=lambda item: item[0].count(".")):  # strategies come before their fields
        if not equals:
            raise UserError(f"--config.{path} needs a value: --config.{path}=...")
        tree = _assigned(tree, type(config), path.split("."), text, path, type(config))
    return fields.build(type(config), tree, "", type(config))


def _assigned(old: Any, hint: Any, parts: list[str], text: str, path: str, root: type) -> Any:
    """Returns the JSON value `old` of a field of type `hint`, in which the value at the end of `parts` is set from `text`."""
    if not parts:
        return _parsed(old, hint, text, path, root)
    here = ".".join(path.split(".")[: -len(parts)])
    if fields.is_tuple(hint):
        old = list(old or [])
        index = int(parts[0]) if parts[0].isdecimal() else -1
        hints = fields.element_hints(hint, len(old) + 1)
        if not 0 <= index < min(len(hints), len(old) + 1):
            raise UserError(f"{path}: {here} has {len(old)} elements, and {parts[0]!r} is neither the index of one nor the next free index")
        new = _assigned(old[index] if index < len(old) else None, hints[index], parts[1:], text, path, root)
        return [*old[:index], new, *old[index + 1 :]]
    if not fields.is_group(hint):
        raise fields.unknown_key(path, root, "--config.")
    options = fields.alternatives(hint)
    if old is None and len(options) > 1:
        raise UserError(f"{here} is none; choose one of {', '.join(option.name for option in options)} before {path}")
    old = fields.plain_defaults(options[0]) if old is None else old
    cls = fields.member(hint, old.get("name"), here)
    if parts[0] not in fields.of(cls):
        raise _not_a_field(path, here, parts[0], cls, options, root)
    return {**old, parts[0]: _assigned(old.get(parts[0]), fields.of(cls)[parts[0]].hint, parts[1:], text, path, root)}


def _not_a_field(path: str, here: str, key: str, cls: Any, options: tuple, root: type) -> UserError:
    owners = [option.name for option in options if key in fields.of(option)]
    if owners:
        others = f" (or {', '.join(owners[1:])})" if owners[1:] else ""
        return UserError(
            f"{path} is a field of {' and '.join(owners)}, but {here} is {cls.name}; set --config.{here}={owners[0]}{others} or drop {key}"
        )
    return fields.unknown_key(path, root, "--config.")


def _parsed(old: Any, hint: Any, text: str, path: str, root: type) -> Any:
    if fields.is_optional(hint) and text.lower() == "none":
        return None
    if (fields.is_group(hint) or fields.is_tuple(hint)) and text[:1] in ("{", "["):
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: not JSON ({error}): {text!r}") from error
        return fields.plain(fields.build(hint, value, path, root), hint, path)
    options = fields.alternatives(hint)
    if len(options) > 1:
        chosen = fields.member(hint, text, path)
        same = bool(old) and fields.member(hint, old.get("name"), path) is chosen
        return old if same else {"name": text, **fields.plain_defaults(chosen)}
    if fields.is_group(hint):
        raise UserError(f"{path} is a group; set one of its fields: {', '.join(fields.of(options[0]))}")
    if fields.is_tuple(hint):
        texts = [part.strip() for part in text.split(",")] if text else []
        hints = fields.element_hints(hint, len(texts))
        if fields.is_group(hints[0] if hints else fields.element_hints(hint, 1)[0]):
            raise UserError(f"{path} is a list of groups; set a field of one, such as --config.{path}.0.KEY=VALUE, or the whole as JSON")
        if len(hints) != len(texts):
            raise fields.wrong_type(path, hint, text)
        return [_from_text(h, part, fields.join(path, i)) for i, (part, h) in enumerate(zip(texts, hints, strict=True))]
    return _from_text(hint, text, path)


def _from_text(hint: Any, text: str, path: str) -> Any:
    kind = fields.alternatives(hint)[0]
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else (True, False) if kind is bool else ()
    for choice in choices:
        if text.lower() == str(choice).lower():
            return choice
    if kind is int:
        with contextlib.suppress(ValueError):
            return fields.count(text)
    if kind in (int, float):
        try:
            value = float(text)
        except ValueError:
            raise fields.wrong_type(path, hint, text) from None
        return fields.scalar(value, hint, path)
    return fields.scalar(text, hint, path)


def leaves(config: Any) -> Iterator[Leaf]:
    """Yields every value of a configuration that can be set, in declaration order. The name of a strategy comes before its fields."""
    yield from _leaves(config, "", "experiment")


def _leaves(config: Any, prefix: str, part: str) -> Iterator[Leaf]:
    for field in fields.of(type(config)).values():
        value, path = getattr(config, field.name), fields.join(prefix, field.name)
        inside = "execution" if field.is_execution else part
        leaf = Leaf(path, fields.describe(field.hint), None, inside, type(config))
        if dataclasses.is_dataclass(value):
            if name := fields.strategy_name(value, field.hint):
                yield leaf._replace(value=name["name"])
            yield from _leaves(value, path, inside)
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for index, element in enumerate(value):
                if name := fields.strategy_name(element, fields.element_hints(field.hint, len(value))[index]):
                    yield leaf._replace(path=fields.join(path, index), value=name["name"])
                yield from _leaves(element, fields.join(path, index), inside)
        else:
            yield leaf._replace(value=fields.plain(value, field.hint, path))
