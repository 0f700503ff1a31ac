"""The typed fields of configurations: the meaning of their type hints, and their values to and from JSON (imports no jax).

A configuration is a tree of frozen dataclasses. A field is a scalar, a `Literal`, a tuple, a dataclass, an `Optional` of one of these, or a
strategy: a `Union` of dataclasses, each with a ClassVar `name`, written in JSON as `{"name": "wsd", "cooldown": 0.3}`. Other modules use
lm.config.
"""

import contextlib
import dataclasses
import decimal
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Optional, Union

from lm.errors import UserError

NO_DEFAULT = object()
SCALARS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


class Field(NamedTuple):
    """A field of a dataclass and the type that its hint resolves to."""

    name: str
    hint: Any
    default: Any  # NO_DEFAULT if none is declared
    is_execution: bool


def of(cls: Any) -> dict[str, Field]:
    """Returns the fields of a dataclass by name."""
    return _of(cls)


@functools.cache
def _of(cls: Any) -> dict[str, Field]:
    hints, found = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        default = NO_DEFAULT if default is dataclasses.MISSING else default
        found[field.name] = Field(field.name, hints[field.name], default, field.metadata.get("part") == "execution")
    return found


@functools.cache  # of types, of which there are a few dozen: large studies ask a million times
def alternatives(hint: Any) -> tuple:
    """Returns the alternatives of a hint other than None. More than one means a strategy."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return tuple(option for option in typing.get_args(hint) if option is not type(None))
    return (hint,)


@functools.cache
def is_optional(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType) and type(None) in typing.get_args(hint)


@functools.cache
def is_group(hint: Any) -> bool:
    """Returns whether values of this type are dataclasses."""
    return dataclasses.is_dataclass(alternatives(hint)[0])


@functools.cache
def is_tuple(hint: Any) -> bool:
    return typing.get_origin(alternatives(hint)[0]) is tuple


@functools.cache
def element_hints(hint: Any, length: int) -> tuple:
    """Returns the hints of a tuple's elements: `length` of them, or as many as a tuple of fixed length has."""
    arguments = typing.get_args(alternatives(hint)[0])
    return arguments[:1] * length if arguments[1:] == (Ellipsis,) else arguments


def member(hint: Any, name: Optional[str], path: str) -> Any:
    """Returns the dataclass that `name` chooses. A hint with a single dataclass needs no name."""
    options = alternatives(hint)
    members = {option.name: option for option in options} if len(options) > 1 else {name: options[0]}
    unnamed = [option for option in options if not getattr(option, "needs_name", True)]
    if name is None and unnamed:
        return unnamed[0]
    if name not in members:
        raise wrong_type(path, hint, name, nearest=[str(known) for known in members])
    return members[name]


def join(prefix: str, key: Any) -> str:
    return f"{prefix}.{key}" if prefix else str(key)


# ---- values to JSON and back ----------------------------------------------------------------------------------------------------


def plain(value: Any, hint: Any, path: str = "", part: Optional[str] = None) -> Any:
    """Returns the JSON value of a field: all of it, or only its fields of the part "experiment"."""
    if value is None and is_optional(hint):
        return None
    if is_group(hint):
        if type(value) not in alternatives(hint):
            raise wrong_type(path, hint, value)
        return {**strategy_name(value, hint), **plain_fields(value, part, path)}
    if is_tuple(hint):
        return [plain(v, h, join(path, i), part) for i, (v, h) in enumerate(_elements(value, hint, path))]
    return scalar(value, hint, path)


def plain_fields(config: Any, part: Optional[str] = None, path: str = "") -> dict[str, Any]:
    """Returns the JSON values of a dataclass's fields, or of those of one part. A group without a field of that part is left out."""
    tree = {}
    for field in of(type(config)).values():
        value, inner = getattr(config, field.name), join(path, field.name)
        if part is None or (part == "execution" and field.is_execution):
            tree[field.name] = plain(value, field.hint, inner)
        elif part == "experiment" and not field.is_execution:
            tree[field.name] = plain(value, field.hint, inner, part)
        elif part == "execution" and dataclasses.is_dataclass(value) and (inside := plain_fields(value, part, inner)):
            tree[field.name] = inside
    return tree


@functools.cache
def plain_default(cls: type, name: str) -> Any:
    """Returns the JSON value of a field's declared default, of the part "experiment" where it is a dataclass."""
    field = of(cls)[name]
    return plain(field.default, field.hint, name, "experiment")


def plain_defaults(cls: type) -> dict[str, Any]:
    """Returns the JSON values of the declared defaults."""
    return {field.name: plain(field.default, field.hint, field.name) for field in of(cls).values() if field.default is not NO_DEFAULT}


def strategy_name(value: Any, hint: Any) -> dict[str, str]:
    """Returns the entry of a strategy's JSON that names it; nothing where the hint has one alternative or the value needs no name."""
    return {"name": type(value).name} if len(alternatives(hint)) > 1 and getattr(value, "needs_name", True) else {}


def build(hint: Any, value: Any, path: str, root: type) -> Any:
    """Builds the value of a field from JSON. `root` is the dataclass whose keys an error may suggest."""
    if value is None and is_optional(hint):
        return None
    if is_group(hint):
        if not isinstance(value, dict):
            raise wrong_type(path, hint, value)
        is_strategy = len(alternatives(hint)) > 1
        cls = member(hint, value.get("name") if is_strategy else None, path)
        return _build_group(cls, {key: v for key, v in value.items() if not (is_strategy and key == "name")}, path, root)
    if is_tuple(hint):
        return tuple(build(h, v, join(path, i), root) for i, (v, h) in enumerate(_elements(value, hint, path)))
    return scalar(value, hint, path)


