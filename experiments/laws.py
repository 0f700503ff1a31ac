"""What follows the training of a grid: the forecast between its stages, the fits, the report (imports no jax until they are made)."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from experiments import stamp
from lm import files
from lm.analysis import oracle, summary
from lm.errors import UserError
from lm.study import directory, gate, locks
from lm.study import status as status_lib
from lm.study.rows import read_json, read_rows
from lm.study.study import Study


@dataclasses.dataclass(frozen=True)
class Laws:
    """The scaling laws of a study that lives in `root`."""

    VERBS: ClassVar[tuple[str, ...]] = ("all", "plan", "run", "status", "forecast", "fit", "report")
    WHAT: ClassVar[str] = "grid"

    study: Study
    root: Path
    say: Callable[[str], None]

    def do(self, verb: str, *, as_json: bool) -> int:
        if verb == "forecast":
            self._forecast_alone()
        if verb == "fit":
            return self._fit(as_json)
        if verb == "report":
            self._fitted()
            self._report()
        if verb == "all":
            failed = self._fit(as_json)
            self._report()
            return failed
        return 0

    def between_stages(self) -> bool:
        """Writes the forecast from stage 0; the gate of stage 1 is open from then on."""
        cells = status_lib.of(self.root).cells
        status_lib.require_completed([c for c in cells if c.cell["stage"] == 0], self.study.limits.min_completed)
        rows = [row for row in read_rows(self.root) if row.stage == 0]
        if len(rows) == len(directory.open_study(self.root)["cells"]):
            return True  # nothing is to be forecast
        from lm.analysis import forecast
        from lm.scaling import results

        made = forecast.make(rows, [row for row in read_rows(self.root) if row.stage > 0], self.study.analysis)
        if isinstance(made, results.Refusal):
            raise UserError(f"no forecast can be made, so that the second stage cannot be tested: {made.reason}")
        stored = gate.write_forecast(self.root, results.encode(made), list(made.made_from))
        self.say(f"forecast written to {self.root / 'forecast.json'}, sha256 {stored['sha256'][:16]}...")
        return True

    def _forecast_alone(self) -> None:
        stored = gate.read_forecast(self.root)
        if stored is not None:
            self.say(f"the forecast was written {stored['time']}, sha256 {stored['sha256']}, and is never written again")
            return
        rest = [c for c in status_lib.of(self.root).cells if c.cell["stage"] == 0 and c.state not in locks.FINISHED]
        if rest:
            raise UserError(f"{len(rest)} cells of the first stage are not finished: `run` trains them and then writes the forecast")
        self.between_stages()

    def _fitted(self) -> dict[str, Any]:
        """What summary.json holds, after fitting unless that was done from the same runs by the same code."""
        rows, forecast = read_rows(self.root), gate.read_forecast(self.root)
        least = oracle.least_loss(self.study.base, self.root) if any(row.completed for row in rows) else None
        inputs = stamp.inputs([dataclasses.asdict(row) for row in rows], forecast, dataclasses.asdict(self.study.analysis), least)
        path = self.root / "summary.json"
        made = read_json(path, "") if path.exists() and (self.root / "fit.json").exists() else {}
        if made.get("inputs") != inputs:
            from lm.analysis import analysis
            from lm.scaling import results

            content = None if forecast is None else results.decode(forecast["content"])
            fitted = analysis.analyse(rows, self.study.analysis, content, least)
            files.write_text(self.root / "fit.json", analysis.to_json(fitted))
            made = {"study": self.study.name, **fitted.summary(), "inputs": inputs}
            files.write_json(path, made)
        return made

    def _fit(self, as_json: bool) -> int:
        """Prints the results; a line on stderr per failed check, and status 1."""
        made = self._fitted()
        print(json.dumps(made, indent=1) if as_json else summary.render(made), flush=True)
        for failure in made["failures"]:
            print(f"check failed: {failure}", file=sys.stderr)
        return 1 if made["failures"] else 0

    def _report(self) -> None:
        path, written = self.root / "report.html", self.root / "figures" / "inputs"
        fits = [self.root / "fit.json", *(self.root.parent / name / "fit.json" for name in self.study.compare_with)]
        inputs = stamp.inputs([fit.read_text(encoding="utf-8") if fit.exists() else None for fit in fits])
        for fit in fits[1:]:
            if not fit.exists():
                self.say(f"no {fit}: the comparison is left out until `python -m experiments {fit.parent.name}` has run")
        if not (path.exists() and written.exists() and written.read_text(encoding="utf-8") == inputs):
            from lm import report

            report.write(self.root)
            written.write_text(inputs, encoding="utf-8")
        self.say(f"report: {path.resolve()}")
