"""A fitted law on disk: all that a prediction needs, so that the law is fitted once (`fit --save`, then `predict` and `score`)."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, Optional, Union

import numpy as np

from lm.errors import UserError, require_local
from lm.scaling.fits import fit, frontier
from lm.scaling.fits.objectives import OBJECTIVES, Objective
from lm.scaling.fitted_law import FittedLaw, unit_of
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.laws import catalogue
from lm.scaling.laws.law import Law
from lm.scaling.results import Caution, Refusal, decode, result, to_json, version
from lm.scaling.runs import Runs

SCHEMA = 2
_SAME = 1e-9  # difference of log loss above which a law is another formula than the one that was saved

Rows = tuple[tuple[Optional[float], ...], ...]


@result
class SavedFit:
    """A fitted law with its draws, its points and how they were read.

    `law` is the law's name in the catalogue, `objective` the objective's name and its settings, `code` the version that saved it. `values`
    [k] and `draws` [R, k] are parameters of the equation. `log_x` [n, p], `log_loss` and `weights` [n] are the points of the fit,
    `evidence` the numbers of `fits.fit.Fit`, `cost` those of `fits.frontier.Cost`, `sampled` the range of every input of the table.
    `noise_unit` is that of `fitted_law.unit_of`. `first_loss` is the fitted log loss of the first point: a law that gives another one
    there has changed since. A draw that is no number is None.
    """

    schema: int
    code: str
    law: str
    fixed: dict[str, float]
    equation: str
    objective: dict[str, Any]
    source: str
    sha256: str
    rows: int
    columns: dict[str, Any]
    filters: tuple[str, ...]
    names: tuple[str, ...]
    values: tuple[float, ...]
    draws: Rows
    left_out: Optional[Rows]
    method: str
    level: float
    refused: Optional[Refusal]
    log_x: Rows
    log_loss: tuple[float, ...]
    weights: tuple[float, ...]
    evidence: dict[str, float]
    sampled: dict[str, tuple[float, float]]
    cost: dict[str, Any]
    noise: Union[NoiseModel, Refusal]
    noise_unit: float
    cautions: tuple[Caution, ...]
    first_loss: float


def saved(
    fitted: FittedLaw,
    cells: Runs,
    noise: Union[NoiseModel, Refusal],
    columns: Mapping[str, Any],
    filters: tuple[str, ...] = (),
    cautions: tuple[Caution, ...] = (),
) -> SavedFit:
    """Returns what `write` puts on disk.

    Args:
      cells: the rows of the fit, replicas merged.
      noise: the seed noise of the table.
      columns: the options that named the table's columns, so that another table is read alike.
      filters: names of the filters that left rows out.
      cautions: of the fit.
    """
    made, law, points = fitted.fit, fitted.law, fitted.fit.points
    evidence = {name: float(getattr(made, name)) for name in ("value", "gradient", "condition", "starts", "agreeing")}
    return SavedFit(
        schema=SCHEMA, code=version(), law=_name_of(law), fixed=dict(getattr(law, "fixed", ())),
        equation=getattr(law, "equation", "") or type(law).__name__, objective=_described(made.objective),
        source=cells.source, sha256=cells.sha256, rows=len(cells), columns=dict(columns), filters=filters,
        names=law.names, values=_row(fitted.values), draws=_rows(fitted.draws),
        left_out=None if fitted.left_out is None else _rows(fitted.left_out), method=fitted.method, level=fitted.level,
        refused=fitted.refused, log_x=_rows(points.log_x), log_loss=_row(points.log_loss), weights=_row(points.weights), evidence=evidence,
        sampled={name: (float(column.min()), float(column.max())) for name, column in cells.inputs.items()},
        cost={name: np.asarray(part).tolist() for name, part in frontier.cost_of(cells)._asdict().items()},
        noise=noise, noise_unit=unit_of(cells, noise, made.objective), cautions=cautions,
        first_loss=float(made.log_loss(points.log_x[:1])[0]),
    )  # fmt: skip


def write(path: pathlib.Path, made: SavedFit) -> pathlib.Path:
    """Writes a saved fit, and makes its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(made, indent=None), encoding="utf-8")
    return path