def _build_group(cls: Any, tree: dict, path: str, root: type) -> Any:
    declared = of(cls)
    for key in tree:
        if key not in declared:
            raise unknown_key(join(path, key), root)
    for field in declared.values():
        if field.name not in tree and field.default is NO_DEFAULT:
            raise UserError(f"{join(path, field.name)} is missing; it takes {describe(field.hint)}")
    values = {key: build(declared[key].hint, value, join(path, key), root) for key, value in tree.items()}
    try:
        return cls(**values)
    except ValueError as error:  # from the checks of the dataclass itself
        raise UserError(f"{path or cls.__name__}: {error}") from error


def _elements(value: Any, hint: Any, path: str) -> list[tuple[Any, Any]]:
    if not isinstance(value, (list, tuple)) or len(element_hints(hint, len(value))) != len(value):
        raise wrong_type(path, hint, value)
    return list(zip(value, element_hints(hint, len(value)), strict=True))


def scalar(value: Any, hint: Any, path: str) -> Any:
    """Converts `value` to the scalar type of the hint. Integers accept 1e5 and "100M" (see `count`); numbers must be finite."""
    kind = alternatives(hint)[0]
    if type(value) is kind and kind is not float:  # most of them; a float may not be finite
        return value
    value = value.item() if hasattr(value, "item") else value  # numpy scalars
    if typing.get_origin(kind) is Literal:
        if any(value == choice and type(value) is type(choice) for choice in typing.get_args(kind)):
            return value
        raise wrong_type(path, hint, value, nearest=[str(choice) for choice in typing.get_args(kind)])
    if kind not in SCALARS:
        raise TypeError(f"{path}: a configuration field cannot have the type {kind!r}")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        if kind is float:
            return float(value)
        if kind is int and value == int(value):
            return int(value)
    elif kind in (bool, str) and isinstance(value, kind):
        return value
    elif kind is int and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return count(value)
    raise wrong_type(path, hint, value)


_UNITS = {"": 0, "K": 3, "KB": 3, "M": 6, "MB": 6, "B": 9, "G": 9, "GB": 9, "T": 12, "TB": 12}  # powers of ten
_COUNT = re.compile(r"([+-]?(?:\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*)(?:\.\d*)?(?:e\+?\d{1,2})?) ?([KMGT]B?|B|)", re.IGNORECASE | re.ASCII)


def count(text: str) -> int:
    """Returns the whole number that a text spells, such as 100M, 1.5B, 20k, 5GB, 1e8, 1_000_000 or 1,000,000.

    K, M, B or G, and T stand for 10^3, 10^6, 10^9 and 10^12. KB, MB, GB and TB are the same, for bytes.

    Raises:
      ValueError: it spells none.
    """
    found = _COUNT.fullmatch(text.strip())
    value = found and decimal.Decimal(found[1].replace(",", "").replace("_", "")).scaleb(_UNITS[found[2].upper()])
    if value is None or value != int(value):
        raise ValueError(f"{text!r} is no whole number, such as 100M, 1.5B or 1e8")
    return int(value)


# ---- words and errors -----------------------------------------------------------------------------------------------------------


def describe(hint: Any) -> str:
    """Returns a description of the values that a field of this type takes."""
    options = alternatives(hint)
    arguments = typing.get_args(options[0])
    if len(options) > 1:
        words = "one of " + ", ".join(option.name for option in options)
    elif typing.get_origin(options[0]) is Literal:
        words = "one of " + ", ".join(map(str, arguments))
    elif is_tuple(hint):
        words = "a list of " + (f"{arguments[0].__name__}s" if is_group(arguments[0]) else describe(arguments[0]).split(" ")[-1])
    else:
        words = SCALARS.get(options[0], f"the fields of {getattr(options[0], '__name__', options[0])}")
    return words + " (or none)" * is_optional(hint)


def wrong_type(path: str, hint: Any, value: Any, nearest: Sequence[str] = ()) -> UserError:
    """Returns the error for a value of the wrong type. It names the type, and the nearest valid word where there is one."""
    near = difflib.get_close_matches(str(value), nearest, n=1, cutoff=0.5)
    return UserError(f"{path} takes {describe(hint)}, not {value!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def unknown_key(path: str, root: type, flag: str = "") -> UserError:
    """Returns the error for an unknown key. It names the nearest valid key, by the spelling of the whole path or of its last name.

    `flag` is what stands before a key where it is written as a flag.
    """
    known, last = list(_paths(root, "")), path.rpartition(".")[2]
    ends = [key.rpartition(".")[2] for key in known]
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.8)
    if not near and (end := difflib.get_close_matches(last, ends, n=1, cutoff=0.6)):
        near = difflib.get_close_matches(path, [key for key, e in zip(known, ends, strict=True) if e == end[0]], n=1, cutoff=0.0)
    near = near or difflib.get_close_matches(path, known, n=1, cutoff=0.0)
    return UserError(f"unknown key {flag + path!r}; the nearest valid key is {flag + near[0]!r}")


def _paths(cls: type, prefix: str) -> Iterator[str]:
    for field in of(cls).values():
        path, hints = join(prefix, field.name), (field.hint,)
        yield path
        if is_tuple(field.hint):
            path, hints = join(path, 0), element_hints(field.hint, 1)[:1]
        for option in (option for hint in hints for option in alternatives(hint)):
            if dataclasses.is_dataclass(option):
                yield from _paths(option, path)  # type: ignore[arg-type]  # mypy sees an instance here, not a class
