"""The pages of `--report`: a title, sections of figures and tables, and how they were made. Their figures are files beside them too."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Union

from lm.errors import UserError, require_local
from lm.scaling.page import html
from lm.scaling.page.provenance import Provenance
from lm.scaling.words import scientific, si

KINDS = ("png", "svg")
PAGE = "report.html"  # in a directory that `--report` names
FIGURES = ("allocation", "curve", "sensitivity", "isoflop", "surface", "residuals", "hull", "plane", "next_runs", "design", "precision")
_NO_FOLDERS = (".pdf", ".md", ".png", ".svg", ".txt", ".json", ".csv", ".tsv", ".docx")

_NUMBERS: dict[str, Callable[[float], str]] = {
    "N": functools.partial(si, significant=3), "D": functools.partial(si, significant=3), "C": scientific, "budget": scientific,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure: the name of its files, its caption, and the function that draws it into PATH.png and PATH.svg."""

    name: str
    caption: str
    draw: Callable[[pathlib.Path], None]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table. Its caption says once what holds for all cells, and its notes why some are empty."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph, or lines to be shown as they stand, such as an equation."""

    text: str
    verbatim: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a page."""

    title: str
    parts: tuple[Union[Figure, Table, Text], ...]


@dataclasses.dataclass(frozen=True)
class Document:
    """A page: what was refused and what its reader must know stand first."""

    title: str
    summary: str
    refusals: tuple[str, ...]
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]
    made: Provenance
    settings: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Written:
    """A page on disk, with the files of its figures."""

    page: pathlib.Path
    files: tuple[pathlib.Path, ...]

    def __str__(self) -> str:
        if not self.files:
            return f"wrote {self.page}"
        folder = self.files[0].parent
        return f"wrote {self.page}, {folder}/*.png and *.svg ({len(self.files) // len(KINDS)} figures)"


def page_at(path: pathlib.Path) -> pathlib.Path:
    """Returns the page that `--report` means: the file itself, or `PAGE` in a directory. Raises UserError for another kind of file."""
    require_local(path)
    if path.suffix.lower() in (".html", ".htm"):
        return path
    if not path.is_dir() and (path.exists() or path.suffix.lower() in _NO_FOLDERS):
        raise UserError(f"--report={path}: give a file that ends in .html, or a directory")
    return path / PAGE


def write(path: pathlib.Path, document: Document) -> Written:
    """Writes the page into the file, or directory, `path`, and its figures as files into a folder beside it.

    The page holds its figures itself, so that it can be sent alone. Figures that an earlier page left and this one lacks are removed.
    """
    page = page_at(path)
    folder = page.with_name(f"{page.stem}_files")
    figures = [part for section in document.sections for part in section.parts if isinstance(part, Figure)]
    (folder if figures else page.parent).mkdir(parents=True, exist_ok=True)
    files, pictures = [], []
    for figure in figures:
        figure.draw(folder / figure.name)
        pictures.append({"name": figure.name, "caption": figure.caption})
        files += [folder / f"{figure.name}.{kind}" for kind in KINDS]
    for old in (folder / f"{name}.{kind}" for name in FIGURES for kind in KINDS):
        if old not in files:
            old.unlink(missing_ok=True)
    template = pathlib.Path(__file__).with_name("page.html")
    html.save(page, template, folder, pictures, document=document, beside=folder.name, columns=_columns(document.made))
    return Written(page, tuple(files))


def _columns(made: Provenance) -> Table:
    """Returns which column was what."""
    rows = []
    for one in made.columns:
        number = _NUMBERS.get(one.name, lambda value: f"{value:.4g}")
        span = "" if one.low is None or one.high is None else f"{number(one.low)} to {number(one.high)}"
        rows.append((one.name, one.column or "–", one.how, span))
    return Table(("input", "column", "read", "range"), tuple(rows))