def read(path: Union[str, pathlib.Path]) -> SavedFit:
    """Reads a saved fit; UserError where the file holds none, or one of another schema."""
    require_local(path)
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}: save a fit with `fit RUNS.csv --save={path}`")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError):
        raise UserError(f"{path} is no saved fit (no JSON): save one with `fit RUNS.csv --save=FIT.json`") from None
    kind = held.get("type") if isinstance(held, dict) else None
    if kind != "SavedFit":
        what = "the output of --json" if kind == "TableAnalysis" else "no saved fit"
        raise UserError(f"{path} is {what}, which holds no draws: save a fit with `fit RUNS.csv --save=FILE.json`")
    if held.get("schema") != SCHEMA:
        raise UserError(f"{path} has schema {held.get('schema')}, saved by lm {held.get('code')}; this is schema {SCHEMA}: fit once more")
    try:
        return decode(held)
    except (KeyError, TypeError):
        raise UserError(f"{path} was saved by lm {held.get('code')} with other fields than {version()} reads: fit once more") from None


def restored(made: SavedFit) -> FittedLaw:
    """Returns the fitted law of a saved fit; UserError where the law's formula is another one today."""
    law = _law_of(made)
    if law.names != made.names:
        raise UserError(
            f"law {made.law} had parameters {', '.join(made.names)} when it was saved, now {', '.join(law.names)}: fit once more"
        )
    log_x, values = np.array(made.log_x, float), np.array(made.values)
    points = fit.Points(log_x, np.array(made.log_loss), np.array(made.weights))
    theta = law.coordinates(values, points.centre)
    number = made.evidence
    fitted = fit.Fit(
        law=law, objective=_objective_of(made.objective), points=points, theta=theta, value=number["value"], gradient=number["gradient"],
        condition=number["condition"], starts=int(number["starts"]), agreeing=int(number["agreeing"]), others=theta[None], cautions=(),
    )  # fmt: skip
    if abs(float(fitted.log_loss(points.log_x[:1])[0]) - made.first_loss) > _SAME:
        raise UserError(f"law {made.law} has another formula in lm {version()} than in lm {made.code}, which saved it: fit once more")
    return FittedLaw(
        fit=fitted, values=values, draws=np.array(made.draws, float), method=made.method, level=made.level, sampled=made.sampled,
        left_out=None if made.left_out is None else np.array(made.left_out, float), refused=made.refused,
    )  # fmt: skip


def cost_of(made: SavedFit) -> frontier.Cost:
    """Returns the FLOPs per token of a saved fit as a function of N."""
    held = {name: tuple(part) if name == "sampled" else part for name, part in made.cost.items()}
    return frontier.Cost(**held | {"coefficients": np.array(made.cost["coefficients"])})


def _name_of(law: Law) -> str:
    for name, entry in catalogue.LAWS.items():
        if entry.partition(":")[2] == type(law).__name__:
            return name
    raise UserError(f"{type(law).__name__} is not in the catalogue of laws, so that no saved fit can name it: enter it there")


def _law_of(made: SavedFit) -> Law:
    law: Any = catalogue.law(made.law)
    return dataclasses.replace(law, fixed=tuple(made.fixed.items())) if made.fixed else law


def _described(objective: Objective) -> dict[str, Any]:
    name = next((name for name, one in OBJECTIVES.items() if one is type(objective)), "")
    if not name:
        raise UserError(f"{type(objective).__name__} is no objective of `--objective`, so that no saved fit can name it")
    return {"name": name} | {field.name: getattr(objective, field.name) for field in dataclasses.fields(objective)}  # type: ignore[arg-type]  # all are dataclasses


def _objective_of(described: dict[str, Any]) -> Objective:
    return OBJECTIVES[described["name"]](**{name: value for name, value in described.items() if name != "name"})


def _row(values: np.ndarray) -> tuple[float, ...]:
    return tuple(np.asarray(values, float).tolist())


def _rows(values: np.ndarray) -> Rows:
    return tuple(tuple(value if math.isfinite(value) else None for value in row) for row in np.asarray(values, float).tolist())
