"""The verbs of `python -m experiments` (imports no jax: libraries that take long to import are imported where they are used)."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import TextIO, Union

from experiments.comparison_results import ComparisonResults
from experiments.grid_results import GridResults
from experiments.looking import Looking
from experiments.planning import Asked, Planning
from experiments.studies import AnyStudy
from experiments.training import How, Training
from lm.errors import UserError
from lm.study.comparison import Comparison


@dataclasses.dataclass(frozen=True)
class Commands:
    """Carries out the verbs of one study; each can be called again, and does only what is missing.

    The verbs that all studies have are in `planning`, `training` and `looking`. What follows the training depends on the kind of study:
    see `GridResults` and `ComparisonResults`.
    """

    study: AnyStudy
    root: pathlib.Path  # the study's directory
    data_dir: pathlib.Path  # the folder of prepared data
    how: How = How()
    out: TextIO = sys.stdout
    asked: Asked = Asked()
    retry: str = "python -m experiments NAME retry"  # the command that trains failed cells again

    def do(self, verb: str, *, as_json: bool = False, from_start: bool = False, cells: Sequence[str] = (), follow: bool = False) -> int:
        """Carries out a verb and returns the exit status."""
        if verb in ("logs", "cancel"):
            return self.looking.logs(cells, follow) if verb == "logs" else self.training.cancel(cells)
        if verb not in self._results.VERBS:
            raise UserError(f"{self.study.name} is a {self._results.KIND} and has no verb {verb}; it has {', '.join(self._results.VERBS)}")
        if verb == "collect":
            return self.looking.collect(self.study)
        if verb == "status":
            return self.looking.status(as_json=as_json, watch=follow)
        if verb == "plan":
            return self.planning.do(self.asked, self.training.launcher.count)
        self.planning.write(self.planning.make(verb))  # the directory has to be of the study as it is defined now
        if verb == "retry" and not self.training.reset(from_start, cells):
            return 0
        failed = self.training.run() if verb in ("all", "run", "retry") else 0
        return self._results.do(verb, as_json=as_json) or int(failed > 0)

    @property
    def planning(self) -> Planning:
        """The verb `plan`, and the plan behind the others."""
        return Planning(self.study, self.root, self.data_dir, self._say)

    @property
    def training(self) -> Training:
        """The verbs that train."""
        return Training(self.root, self.how, self.study.limits, self._results.before_stage_1, self.retry, self.out)

    @property
    def looking(self) -> Looking:
        """The verbs that look."""
        return Looking(self.root, self.retry, self.out)

    @property
    def _results(self) -> Union[GridResults, ComparisonResults]:
        """The verbs that follow the training."""
        if isinstance(self.study, Comparison):
            return ComparisonResults(self.study, self.root, self._say)
        return GridResults(self.study, self.root, self._say)

    def _say(self, text: str) -> None:
        print(text, file=self.out, flush=True)
