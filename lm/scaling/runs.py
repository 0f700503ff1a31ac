"""The table of runs that every fit reads, made of a study, a CSV file, a pandas data frame or any mapping of names to columns (numpy only).

Each row is one measured point: parameters N, tokens D, a loss, and where they are known the FLOPs C, the training run that the point
belongs to, its seed, its planned budget, and whether its learning rate had decayed. Without a column of FLOPs C = 6 N D.
"""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np

from lm.errors import UserError
from lm.scaling.budgets import grouped
from lm.scaling.results import Caution
from lm.scaling.tables import columns as columns_lib
from lm.scaling.tables import formats, numbers, selection
from lm.scaling.tables.columns import ColumnRead, Columns

_SAME_LOSS = 2e-4  # relative difference of losses that are one loss
_SHOWN = 5  # rows that an error names
_SAME = 1e-5  # relative difference of D that is rounding
_SAME_IN_BUDGET = 1e-2  # the same among rows of one budget and N, where batches of other sizes end a little apart


_OF_TABLE = ("inputs", "counted", "source", "read", "notes", "sha256", "cautions")  # what a part of a table keeps as it is
Size = tuple[tuple[str, int], ...]  # the fields of a model's shape, by name


@dataclasses.dataclass(frozen=True)
class Runs:
    """A table of runs, whatever it was read from. Columns [n] are in its order.

    `inputs` holds N, D, C, M = D / N and what was asked for, by name. `run` and `seed` name the training run and the seed of a point (each
    point is its own run where no column says otherwise). `counted` says that C was measured rather than taken as 6 N D.

    `size` names the model of a row where N does not; rows of one budget and size are replicas. `planned_c` is C in the convention that
    budgets are planned in, where `inputs["C"]` counts otherwise: seed noise is a function of it. In a table of cells (`cells`) `members`
    are the runs that each row is the mean of. `other` holds the cells of the columns that no option names, which diagnostics read.

    `read` says what each column was understood to be, `notes` what was left out, and `sha256` is of the file. `cautions` are of how rows
    were chosen.
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
    read: tuple[ColumnRead, ...] = ()
    notes: tuple[str, ...] = ()
    sha256: str = ""
    other: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    cautions: tuple[Caution, ...] = ()

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
        kept = {name: values if name in (*_OF_TABLE, "other") else part(values) for name, values in columns.items()}
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

        several = [(i, rows) for i, rows in enumerate(groups) if len(rows) > 1]

        def mean(column: np.ndarray) -> np.ndarray:
            found = column[[rows[0] for rows in groups]]
            for i, rows in several:
                if not np.all(column[rows] == found[i]):
                    found[i] = np.exp(np.mean(np.log(column[rows])))
            return found

        members = tuple(tuple(self.run[i] for i in rows) for rows in groups)
        return dataclasses.replace(
            first,
            inputs={name: mean(column) for name, column in self.inputs.items()},
            loss=mean(self.loss),
            planned_c=None if self.planned_c is None else mean(self.planned_c),
            run=tuple(" and ".join(dict.fromkeys(runs)) for runs in members),
            seed=None,
            members=members,
            other={} if len(groups) < len(self) else first.other,
        )


Frame = Union[Mapping[str, Sequence[Any]], Any]


@dataclasses.dataclass(frozen=True)
class Selection:
    """The rows to read: those that fulfil all conditions, without duplicates, or the best run of each cell of a sweep."""

    where: tuple[str, ...] = ()
    drop_duplicates: bool = False
    best: bool = False


def read_table(path: Union[str, pathlib.Path], columns: Columns = Columns(), select: Selection = Selection()) -> Runs:
    """Reads the runs of a file: .csv, .tsv, either with .gz, .jsonl, .json, .parquet or .xlsx.

    Raises:
      UserError: the file, a column or a cell is not what it has to be; the row of the file is named.
    """
    return of_table(formats.read(path), columns, select)


def from_frame(frame: Frame, columns: Columns = Columns(), source: str = "table", select: Selection = Selection()) -> Runs:
    """Reads the runs of a data frame, or of any mapping of names to columns. Rows count from 0 in errors."""
    return of_table(formats.of_frame(frame, source), columns, select)


def of_table(table: formats.RawTable, columns: Columns, select: Selection = Selection()) -> Runs:
    """Reads the runs of a table whose cells are at hand."""
    table = selection.finished(table)
    for condition in select.where:
        table = selection.where(table, condition)
    if not len(table):
        raise UserError(f"{table.source} holds no rows: a row per run is needed")
    reader = _Reader(table, columns)
    n, d, c, counted = reader.sizes()
    loss = reader.needed("loss", "loss", columns.loss)
    inputs = {"N": n, "D": d, "C": c, "M": d / n} | {name: reader.positive(name, column) for name, column in columns.inputs.items()}
    run = reader.text(columns.run) if columns.run else tuple(f"row {line}" for line in table.lines)
    budget, together = grouped(reader.positive("budget", columns.budget)) if columns.budget else (None, None)
    made = Runs(
        inputs, loss, run, reader.text(columns.seed) if columns.seed else None, budget,
        reader.truth(columns.decayed) if columns.decayed else None,
        counted, table.source, notes=table.notes, sha256=table.sha256, cautions=(together,) if together else (),
    )  # fmt: skip
    order = {name: i for i, name in enumerate(("N", "D", "C", "loss", "budget"))}
    made = dataclasses.replace(made, read=tuple(sorted(reader.read, key=lambda one: order.get(one.name, len(order)))), other=reader.other())
    made = _distinct(made, table.lines, select.drop_duplicates)
    return _best(made) if select.best else made


class _Reader:
    """Reads columns of a table as positive numbers, text or truth, and notes what each was understood to be."""

    def __init__(self, table: formats.RawTable, columns: Columns):
        self.table, self.columns = table, columns
        self.logarithms = {
            columns_lib.named(table, name): base for names, base in ((columns.log10, 10.0), (columns.ln, np.e)) for name in names
        }
        self.read: list[ColumnRead] = []
        self.texts: set[str] = set()  # columns that were read as text

    def sizes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
        """Returns N, D, C, and whether C was counted. One of N and D may follow from C = 6 N D, and C from both."""
        columns = self.columns
        found = {
            role: columns_lib.found(self.table, role, given) for role, given in (("params", columns.params), ("tokens", columns.tokens))
        }
        lacking = [role for role, name in found.items() if name is None]
        flops = columns_lib.found(self.table, "flops", columns.flops) if columns.flops or lacking else None
        if lacking and (len(lacking) == 2 or flops is None):
            raise self._lacks(lacking[0])
        c = self.positive("C", flops) if flops else None
        n = self.positive("N", found["params"]) if found["params"] else None
        d = self.positive("D", found["tokens"]) if found["tokens"] else None
        if n is None:
            assert c is not None
            assert d is not None
            n = self._derived("N", "C / (6 D)", c / 6 / d)
        if d is None:
            assert c is not None
            d = self._derived("D", "C / (6 N)", c / 6 / n)
        if c is None or lacking:
            return n, d, self._derived("C", "6 N D", 6 * n * d) if c is None else c, False
        return n, d, c, True

    def needed(self, role: str, name: str, given: Optional[str]) -> np.ndarray:
        """Returns the column of an input that has to be there."""
        column = columns_lib.found(self.table, role, given)
        if column is None:
            raise self._lacks(role)
        return self.positive(name, column)

    def _lacks(self, role: str) -> UserError:
        what = {"params": "parameters N", "tokens": "tokens D"}.get(role, role)
        there = ", ".join(self.table.names)
        return UserError(f"{self.table.source} has no column for the {what}: its columns are {there}; name one with --{role}=COLUMN")

    def other(self) -> dict[str, tuple[str, ...]]:
        """Returns the cells of the columns that were not read."""
        used = {one.column for one in self.read} | self.texts
        return {name: tuple(map(str, cells)) for name, cells in self.table.columns.items() if name not in used}

    def text(self, name: str) -> tuple[str, ...]:
        column = columns_lib.named(self.table, name)
        self.texts.add(column)
        return tuple("" if value is None else str(value) for value in self.table.columns[column])

    def positive(self, name: str, given: str) -> np.ndarray:
        """Returns a column of positive numbers, times the unit of its header, out of its logarithm where it is one."""
        column = columns_lib.named(self.table, given)
        values, how = numbers.column(self.table, column), "as it stands"
        unit = columns_lib.unit_of(column)[1]
        if column in self.logarithms:
            base = self.logarithms[column]
            values, how = base**values, "10^x of log10" if base == 10 else "exp of ln"
        elif unit != 1.0:
            values, how = values * unit, f"times {unit:.0e}, the unit of the header".replace("e+0", "e").replace("e+", "e")
        elif name == "loss" and columns_lib.is_in_bits(column):
            values, how = values * math.log(2), "times ln 2: nats of its bits"
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            where = ", ".join(str(self.table.lines[i]) for i in bad[:_SHOWN]) + (", ..." if len(bad) > _SHOWN else "")
            cell = self.table.columns[column][bad[0]]
            what = "empty" if numbers.is_empty(cell) else str(cell)
            said = f"{column} is {what}" if len(bad) == 1 else f"{column} is empty or not positive in {len(bad)} rows"
            raise UserError(f"{self.table.source}, row {where}: {said}; leave such runs out with --where '{column}>0', or mend them")
        self.read.append(ColumnRead(name, column, how, float(values.min()), float(values.max())))
        return values

    def truth(self, name: str) -> np.ndarray:
        known = {"1": True, "true": True, "yes": True, "1.0": True, "0": False, "false": False, "no": False, "0.0": False}
        cells = [cell.strip().lower() for cell in self.text(name)]
        for i, cell in enumerate(cells):
            if cell not in known:
                raise UserError(f"{self.table.where(i)}: {name} is {cell!r}; write true or false")
        return np.array([known[cell] for cell in cells])

    def _derived(self, name: str, how: str, values: np.ndarray) -> np.ndarray:
        self.read.append(ColumnRead(name, "", how, float(values.min()), float(values.max())))
        return values


def _distinct(runs: Runs, lines: Sequence[int], drop: bool) -> Runs:
    """Refuses rows that repeat another one to the last digit, or leaves the repeats out: they would count twice."""
    seen: dict[tuple[Any, ...], int] = {}
    columns = [*(column.tolist() for column in runs.inputs.values()), runs.loss.tolist()]
    columns += [] if runs.budget is None else [runs.budget.tolist()]
    columns += [] if runs.seed is None else [list(runs.seed)]
    repeats = [(first, i) for i, key in enumerate(zip(*columns, strict=True)) if (first := seen.setdefault(key, i)) != i]
    if drop:
        repeats += near_duplicates(runs)
    if not repeats:
        return runs
    if drop:
        kept = np.setdiff1d(np.arange(len(runs)), [i for _, i in repeats])
        repeats = repeats[: len(runs) - len(kept)]  # a row that repeats two others is left out once
        return dataclasses.replace(runs.take(kept), notes=(*runs.notes, f"{len(repeats)} rows that repeat another left out"))
    pairs = ", ".join(f"{lines[first]} and {lines[i]}" for first, i in repeats[:_SHOWN]) + (", ..." if len(repeats) > _SHOWN else "")
    many = f"{len(repeats)} rows repeat another (rows {pairs})"
    raise UserError(f"{runs.source}: {many}: leave them out with --drop-duplicates, or name their seeds with --seed-column=COLUMN")


def same_loss(one: float, other: float) -> bool:
    """Returns whether losses differ by 2e-4 or less, or one is the other rounded to three digits or more."""
    if abs(np.log(one / other)) <= _SAME_LOSS:
        return True
    short, long = sorted((one, other), key=lambda value: len(repr(value)))
    digits = repr(short).replace(".", "").lstrip("0")
    return len(digits) >= 3 and round(long, len(repr(short).partition(".")[2])) == short


def near_duplicates(runs: Runs) -> list[tuple[int, int]]:
    """Returns pairs of rows (a row, its repeat) of one cell whose losses are one but for rounding; none where seeds are named."""
    if runs.seed is not None or runs.members is not None:
        return []
    index = runs.repeats()
    order = np.lexsort((runs.loss, index))
    pairs = [(a, b) for a, b in itertools.pairwise(order.tolist()) if index[a] == index[b]]
    return [(min(pair), max(pair)) for pair in pairs if same_loss(*(float(runs.loss[i]) for i in pair))]


def _best(runs: Runs) -> Runs:
    """Keeps the row of the lowest loss of each cell, as a sweep of learning rates has it."""
    index = runs.repeats()
    order = np.lexsort((runs.loss, index))
    first = np.concatenate([[True], np.diff(index[order]) != 0])
    kept = np.sort(order[first])
    found = tuple(caution for name in runs.other if (caution := _unbracketed(runs, index, kept, name)))
    note = f"{len(kept)} best rows of {len(runs)} kept by --best"
    return dataclasses.replace(runs.take(kept), notes=(*runs.notes, note), cautions=(*runs.cautions, *found))


def _unbracketed(runs: Runs, index: np.ndarray, kept: np.ndarray, name: str) -> Optional[Caution]:
    """Warns of a swept column whose best value is the same end of the sweep in most cells, four standard deviations more than chance."""
    try:
        values = np.array(runs.other[name], float)
    except ValueError:
        return None
    if 2 * len(np.unique(values)) > len(values) or not np.isfinite(values).all():
        return None  # no grid of values
    cells = [values[index == index[i]] for i in kept]
    swept = [(values[i], cell) for i, cell in zip(kept, cells, strict=True) if len(np.unique(cell)) > 1]
    if not swept:
        return None
    chance = np.array([1 / len(np.unique(cell)) for _, cell in swept])
    for end, extreme in (("smallest", np.min), ("largest", np.max)):
        count = sum(bool(value == extreme(cell)) for value, cell in swept)
        if count > len(swept) / 2 and count - chance.sum() > 4 * np.sqrt(np.sum(chance * (1 - chance))):
            what = f"the lowest loss of {count} of {len(swept)} cells is at the {end} {name} of its sweep"
            return Caution("edge", f"{what}: a better one lies beyond, by cell; widen the sweep")
    return None
