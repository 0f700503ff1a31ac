"""The step between a grid's stages: the forecast of the second from the first, written by whoever finishes the first."""

import pathlib
from collections.abc import Callable

from lm import fields
from lm.analysis import forecast
from lm.errors import UserError
from lm.scaling import results
from lm.scaling.settings import AnalysisSettings
from lm.study import directory, gate
from lm.study import status as status_lib
from lm.study.cell import Limits
from lm.study.rows import read_rows


def write_forecast(root: pathlib.Path, say: Callable[[str], None] = print) -> None:
    """Writes a study's forecast from the runs of its first stage; the cells of the second may start from then on.

    Args:
        root: the study's directory, which says how its runs are analysed
        say: takes a line

    Raises: UserError when too few runs of the first stage completed, or when no forecast can be made from them.
    """
    study = directory.open_study(root)
    definition = study["definition"]
    first = [cell for cell in status_lib.read_status(root, study).cells if cell.cell["stage"] == 0]
    status_lib.require_completed(first, definition.get("limits", {}).get("min_completed", Limits().min_completed))
    rows = read_rows(root)
    known, later = ([row for row in rows if (row.stage > 0) is is_later] for is_later in (False, True))
    made = forecast.make(known, later, settings_of(study))
    if isinstance(made, results.Refusal):
        raise UserError(f"no forecast can be made, and without one the second stage does not start: {made.reason}")
    stored = gate.write_forecast(root, results.encode(made), list(made.made_from))
    say(f"forecast written to {root / 'forecast.json'}, sha256 {stored['sha256'][:16]}...")


def settings_of(study: dict) -> AnalysisSettings:
    """Returns how a study's runs are analysed, from the content of study.json. Directories without it have the defaults."""
    plain = dict(study["definition"].get("analysis", {}))
    plain.pop("rule", None)
    return fields.build(AnalysisSettings, plain, "analysis", AnalysisSettings)
