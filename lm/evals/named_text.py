"""Text that is named for an evaluation: all of some files, nothing held out and nothing left out."""

import dataclasses
from collections.abc import Iterable

from lm.data.config import Component
from lm.data.corpora import readers, text_files
from lm.data.corpora.faults import Faults
from lm.data.store import digest
from lm.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class NamedText:
    """A corpus of documents in memory, all of which are every split."""

    documents: "Documents"
    fingerprint: str

    def split(self, name: str) -> "Documents":
        del name
        return self.documents


class Documents(list[str]):
    """Texts in memory, each with the place that it came from (lm.data.corpora.text_files)."""

    def __init__(self, named: Iterable[tuple[str, str]]):
        names, texts = [], []
        for name, text in named:
            names.append(name)
            texts.append(text)
        super().__init__(texts)
        self._names = names

    def name(self, index: int) -> str:
        return self._names[index]


def read(component: Component) -> NamedText:
    """Returns the documents of the files, folders and patterns that a component of the corpus text_files names.

    Raises:
      UserError: they name nothing that can be read, or hold no text.
    """
    files = readers.expand(component.paths, lambda line: None)
    faults = Faults(text_files.LARGEST, flags=False)
    documents = Documents(
        (text_files.name(number, path, index), text)
        for number, path in enumerate(files)
        for index, text in enumerate(readers.read(path, component.field, component.lines, faults))
        if text.strip()
    )
    if not documents:
        raise UserError(f"{', '.join(component.paths)}: there is no text; name files that hold some")
    return NamedText(documents, digest("named text", documents))
