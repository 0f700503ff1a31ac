"""Renders templates to self-contained pages: the figures are part of the file, and nothing is loaded from elsewhere."""

import base64
import pathlib
from typing import Any

import jinja2

from lm.scaling.words import typeset


def save(path: pathlib.Path, template: pathlib.Path, folder: pathlib.Path, pictures: list[dict[str, str]], **values: Any) -> pathlib.Path:
    """Renders a template into `path`, whole or not at all.

    Args:
      folder: directory of the figures, NAME.svg.
      pictures: name and caption of each figure.
      values: the variables of the template.
    """
    inlined = {picture["name"]: picture | {"data": _inline(folder / f"{picture['name']}.svg")} for picture in pictures}
    page = _template(template).render(pictures=inlined, **values)
    draft = path.with_suffix(".html.part")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)
    return path


def _inline(path: pathlib.Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _template(path: pathlib.Path) -> jinja2.Template:
    loader = jinja2.FileSystemLoader([path.parent, pathlib.Path(__file__).parent])  # base.html and parts.html are in the second
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.globals["typeset"] = typeset
    return environment.get_template(path.name)
