"""A snapshot of the code: jobs that wait in a queue run what was submitted, whatever happens to the checkout meanwhile."""

import ast
import hashlib
import importlib.machinery
import os
import pathlib
import shutil
import site
import sys
import sysconfig
from typing import Optional

import lm
from lm.errors import UserError

PACKAGES = ("lm", "launch", "experiments", "configs")
FOLDER = "code"


def take(root: pathlib.Path, train: Optional[str] = None) -> pathlib.Path:
    """Copies this program into the study's directory, once for each content, and returns the copy's absolute path.

    Args:
        root: the study's directory
        train: a training function MODULE:FUNCTION, whose module is copied as well, with what it imports from beside it

    Returns: ROOT/code/HASH, for PYTHONPATH. An installed program is copied as well: it may be upgraded.
    """
    source = pathlib.Path(lm.__file__).resolve().parent.parent
    found = [path for name in PACKAGES for path in (source / name).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    files = {path.relative_to(source): path for path in found} | (_own(train.partition(":")[0]) if train else {})
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0".encode() + hashlib.sha256(files[name].read_bytes()).digest())
    target = root.resolve() / FOLDER / digest.hexdigest()[:12]
    if not target.exists():
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        for name, path in files.items():
            copy = draft / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        try:
            draft.rename(target)
        except OSError:  # another process made the same
            shutil.rmtree(draft, ignore_errors=True)
    return target


def _own(module: str) -> dict[pathlib.Path, pathlib.Path]:
    """Returns the files of a user's module, and of the modules beside it that it imports: the name in the snapshot -> the file.

    Modules of this program, of Python and of the environment are there already: {}. A package is taken as a whole.

    Raises: UserError for a module that is not found, or that is no file of Python.
    """
    found: dict[pathlib.Path, pathlib.Path] = {}
    place = _place(module)
    if place is None:
        raise UserError(f"--train={module}: there is no such module; name one that Python finds here (PYTHONPATH)")
    waiting = [module.partition(".")[0]]
    while waiting:
        name = waiting.pop()
        path = next((path for path in (place / name, place / f"{name}.py") if path.exists()), None)
        if path is None or name in PACKAGES or _is_installed(place):
            continue
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc"]
        new = {file.relative_to(place): file for file in files if file.relative_to(place) not in found}
        found |= new
        waiting += [top for file in new.values() if file.suffix == ".py" for top in _imported(file)]
    return found


def _place(module: str) -> Optional[pathlib.Path]:
    """Returns the folder of sys.path in which Python finds a module's first name; None where there is none."""
    spec = importlib.machinery.PathFinder.find_spec(module.partition(".")[0], [os.getcwd(), *sys.path])
    if spec is None:
        return None
    folder = spec.origin if not spec.submodule_search_locations else next(iter(spec.submodule_search_locations))
    path = pathlib.Path(folder or "")
    return path.parent.parent if path.name == "__init__.py" else path.parent


def _is_installed(place: pathlib.Path) -> bool:
    """Says whether a folder of modules is Python's or the environment's, which jobs share."""
    known = [
        *site.getsitepackages(),
        site.getusersitepackages(),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")),
    ]
    return any(place.resolve().is_relative_to(pathlib.Path(folder).resolve()) for folder in known)


def _imported(path: pathlib.Path) -> set[str]:
    """Returns the first names of the modules that a file imports."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path}, which the training function needs, is no file of Python: {error}") from error
    names = set()
    for node in ast.walk(tree):
        names |= {alias.name.partition(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()
        names |= {node.module.partition(".")[0]} if isinstance(node, ast.ImportFrom) and node.module and not node.level else set()
    return names
