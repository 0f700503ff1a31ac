"""Reads published tables that are pickled data frames, and runs nothing that such a file names beside the parts of a data frame."""

import lzma
import pathlib
import pickle
from typing import Any

from lm.errors import UserError

_NUMPY = ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
_PANDAS = ("core.frame.DataFrame", "core.series.Series", "core.indexes.base.Index", "core.indexes.range.RangeIndex")
PARTS = {
    *("builtins.slice", "numpy.ndarray", "numpy.dtype", *(f"numpy.{core}.{name}" for core in ("core", "_core") for name in _NUMPY)),
    *(f"pandas.{name}" for full in _PANDAS for name in (full, full.rpartition(".")[2])),
    *("pandas.core.indexes.base._new_Index", "pandas._libs.internals._unpickle_block"),
    *(f"pandas.core.internals.managers.{name}" for name in ("BlockManager", "SingleBlockManager")),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in PARTS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a data frame")
        return super().find_class(module, name)


def read(path: pathlib.Path) -> Any:
    """Returns the data frame in a file NAME.pickle.xz. Raises UserError for a file that holds something else, of which nothing is run."""
    try:
        with lzma.open(path) as file:
            return _Unpickler(file).load()
    except (pickle.UnpicklingError, lzma.LZMAError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is no pickled data frame ({' '.join(str(error).split())[:120]}): fetch it again") from error
