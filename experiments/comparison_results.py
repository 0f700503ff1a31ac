"""Makes the results of a trained comparison: its table and its report (imports no jax until the report is made)."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from experiments import stamp
from lm import files
from lm.analysis import paired
from lm.scaling.results import to_json
from lm.study import directory
from lm.study.comparison import Comparison


@dataclasses.dataclass(frozen=True)
class ComparisonResults:
    """The verb `report` of the comparison in `root`, and what `all` does after the training."""

    VERBS: ClassVar[tuple[str, ...]] = ("all", "plan", "run", "retry", "status", "report")
    KIND: ClassVar[str] = "comparison"

    study: Comparison
    root: Path
    say: Callable[[str], None]

    def do(self, verb: str, *, as_json: bool) -> int:
        """Carries out a verb after the training, if there is something to do for it; returns the exit status."""
        del as_json
        if verb in ("report", "all"):
            self._report()
        return 0

    def before_stage_1(self) -> bool:
        """Says that workers may go on: a comparison has one stage."""
        return True

    def _report(self) -> None:
        """Prints the table; writes comparison.json, report.html and the figures unless they are of these runs and this code."""
        runs = paired.read(self.root)
        made = paired.compare(runs, self.study.judgement, self.study.published)
        self.say(paired.render(made, self.study.published))
        page, stored, written = self.root / "report.html", self.root / "comparison.json", self.root / "figures" / "inputs"
        inputs = stamp.inputs(directory.open_study(self.root), [dataclasses.asdict(run) for run in runs], code="lm.report.comparison")
        if not (page.exists() and stored.exists() and written.exists() and written.read_text(encoding="utf-8") == inputs):
            files.write_text(stored, to_json(made))
            from lm.report.comparison import write

            write(self.root, made, runs, self.study.published)
            written.write_text(inputs, encoding="utf-8")
        self.say(f"report: {page.resolve()}")
