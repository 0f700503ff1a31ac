"""Reads the public tables and computes with their columns (numpy only)."""

import csv
import pathlib

import numpy as np

from lm.errors import UserError


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns every column by name: floats where all of its cells are numbers or empty (NaN), else strings."""
    if not path.is_file():
        raise UserError(f"no file {path}, although its folder is there: fetch the folder again")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return {name: _column([row[name] or "" for row in rows]) for name in reader.fieldnames or ()}


def _column(cells: list[str]) -> np.ndarray:
    try:
        return np.array([float(cell or "nan") for cell in cells])
    except ValueError:
        return np.array(cells)


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the exponent p of y ~ x^p by ordinary least squares of logarithms."""
    return float(np.polynomial.polynomial.polyfit(np.log(x), np.log(y), 1)[1])


def huber_sum(predicted: np.ndarray, loss: np.ndarray, delta: float = 1e-3) -> float:
    """Returns the sum of Huber costs of log predicted - log loss, the objective of a fit at given parameters."""
    r = np.log(predicted / loss)
    clipped = np.clip(r, -delta, delta)
    return float(np.sum(clipped * (r - 0.5 * clipped)))
