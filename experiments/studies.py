"""The studies that a command can name: those of this folder, and files of the user's own (imports no jax)."""

import importlib
import pathlib
import runpy
from typing import Any, Union

from lm import files
from lm.errors import UserError, nearest
from lm.study import naming
from lm.study.comparison import Comparison
from lm.study.study import Study

FOLDER = pathlib.Path(__file__).parent
AnyStudy = Union[Study, Comparison]


def names() -> list[str]:
    """Returns the names of the studies in this folder."""
    return sorted(path.parent.name for path in FOLDER.glob("*/study.py"))


def load(name: str) -> AnyStudy:
    """Returns the study of a name, or of the path of a file with a function `get_study()`. Raises UserError when there is none."""
    if not name.endswith(".py") and name not in names():
        raise UserError(f"unknown study {name!r} (one of your own is named by its path, such as my_study.py): {nearest(name, names())}")
    if name.endswith(".py") and not files.here_or_shipped(name).is_file():
        raise UserError(f"no file {name}: give a study's name ({', '.join(names())}) or the path of a study.py")
    study = _defined(name)
    if not isinstance(study, (Study, Comparison)):
        raise UserError(f"{name}: its function get_study() must return a lm.study.study.Study or a lm.study.comparison.Comparison")
    naming.require_safe(study.name, f"{name}: the study's name")
    return study


def _defined(name: str) -> Any:
    """Returns what `get_study()` returns in a study's module or file; None where there is no such function, UserError where that fails."""
    path = files.here_or_shipped(name) if name.endswith(".py") else FOLDER / name / "study.py"
    try:
        with files.package_of(path):
            module = runpy.run_path(str(path)) if name.endswith(".py") else vars(importlib.import_module(f"experiments.{name}.study"))
            return module["get_study"]() if "get_study" in module else None
    except UserError:
        raise
    except Exception as error:  # the file is the user's program, and whatever it raises is for the user to fix
        raise UserError(f"{name}: {type(error).__name__}: {error} (LM_TRACEBACK=1 shows where)") from error
