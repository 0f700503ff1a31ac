"""The verb `plan`, and the plan that every other verb is checked against (imports no jax)."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Optional

from experiments import calibrate, cost, preflight
from experiments.search import Search
from experiments.studies import AnyStudy
from lm.data import corpora, round_trip
from lm.data import info as data_info
from lm.errors import UserError, counted
from lm.preflight.topologies import Topology
from lm.study import directory, plan, plan_table, speed
from lm.study import status as status_lib


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `plan` is asked beside the study's own cells."""

    topology: Optional[Topology] = None  # hardware that every shape is compiled for
    timeout: float = 1800.0  # seconds for each compilation
    terms: Optional[cost.Terms] = None  # devices whose costs are stated
    without_data: bool = False  # whether the data are left alone, and nothing is written
    calibrate: bool = False  # whether this machine's speed is measured first
    search: Optional[Search] = None  # finds the meshes of all sizes instead of planning on those that the study gives


@dataclasses.dataclass(frozen=True)
class Planning:
    """Plans a study on its data, prints the plan, and writes the study's directory."""

    study: AnyStudy
    root: pathlib.Path  # the study's directory
    data_dir: pathlib.Path  # the folder of prepared data
    say: Callable[[str], None]

    def do(self, asked: Asked, workers: int) -> int:
        """Carries out `plan` for a number of workers of this machine; returns the exit status."""
        if asked.search is not None:
            return self._search(asked.search)
        made = plan.make(self.study, plan.assumed_data()) if asked.without_data else self.make("plan")
        if asked.calibrate:
            rate = calibrate.measure(made.planned, self.study.speed, self.data_dir, self.say)
            made = plan.make(dataclasses.replace(self.study, speed=rate), made.data)
            self.say(f"measured: speed=Speed(flops_per_second={rate.flops_per_second:.3g}, per_token={rate.per_token:.3g})\n")
        self.say(plan_table.render(made, workers, plan_table.HERE if asked.terms is None else cost.estimates(asked.terms)))
        if asked.terms is not None:
            self._say_costs(made, asked.terms)
        if asked.without_data:
            for refusal in made.refusals:
                print(f"refused: {refusal}", file=sys.stderr)
            self.say(f"nothing was written: without --without-data, `plan` prepares the data and writes {self.root}")
        else:
            self.write(made)
            if asked.calibrate:
                speed.keep(self.root, made.study.speed, calibrate.device())
            if (known := speed.kept(self.root)) is not None:
                self.say(f"Times are {known.words}; `plan --calibrate` measures anew, and without {speed.FILE} the study's own counts.")
            if words := calibrate.recorded(status_lib.read_status(self.root)):
                self.say(words)
            self.say(f"planned in {self.root}")
        return int(bool(made.refusals)) if asked.topology is None else self._preflight(made, asked.topology, asked.timeout)

    def make(self, verb: str) -> plan.Plan:
        """Plans the study on prepared data; prepares the data first when they are missing, and refuses text that has changed since.

        What follows the training needs no text: there the study is planned on the record of the data in its directory.
        """
        if (self.root / "study.json").exists() and verb != "plan":
            stored = directory.open_study(self.root)["data"]
            state = status_lib.read_status(self.root)
            if verb in ("forecast", "fit", "report") or state.finished == len(state.cells):
                return plan.make(self._at_speed, stored)
        config, data_dir = self.study.base.data, str(self.data_dir)
        data = data_info.info(config, data_dir)
        found = [corpora.require_unchanged(component, data_dir) for component in config.components] if data is not None else []
        if data is None or not all(found) or not round_trip.is_measured(data):
            self.say(f"preparing the data in {self.data_dir} (once)")
            from lm.data import pipeline

            data = pipeline.prepare(config, data_dir, log=self.say).info
        return plan.make(self._at_speed, data)

    @property
    def _at_speed(self) -> AnyStudy:
        """The study, at the speed that was measured for its directory, if one was."""
        known = speed.kept(self.root)
        return self.study if known is None else dataclasses.replace(self.study, speed=known.speed)

    def write(self, made: plan.Plan) -> dict[str, Any]:
        """Writes the study's directory, or checks that it was written from this plan; a refused plan is printed and raises UserError."""
        for refusal in made.refusals:
            print(f"refused: {refusal}", file=sys.stderr)
        if made.refusals:
            raise UserError(
                f"{counted(len(made.refusals), 'refusal')}, printed above; nothing was written. Change the study's definition or its text"
            )
        return directory.write(made, self.root, self.data_dir)

    def _say_costs(self, made: plan.Plan, terms: cost.Terms) -> None:
        """Prints what a plan costs on devices; raises UserError when a shape fits none."""
        self.say("\n" + cost.render(made, terms))
        large = cost.too_large(made, terms)
        for line in large:
            print(f"refused: {line}", file=sys.stderr)
        if large:
            raise UserError("what is printed above fits no device; nothing was written")

    def _search(self, search: Search) -> int:
        """Finds the meshes of all sizes; the study's own rule, which may read them, is left out."""
        configs = [cell.config for cell in dataclasses.replace(self.study, execution=None).cells()]
        status = search.run(configs, self.say, _progress)
        self.say(f"wrote {search.path}; `plan --topology={search.topology.text}` compiles every shape of the study on these meshes")
        return status

    def _preflight(self, made: plan.Plan, topology: Topology, timeout: float) -> int:
        configs = [planned.cell.config for planned in made.planned]
        return preflight.shapes(configs, topology, timeout=timeout, say=self.say, progress=_progress)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
