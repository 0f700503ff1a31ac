"""Says whether results are of the runs, the settings and the code as they are now (imports no jax)."""

import ast
import functools
import hashlib
import json
import pathlib
from typing import Any, Optional

import lm

# Code outside these makes the runs, which a stamp holds as values.
FOLDERS = ("lm.scaling", "lm.study", "lm.analysis", "lm.report")


def inputs(*values: Any, code: str, source: Optional[pathlib.Path] = None) -> str:
    """Hashes values and the code that turns them into results.

    Args:
        values: the runs and settings, as JSON values
        code: the module that makes the results; every module of FOLDERS that it reaches by imports counts, with its folder's templates
        source: the directory that holds the package `lm` (default: the one that is imported)
    """
    source = source or pathlib.Path(next(iter(lm.__path__))).parent
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    files = set(modules(code, source).values())
    for path in sorted(files | {template for file in files for template in file.parent.glob("*.html")}):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def modules(code: str, source: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the modules of FOLDERS that a module reaches by imports, itself included, with their files."""
    found: dict[str, pathlib.Path] = {}
    left = [code]
    while left:
        name = left.pop()
        path = _file(name, source)
        if name not in found and path is not None and f"{name}.".startswith(tuple(f"{folder}." for folder in FOLDERS)):
            found[name] = path
            left += [name.rpartition(".")[0], *_imports(path.read_text(encoding="utf-8"))]
    return found


def _file(name: str, source: pathlib.Path) -> Optional[pathlib.Path]:
    stem = source / pathlib.Path(*name.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


@functools.cache  # most files are reached from several results
def _imports(text: str) -> tuple[str, ...]:
    """Returns every module that a file's text may import, inside functions too; a name imported from a package may be a module."""
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(found)
