"""Text that is named for an evaluation: all of some files, nothing held out and nothing left out."""

import dataclasses

from lm.data.config import Component
from lm.data.corpora import readers
from lm.data.corpora.faults import Faults
from lm.data.corpora.text_files import LARGEST
from lm.data.store import digest
from lm.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class NamedText:
    """A corpus of documents in memory, all of which are every split."""

    documents: list[str]
    fingerprint: str

    def split(self, name: str) -> list[str]:
        del name
        return self.documents


def read(component: Component) -> NamedText:
    """Returns the documents of the files, folders and patterns that a component of the corpus text_files names.

    Raises:
      UserError: they name nothing that can be read, or hold no text.
    """
    files = readers.expand(component.paths, lambda line: None)
    faults = Faults(LARGEST, flags=False)
    texts = (text for path in files for text in readers.read(path, component.field, component.lines, faults))
    documents = [text for text in texts if text.strip()]
    if not documents:
        raise UserError(f"{', '.join(component.paths)}: there is no text; name files that hold some")
    return NamedText(documents, digest("named text", documents))
