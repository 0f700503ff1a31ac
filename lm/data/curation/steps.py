"""The steps of a pipeline: what each of them does, their registry, and the lists of them that have names.

A rule of one's own is a dataclass in a file that `--steps` names:

    @register
    @dataclasses.dataclass(frozen=True)
    class Shouting(Step):
        name: ClassVar[str] = "shouting"
        most: float = 0.3  # share of the letters that are capitals

        def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
            capitals = sum(map(str.isupper, document.text))
            return Drop("capitals") if capitals > self.most * len(document.text) else document
"""

from typing import Any, ClassVar, Protocol, TypeVar, Union

import numpy as np

from lm import fields
from lm.data.curation.document import Document, Drop
from lm.errors import UserError, nearest


class Notes(Protocol):
    """What a step says of documents that it keeps. A ledger takes it down."""

    def changed(self, rule: str, piece: str, count: int = 1) -> None:
        """Counts changes of the present document under a rule, and may keep the piece, such as a line that goes, for reading."""

    def found(self, what: str, value: str) -> None:
        """Counts the present document in a histogram, such as that of languages."""


class Step:
    """A step that looks at one document at a time.

    Subclasses are frozen dataclasses whose fields are thresholds. A step has no state but caches: documents are handed out to processes.
    """

    name: ClassVar[str]

    def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
        """Returns the document, changed or as it is, or the rule under which it goes."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises UserError for settings that cannot work on this machine; called once, before documents are read."""

    def files(self) -> list[str]:
        """Returns the files that the step reads, on which the result depends."""
        return []


class ComparingStep(Step):
    """A step that compares items of documents (the whole, or its paragraphs) with those of all documents of the corpus.

    Each item has one key or several; items that share a key in one place belong to one cluster, and so do those that are linked by others.
    """

    def keys(self, documents: list[Document]) -> np.ndarray:
        """Returns the keys of all items of the documents, in order, uint64 [places, items]."""
        raise NotImplementedError

    def items(self, document: Document) -> list[str]:
        """Returns the texts of the items of a document."""
        return [document.text]

    def keep(self, document: Document, is_first: np.ndarray, notes: Notes) -> Union[Document, Drop]:
        """Returns what becomes of a document, given for each of its items whether it is the first of its cluster."""
        raise NotImplementedError


REGISTRY: dict[str, type[Step]] = {}
S = TypeVar("S", bound=type[Step])


def register(cls: S) -> S:
    """Enters a step under its name, so that `--steps` and JSON can name it. A class decorator, above `@dataclasses.dataclass`."""
    known = REGISTRY.setdefault(cls.name, cls)
    if known is not cls and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise UserError(f"there is a step {cls.name!r} already, in {known.__module__}; give yours another name")
    REGISTRY[cls.name] = cls
    return cls


def named(name: str) -> type[Step]:
    """Returns the class of a step. Raises UserError for an unknown one."""
    if name not in REGISTRY:
        raise UserError(f"unknown step {name!r}: {nearest(name, REGISTRY)}")
    return REGISTRY[name]


def to_json(step: Step) -> dict[str, Any]:
    """Returns a step as JSON: its name and all its settings."""
    return {"name": step.name, **fields.plain_fields(step)}


def from_json(value: Any) -> Step:
    """Returns the step that JSON names. Settings that are left out have their defaults."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise UserError(f"a step is an object with a name, not {value!r}")
    cls = named(value["name"])
    return fields.build(cls, {key: each for key, each in value.items() if key != "name"}, value["name"], cls)
