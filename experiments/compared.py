"""What follows the training of a comparison: its table and its report (imports no jax)."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from experiments import stamp
from lm import files
from lm.analysis import paired
from lm.scaling.results import to_json
from lm.study import directory
from lm.study.variants import Comparison


@dataclasses.dataclass(frozen=True)
class Compared:
    """The comparison of a study that lives in `root`."""

    VERBS: ClassVar[tuple[str, ...]] = ("all", "plan", "run", "status", "report")
    WHAT: ClassVar[str] = "comparison"

    study: Comparison
    root: Path
    say: Callable[[str], None]

    def do(self, verb: str, *, as_json: bool) -> int:
        del as_json
        if verb in ("report", "all"):
            self._report()
        return 0

    def between_stages(self) -> bool:
        return True  # there is one stage

    def _report(self) -> None:
        """Prints the table; writes comparison.json, report.html and the figures unless they are of these runs and this code."""
        runs = paired.read(self.root)
        made = paired.compare(runs, self.study.judgement, self.study.published)
        self.say(paired.render(made, self.study.published))
        page, stored, written = self.root / "report.html", self.root / "comparison.json", self.root / "figures" / "inputs"
        inputs = stamp.inputs(directory.open_study(self.root), [dataclasses.asdict(run) for run in runs])
        if not (page.exists() and stored.exists() and written.exists() and written.read_text(encoding="utf-8") == inputs):
            files.write_text(stored, to_json(made))
            from lm.report.versus import write

            write(self.root, made, runs, self.study.published)
            written.write_text(inputs, encoding="utf-8")
        self.say(f"report: {page.resolve()}")
