"""Makes the results of a trained grid: the forecast between its stages, the fits, the report (imports no jax until they are made)."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from experiments import stamp
from lm import files
from lm.analysis import oracle, summary
from lm.errors import UserError, counted
from lm.scaling.words import short
from lm.study import directory, gate, records
from lm.study import status as status_lib
from lm.study.rows import read_json, read_rows
from lm.study.study import Study


@dataclasses.dataclass(frozen=True)
class GridResults:
    """The verbs `forecast`, `fit` and `report` of the study in `root`, and what `all` does after the training."""

    VERBS: ClassVar[tuple[str, ...]] = ("all", "plan", "run", "retry", "status", "forecast", "fit", "collect", "report")
    KIND: ClassVar[str] = "grid"

    study: Study
    root: Path
    say: Callable[[str], None]

    def do(self, verb: str, *, as_json: bool) -> int:
        """Carries out a verb after the training, if there is something to do for it; returns the exit status."""
        if verb == "forecast":
            self._forecast()
        failed = 0
        if verb in ("fit", "report", "all"):
            fitted = self._fitted()
            if verb != "report":
                failed = self._print(fitted, as_json)
            if verb != "fit":
                self._report(fitted)
        return failed

    def before_stage_1(self) -> bool:
        """Writes the forecast from the runs of stage 0; the cells of stage 1 may start from then on."""
        if any(cell["stage"] for cell in directory.open_study(self.root)["cells"]):
            from lm.analysis import stage

            stage.write_forecast(self.root, self.say)
        return True

    def _forecast(self) -> None:
        """Writes the forecast, unless it is there already; raises UserError while cells of stage 0 are missing."""
        stored = gate.read_forecast(self.root)
        if stored is not None:
            self.say(f"the forecast was written {stored['time']}, sha256 {stored['sha256']}, and is never written again")
            return
        rest = [c for c in status_lib.read_status(self.root).cells if c.cell["stage"] == 0 and c.state not in records.FINISHED]
        if rest:
            raise UserError(f"{counted(len(rest), 'cell')} of the first stage to finish before the forecast: `run` does both")
        self.before_stage_1()

    def _fitted(self) -> dict[str, Any]:
        """Returns the content of summary.json; fits again unless it is of the same runs and the same code."""
        rows, forecast = read_rows(self.root), gate.read_forecast(self.root)
        # only synthetic text has a least loss that is known
        least = oracle.least_loss(self.study.base, self.root) if any(row.completed for row in rows) else None
        inputs = stamp.inputs(
            [dataclasses.asdict(row) for row in rows], forecast, dataclasses.asdict(self.study.analysis), least, code="lm.analysis.analysis"
        )
        path = self.root / "summary.json"
        fitted = read_json(path, "") if path.exists() and (self.root / "fit.json").exists() else {}
        if fitted.get("inputs") != inputs:
            from lm.analysis import analysis
            from lm.scaling import results

            content = None if forecast is None else results.decode(forecast["content"])
            made = analysis.analyse(rows, self.study.analysis, content, least)
            files.write_text(self.root / "fit.json", analysis.to_json(made))
            fitted = {"study": self.study.name, **made.summary(), "inputs": inputs}
            files.write_json(path, fitted)
            self.say(f"wrote {path} and fit.json beside it")
        return fitted

    def _print(self, fitted: dict[str, Any], as_json: bool) -> int:
        """Prints the results, and a line on stderr for each failed check; returns 1 where there is one."""
        print(json.dumps(fitted, indent=1) if as_json else summary.render(fitted), flush=True)
        for failure in fitted["failures"]:
            print(f"check failed: {short(failure)}", file=sys.stderr)
        return 1 if fitted["failures"] else 0

    def _report(self, fitted: dict[str, Any]) -> None:
        """Writes report.html and the figures unless they are of these fits (with those of the studies to compare with) and this code."""
        path, written = self.root / "report.html", self.root / "figures" / "inputs"
        fits = [self.root / "fit.json", *(self.root.parent / name / "fit.json" for name in self.study.compare_with)]
        texts = [fit.read_text(encoding="utf-8") if fit.exists() else None for fit in fits]
        inputs = stamp.inputs(fitted["inputs"], texts, code="lm.report.page")
        for fit in fits[1:]:
            if not fit.exists():
                self.say(f"no {fit}: the report leaves that comparison out until `python -m experiments {fit.parent.name}` has run")
        if not (path.exists() and written.exists() and written.read_text(encoding="utf-8") == inputs):
            from lm import report

            report.write(self.root)
            written.write_text(inputs, encoding="utf-8")
        self.say(f"report: {path.resolve()}")
