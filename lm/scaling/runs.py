"""The table of runs that every fit reads, made of a study, a CSV file, a pandas data frame or any mapping of names to columns (numpy only).

Each row is one measured point: parameters N, tokens D, a loss, and where they are known the FLOPs C, the training run that the point
belongs to, its seed, its planned budget, and whether its learning rate had decayed. Without a column of FLOPs C = 6 N D.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np

from lm.errors import UserError

_SHOWN = 5  # rows that an error names
_SAME = 1e-5  # relative difference of D that is rounding
_SAME_IN_BUDGET = 1e-2  # the same among rows of one budget and N, where batches of other sizes end a little apart


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of a table's columns. `inputs` names further inputs of a law: {"U": "unique_tokens"}."""

    params: str = "N"
    tokens: str = "D"
    loss: str = "loss"
    flops: Optional[str] = None
    run: Optional[str] = None
    seed: Optional[str] = None
    budget: Optional[str] = None
    decayed: Optional[str] = None
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)


Size = tuple[tuple[str, int], ...]  # the fields of a model's shape, by name


@dataclasses.dataclass(frozen=True)
class Runs:
    """A table of runs, whatever it was read from. Columns [n] are in its order.

    `inputs` holds N, D, C, M = D / N and what was asked for, by name. `run` and `seed` name the training run and the seed of a point (each
    point is its own run where no column says otherwise). `counted` says that C was measured rather than taken as 6 N D.

    `size` names the model of a row where N does not; rows of one budget and size are replicas. `planned_c` is C in the convention that
    budgets are planned in, where `inputs["C"]` counts otherwise: seed noise is a function of it. In a table of cells (`cells`) `members`
    are the runs that each row is the mean of. `other` holds the cells of the columns that no option names, which diagnostics read.
    """

    inputs: Mapping[str, np.ndarray]
    loss: np.ndarray
    run: tuple[str, ...]
    seed: Optional[tuple[str, ...]] = None
    budget: Optional[np.ndarray] = None  # planned FLOPs
    decayed: Optional[np.ndarray] = None
    counted: bool = False
    source: str = "table"
    size: Optional[tuple[Size, ...]] = None
    planned_c: Optional[np.ndarray] = None
    members: Optional[tuple[tuple[str, ...], ...]] = None
    other: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def n(self) -> np.ndarray:
        return self.inputs["N"]

    @property
    def d(self) -> np.ndarray:
        return self.inputs["D"]

    @property
    def c(self) -> np.ndarray:
        return self.inputs["C"]

    @property
    def log_n(self) -> np.ndarray:
        return np.log(self.n)

    @property
    def log_d(self) -> np.ndarray:
        return np.log(self.d)

    @property
    def log_c(self) -> np.ndarray:
        return np.log(self.c)

    @property
    def log_planned_c(self) -> np.ndarray:
        """The log C at which seed noise is read, in the convention of the plan."""
        return np.log(self.c if self.planned_c is None else self.planned_c)

    @property
    def log_loss(self) -> np.ndarray:
        return np.log(self.loss)

    @property
    def ids(self) -> tuple[tuple[str, ...], ...]:
        """The runs behind each row."""
        return tuple((run,) for run in self.run) if self.members is None else self.members

    @property
    def seeds(self) -> np.ndarray:
        """The number of runs [n] that each row is the mean of."""
        return np.array([len(ids) for ids in self.ids], float)

    @property
    def noise_weight(self) -> np.ndarray:
        """The factor [n] on the relative seed standard deviation of a row: 1 / sqrt(seeds)."""
        return 1 / np.sqrt(self.seeds)

    @property
    def sizes(self) -> tuple[Size, ...]:
        return tuple((("params", round(n)),) for n in self.n.tolist()) if self.size is None else self.size

    @property
    def groups(self) -> np.ndarray:
        """The index [n] of the run of each point, in order of first appearance."""
        index = {name: i for i, name in enumerate(dict.fromkeys(self.run))}
        return np.array([index[name] for name in self.run], int)

    def log_x(self, names: Sequence[str]) -> np.ndarray:
        """Returns the logarithms [n, p] of the inputs of a law."""
        if missing := [name for name in names if name not in self.inputs]:
            raise UserError(f"the law needs {' and '.join(missing)}: name the column of each with --input={missing[0]}=COLUMN")
        return np.log(np.stack([self.inputs[name] for name in names], axis=1))

    def take(self, which: np.ndarray) -> "Runs":
        """Returns the points of a boolean mask or of indices, in order."""
        index = np.flatnonzero(which) if np.asarray(which).dtype == bool else np.asarray(which, int)

        def part(values: Any) -> Any:
            if values is None or isinstance(values, np.ndarray):
                return None if values is None else values[index]
            return tuple(values[i] for i in index)

        columns: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        kept = {name: values if name in ("inputs", "counted", "source", "other") else part(values) for name, values in columns.items()}
        kept["inputs"] = {name: column[index] for name, column in self.inputs.items()}
        kept["other"] = {name: part(column) for name, column in self.other.items()}
        return Runs(**kept)

    def repeats(self) -> np.ndarray:
        """Returns the index [n] of the cell of each row, whatever the seeds: equal inputs, size, budget and end of schedule, and a D
        that is equal to rounding, or to 1% among rows of one budget."""
        keys = [column for name, column in self.inputs.items() if name not in ("D", "C", "M")]
        keys += [column for column in (self.budget, self.decayed) if column is not None]
        if self.size is not None:
            names = {size: i for i, size in enumerate(dict.fromkeys(self.size))}
            keys.append(np.array([names[size] for size in self.size]))
        index = np.unique(np.stack(keys, axis=1).astype(float), axis=0, return_inverse=True)[1].reshape(-1)
        if "D" not in self.inputs:
            return index
        if self.budget is not None:
            index = self._split(index, _SAME_IN_BUDGET)
            low, high = np.full(index.max() + 1, np.inf), np.full(index.max() + 1, -np.inf)
            np.minimum.at(low, index, self.log_d)
            np.maximum.at(high, index, self.log_d)
            chained = (high - low > 2 * _SAME_IN_BUDGET)[index]  # points of a curve, each close to the next
            return np.where(chained, self._split(index, _SAME) + len(self), index)
        return self._split(index, _SAME)

    def _split(self, index: np.ndarray, tolerance: float) -> np.ndarray:
        """Splits cells where log D, in order, moves by more than the tolerance."""
        order = np.lexsort((self.log_d, index))
        new = (np.diff(index[order]) != 0) | (np.diff(self.log_d[order]) > tolerance)
        found = np.empty(len(self), int)
        found[order] = np.concatenate([[0], np.cumsum(new)])
        return found

    def replicas(self) -> list[np.ndarray]:
        """Returns the indices of the rows of each cell, in order of first appearance: rows that differ in their seed alone.

        Where sizes are named a cell is one size of one budget; in other tables all inputs, the budget and the schedule's end are equal.
        Without seeds every row is a cell.
        """
        if self.seed is None:
            return [np.array([i]) for i in range(len(self))]
        cells: dict[tuple[Any, ...], list[int]] = {}
        for i in range(len(self)):
            budget = None if self.budget is None else float(self.budget[i])
            decayed = None if self.decayed is None else bool(self.decayed[i])
            what = (self.size[i],) if self.size is not None else tuple(float(column[i]) for column in self.inputs.values())
            cells.setdefault((budget, decayed, *what), []).append(i)
        return [np.array(rows) for rows in cells.values()]

    def cells(self) -> "Runs":
        """Returns the table with the replicas of each cell merged into one row: means of logarithms."""
        if self.members is not None:
            return self
        groups = self.replicas()
        first = self.take(np.array([rows[0] for rows in groups], int))

        def mean(column: np.ndarray) -> np.ndarray:
            return np.array([column[g[0]] if np.all(column[g] == column[g[0]]) else np.exp(np.mean(np.log(column[g]))) for g in groups])

        members = tuple(tuple(self.run[i] for i in rows) for rows in groups)
        return dataclasses.replace(
            first,
            inputs={name: mean(column) for name, column in self.inputs.items()},
            loss=mean(self.loss),
            planned_c=None if self.planned_c is None else mean(self.planned_c),
            run=tuple(" and ".join(dict.fromkeys(runs)) for runs in members),
            seed=None,
            members=members,
            other={},
        )


