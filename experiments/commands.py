"""The verbs of `python -m experiments`. Imports no jax; libraries that take long to import are imported where they are used."""

import dataclasses
import difflib
import hashlib
import importlib
import json
import pathlib
import runpy
import sys
from typing import Any, Optional, TextIO

import lm.scaling
from launch.local import LocalWorkers
from launch.view import View
from lm import files
from lm.data import info as data_info
from lm.errors import UserError
from lm.scaling import claims, directory, gate, plan, summary, table
from lm.scaling import status as status_lib
from lm.scaling.study import Study

FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
    return sorted(path.parent.name for path in FOLDER.glob("*/study.py"))


def load(name: str) -> Study:
    """The study of a name, or of a path to a file with a function `get_study() -> Study`."""
    if name.endswith(".py"):
        if not pathlib.Path(name).is_file():
            raise UserError(f"no file {name}: give a study's name ({', '.join(names())}) or the path of a study.py")
        module = runpy.run_path(name)
    elif name in names():
        module = vars(importlib.import_module(f"experiments.{name}.study"))
    else:
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names())}, or give the path of a study.py"
        raise UserError(f"unknown study {name!r}: {hint}")
    study = module["get_study"]() if "get_study" in module else None
    if not isinstance(study, Study):
        raise UserError(f"{name}: its function get_study() must return a lm.scaling.study.Study")
    return study


@dataclasses.dataclass(frozen=True)
class Commands:
    """A study, where it lives, and how it is carried out. Each verb returns an exit status and can be called again."""

    study: Study
    root: pathlib.Path
    data_dir: pathlib.Path
    workers: Optional[int] = None
    train: Optional[str] = None
    out: TextIO = sys.stdout

    def do(self, verb: str, *, as_json: bool = False) -> int:
        if verb == "status":
            self._say(status_lib.render(status_lib.of(self.root), self.root))
            return 0
        if verb == "plan":
            made = self._plan()
            self._say(plan.render(made, len(self._launcher.cores)))
            self._open(made)
            self._say(f"planned in {self.root}")
            return 0
        self._open(self._plan())
        if verb in ("all", "run"):
            self._run()
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

    @property
    def _launcher(self) -> LocalWorkers:
        return LocalWorkers(self.workers, self.train)

    def _say(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def _plan(self) -> plan.Plan:
        """The plan on prepared data; prepares the data first when they are missing."""
        config, data_dir = self.study.base.data, str(self.data_dir)
        data = data_info.info(config, data_dir)
        if data is None:
            self._say(f"preparing the data in {self.data_dir} (once)")
            from lm.data import pipeline

            pipeline.prepare(config, data_dir, log=self._say)
            data = data_info.info(config, data_dir)
            assert data is not None
        return plan.make(self.study, data)

    def _open(self, made: plan.Plan) -> dict[str, Any]:
        for refusal in made.refusals:
            print(f"refused: {refusal}", file=sys.stderr)
        if made.refusals:
            raise UserError(f"{len(made.refusals)} refusals; nothing was written. Mend the study's definition")
        return directory.write(made, self.root, self.data_dir)

    def _run(self) -> None:
        state = status_lib.of(self.root)
        if state.finished < len(state.cells):
            self._say(
                f"{len(state.cells)} cells in {self.root}, {len(self._launcher.cores)} workers; Ctrl-C stops, the same command continues"
            )
            state = self._launcher.run(self.root, self._make_forecast, View(self.out))
        for c in state.cells:
            if c.state in ("diverged", "failed"):
                self._say(
                    f"excluded: cell {c.cell['id']} (C {c.cell['budget']:.3g}, d_model {c.cell['shape']['d_model']}): {c.state}, {c.reason}"
                )
        self._check_enough(table.read(self.root))

    def _check_enough(self, rows: list[table.Row]) -> None:
        completed, least = sum(row.completed for row in rows), self.study.limits.min_completed
        if completed < least * len(rows):
            raise UserError(f"{completed} of {len(rows)} cells completed, and the study asks for {least:.0%}: see `status` for the reasons")

    def _make_forecast(self) -> bool:
        """Writes the forecast from stage 0; the gate of stage 1 is open from then on."""
        rows = [row for row in table.read(self.root) if row.stage == 0]
        self._check_enough(rows)
        if len(rows) == len(directory.open_study(self.root)["cells"]):
            return True  # nothing is to be forecast
        from lm.scaling import forecast, results

        made = forecast.make(rows, [row for row in table.read(self.root) if row.stage > 0], self.study.analysis)
        if isinstance(made, results.Refusal):
            raise UserError(f"no forecast can be made, so that the second stage cannot be tested: {made.reason}")
        stored = gate.write_forecast(self.root, results.encode(made), list(made.made_from))
        self._say(f"forecast written to {self.root / 'forecast.json'}, sha256 {stored['sha256'][:16]}...")
        return True

    def _forecast_alone(self) -> None:
        stored = gate.read_forecast(self.root)
        if stored is not None:
            self._say(f"the forecast was written {stored['time']}, sha256 {stored['sha256']}, and is never written again")
            return
        rest = [c for c in status_lib.of(self.root).cells if c.cell["stage"] == 0 and c.state not in claims.FINISHED]
        if rest:
            raise UserError(f"{len(rest)} cells of the first stage are not finished: `run` trains them and then writes the forecast")
        self._make_forecast()

    def _fitted(self) -> dict[str, Any]:
        """What summary.json holds, after fitting unless that was done from the same runs by the same code."""
        rows, forecast = table.read(self.root), gate.read_forecast(self.root)
        inputs = self._inputs([dataclasses.asdict(row) for row in rows], forecast, dataclasses.asdict(self.study.analysis))
        path = self.root / "summary.json"
        made = table.read_json(path, "") if path.exists() and (self.root / "fit.json").exists() else {}
        if made.get("inputs") != inputs:
            from lm.scaling import analysis, results

            content = None if forecast is None else results.decode(forecast["content"])
            fitted = analysis.analyse(rows, self.study.analysis, content)
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
        path, stamp = self.root / "report.html", self.root / "figures" / "inputs"
        fits = [self.root / "fit.json", *(self.root.parent / name / "fit.json" for name in self.study.compare_with)]
        inputs = self._inputs([fit.read_text(encoding="utf-8") if fit.exists() else None for fit in fits])
        for fit in fits[1:]:
            if not fit.exists():
                self._say(f"no {fit}: the comparison is left out until `python -m experiments {fit.parent.name}` has run")
        if not (path.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == inputs):
            from lm.scaling import report

            report.write(self.root)
            stamp.write_text(inputs, encoding="utf-8")
        self._say(f"report: {path.resolve()}")

    def _inputs(self, *values: Any) -> str:
        """Hash of values and of the code that turns them into results."""
        folder = pathlib.Path(next(iter(lm.scaling.__path__)))
        digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
        for source in sorted(folder.rglob("*")):
            if source.is_file() and source.suffix in (".py", ".html", ".css", ".j2"):
                digest.update(source.read_bytes())
        return digest.hexdigest()
