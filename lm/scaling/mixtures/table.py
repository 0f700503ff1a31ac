"""Mixtures and their losses: rows of shares that sum to 1, each with the loss of a model that was trained on it."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lm.errors import UserError, counted

_SUM = 0.02  # a sum of shares may miss 1 by this much, as printed shares are rounded; they are then scaled


@dataclasses.dataclass(frozen=True)
class Mixtures:
    """Shares [n, m] of the domains `names`, and losses [n]."""

    names: tuple[str, ...]
    share: np.ndarray
    loss: np.ndarray


def mixtures(table: Mapping[str, Any], shares: str, loss: str, source: str = "table") -> Mixtures:
    """Reads mixtures from named columns.

    Args:
      shares: pattern of the columns of shares, such as `train_*`; the text before its first star is left off their names.
      loss: column of the losses.
    """
    names = [name for name in table if fnmatch.fnmatchcase(name, shares)]
    if len(names) < 2:
        raise UserError(
            f"{source}: the pattern {shares!r} fits {counted(len(names), 'column')}, two are needed; there are {', '.join(table)}"
        )
    if loss not in table:
        raise UserError(f"{source} has no column {loss!r}: its columns are {', '.join(table)}")
    share = np.stack([_numbers(table[name], name, source) for name in names], axis=1)
    losses = _numbers(table[loss], loss, source)
    total = share.sum(axis=1)
    if share.min() < 0:
        raise UserError(f"{source}, mixture {np.argmin(share.min(axis=1)) + 1}: a share is {share.min():.3g}; shares lie from 0 to 1")
    wrong = np.flatnonzero(np.abs(total - 1) > _SUM)
    if len(wrong):
        raise UserError(
            f"{source}, mixture {wrong[0] + 1}: its shares sum to {total[wrong[0]]:.3g}, where 1 is needed; check --shares={shares}"
        )
    if len(losses) <= len(names):
        raise UserError(
            f"{source}: {counted(len(losses), 'mixture')} of "
            f"{counted(len(names), 'domain')} cannot be fitted: {len(names) + 1} are the least"
        )
    if np.any(losses <= 0):
        raise UserError(f"{source}, mixture {np.argmax(losses <= 0) + 1}: {loss} is not positive; leave diverged runs out")
    prefix = len(shares.split("*")[0])
    return Mixtures(tuple(name[prefix:] for name in names), share / total[:, None], losses)


def _numbers(cells: Sequence[Any], name: str, source: str) -> np.ndarray:
    try:
        found = np.array([float(cell) for cell in cells])
    except (TypeError, ValueError):
        raise UserError(f"{source}: a cell of column {name!r} is not a number") from None
    if not np.all(np.isfinite(found)):
        raise UserError(
            f"{source}, mixture {np.argmin(np.isfinite(found)) + 1}: {name} is {found[~np.isfinite(found)][0]}; leave such runs out"
        )
    return found


def joined(left: Mapping[str, Any], right: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Joins two tables row by row, and checks that columns that both have are equal, such as an index."""
    sizes = [len(next(iter(table.values()), ())) for table in (left, right)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{source}: {counted(sizes[0], 'mixture')} beside {counted(sizes[1], 'row')} of losses; give a row of each for every run"
        )
    for name in left:
        if name in right and list(left[name]) != list(right[name]):
            raise UserError(f"{source}: column {name!r} differs between the two tables; put their rows in one order")
    return dict(left) | dict(right)


def about(data: Mixtures, shares: Mapping[str, float]) -> np.ndarray:
    """Returns shares by name as a mixture [m]; UserError for a domain that is not there. Domains without a share have none."""
    if unknown := [name for name in shares if name not in data.names]:
        raise UserError(f"no domain {unknown[0]!r}: there are {', '.join(data.names)}")
    return np.array([shares.get(name, 0.0) for name in data.names])