Frame = Union[Mapping[str, Sequence[Any]], Any]


def read_csv(path: Union[str, pathlib.Path], columns: Columns = Columns()) -> Runs:
    """Reads the runs of a CSV file with a header; UserError with the line of what is wrong."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}: give the path of a CSV file with a header")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names, rows = reader.fieldnames, list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}): save it as comma-separated text") from None
    if not names:
        raise UserError(f"{path} is empty: a header and a row per run are needed")
    if repeated := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
        raise UserError(f"{path} has more than one column {repeated[0]!r}: give each column a name of its own")
    table = {name: [row[name] for row in rows] for name in names}
    return from_frame(table, columns, source=str(path), first_line=2)


def from_frame(frame: Frame, columns: Columns = Columns(), source: str = "table", first_line: int = 0) -> Runs:
    """Reads the runs of a data frame, or of any mapping of names to columns. `first_line` is the number of the first row in errors."""
    reader = _Reader(frame, source, first_line)
    n, d, loss = (reader.positive(name) for name in (columns.params, columns.tokens, columns.loss))
    if not len(loss):
        raise UserError(f"{source} holds no rows: a row per run is needed")
    c = reader.positive(columns.flops) if columns.flops else 6 * n * d
    inputs = {"N": n, "D": d, "C": c, "M": d / n} | {name: reader.positive(column) for name, column in columns.inputs.items()}
    seed = reader.text(columns.seed) if columns.seed else None
    run = reader.text(columns.run) if columns.run else tuple(f"row {first_line + i}" for i in range(len(loss)))
    budget = reader.positive(columns.budget) if columns.budget else None
    decayed = reader.truth(columns.decayed) if columns.decayed else None
    named = {columns.params, columns.tokens, columns.loss, columns.flops, columns.run, columns.seed, columns.budget, columns.decayed}
    other = {name: reader.text(name) for name in reader.names if name not in named | set(columns.inputs.values())}
    made = Runs(inputs, loss, run, seed, budget, decayed, columns.flops is not None, source, other=other)
    _no_duplicates(made, first_line)
    return made


class _Reader:
    """Reads columns of a table, with errors that name the column, the row and what would do."""

    def __init__(self, frame: Frame, source: str, first_line: int):
        self.frame, self.source, self.first_line = frame, source, first_line
        self.names = [str(name) for name in (frame.columns if hasattr(frame, "columns") else frame.keys())]

    def text(self, name: str) -> tuple[str, ...]:
        if name not in self.names:
            raise UserError(f"{self.source} has no column {name!r}: its columns are {', '.join(self.names)}")
        return tuple("" if value is None else str(value) for value in self.frame[name])

    def positive(self, name: str) -> np.ndarray:
        values = []
        for i, cell in enumerate(self.text(name)):
            try:
                values.append(float(cell))
            except ValueError:
                raise UserError(f"{self._where(i)}: {name} is {cell!r}, not a number; mend the row or leave it out") from None
        column = np.array(values, float)
        bad = np.flatnonzero(~(np.isfinite(column) & (column > 0)))
        if len(bad):
            where = ", ".join(str(self.first_line + int(i)) for i in bad[:_SHOWN]) + (", ..." if len(bad) > _SHOWN else "")
            what = f"{name} is {column[bad[0]]:g}" if len(bad) == 1 else f"{name} is not positive in {len(bad)} rows"
            raise UserError(f"{self.source}, row {where}: {what}; positive finite numbers are needed: leave diverged or empty runs out")
        return column

    def truth(self, name: str) -> np.ndarray:
        known = {"1": True, "true": True, "yes": True, "1.0": True, "0": False, "false": False, "no": False, "0.0": False}
        cells = [cell.strip().lower() for cell in self.text(name)]
        for i, cell in enumerate(cells):
            if cell not in known:
                raise UserError(f"{self._where(i)}: {name} is {cell!r}; write true or false")
        return np.array([known[cell] for cell in cells])

    def _where(self, i: int) -> str:
        return f"{self.source}, row {self.first_line + i}"


def _no_duplicates(runs: Runs, first_line: int) -> None:
    """Refuses rows that repeat another one to the last digit: they would count twice."""
    seen: dict[tuple[Any, ...], int] = {}
    for i in range(len(runs)):
        seed = None if runs.seed is None else runs.seed[i]
        key = (*(float(column[i]) for column in runs.inputs.values()), float(runs.loss[i]), seed)
        if key in seen:
            rows = f"rows {first_line + seen[key]} and {first_line + i}"
            raise UserError(f"{runs.source}, {rows} are the same: leave one out, or name a column of seeds with --seed-column=COLUMN")
        seen[key] = i
